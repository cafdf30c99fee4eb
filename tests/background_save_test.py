#!/usr/bin/env python3
"""Checkpoints that are written while training goes on (--async-save): the bits of those that training waits for, on
one, two and four ranks; what fails is told, and does not end the run; what is kept; and a run that ends while one is
being written.

    background_save_test.py MOETRON FAIL_CALLS_LIBRARY
"""
import errno
import os
import re
import shutil
import signal
import subprocess
import time

from process_support import (ENVIRONMENT, HANG, MOETRON, Ranks, check, first_step, make_data, records, run_tests,
                             saved_steps, wait_for_step)
from save_support import STEPS, command, differing, moetron, preload, run_ranks

ALWAYS = 1000000  # times that a call fails


def steps_in(folder):
    return sorted(int(name[5:]) for name in os.listdir(folder) if name.startswith("step_"))


def saves_of(folder):
    """What the records of all steps tell of saves."""
    return [save for record in records(folder) for save in record.get("saves", [])]


def test_bits():
    for size in (1, 2, 4):
        for how, more in (("waited", []), ("beside", ["--async-save"])):
            done = run_ranks(size, command(f"{how}_{size}", *more), f"{how}_{size}_log")
            check(done.returncode == 0 and saved_steps(done.stdout) == [2, 4, 6],
                  f"{size} ranks, {how}: {done.codes} {done.stderr[-300:]}")
            saves = saves_of(f"{how}_{size}")
            check([save["step"] for save in saves] == [2, 4, 6] and
                  all(save["bytes"] > 1000 and save["write_seconds"] > 0 and save["stall_seconds"] >= 0 and
                      0 <= save["crossed"] < 1 and "failure" not in save for save in saves),
                  f"    its records tell of the saves: {saves}")
            check(("crossed ranks" in done.stdout) == (size > 1), "    and the lines of what crossed ranks")
        different = differing(f"waited_{size}", f"beside_{size}", [2, 4, 6])
        check(not different, f"{size} ranks: the same bits {different}")


def test_dualpipev_goes_on_anywhere():
    """Every step of a run on four ranks is saved beside training; each opens in transformers, and from each the run goes
    on on other numbers of ranks, to the bits that it had itself."""
    shape = ["--num-layers", "3", "--global-batch-size", "8", "--train-iters", "4", "--save-interval", "1"]
    pipelines = {4: "4 --scheduler dualpipev --virtual-hetero-pipeline-stages 1 0 1 0 0 1 0 0", 1: "1",
                 2: "2 --hetero-pipeline-stages 2 1", 8: "8 --hetero-pipeline-stages 1 0 1 0 0 1 0 0"}

    def go_on(size, folder):
        layout = ["--pipeline-model-parallel-size", *pipelines[size].split()]
        done = run_ranks(size, command(folder, *shape, *layout, "--async-save"), f"{folder}_log")
        check(done.returncode == 0, f"{size} ranks save into {folder}: {done.codes} {done.stderr[-300:]}")
        return first_step(done.stdout)

    go_on(4, "v")
    check(steps_in("v") == [1, 2, 3, 4], "dualpipev saves every step")
    for step, size in ((1, 8), (2, 1), (3, 2)):
        folder = f"v_{size}"
        shutil.copytree("v", folder, ignore=shutil.ignore_patterns(*(f"step_000000{n}" for n in range(step + 1, 5))))
        check(go_on(size, folder) == step, f"    it is continued at step {step}")
        different = differing(folder, "v", range(step, 5))
        check(not different, f"    with the same bits in every later step {different}")
        check_transformers(f"v/step_000000{step}")


def check_transformers(folder):
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM
    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    left = [told[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")]
    stored, parameters = load_file(f"{folder}/model.safetensors"), model.state_dict()
    same = all(parameters[name].equal(tensor) for name, tensor in stored.items() if name in parameters)
    check(not any(left) and same, f"    transformers opens {folder}: {left}")


def test_states_on_the_host():
    """Hybrid Adam's states change on the host while a slow disk takes the copy of a save."""
    for how, more in (("waited", []), ("beside", ["--async-save"])):
        done = moetron(command(f"hybrid_{how}", "--optimizer", "hybridadam", *more), {"FAIL_SLOW": 30 if more else 0},
                       f"hybrid_{how}")
        check(done.returncode == 0 and saved_steps(done.stdout) == [2, 4, 6], f"hybridadam, {how}: {done.stderr[-300:]}")
    different = differing("hybrid_beside", "hybrid_waited", [2, 4, 6])
    check(not different, f"hybridadam: the same bits {different}")


def test_too_little_memory():
    """A host that has no room for the copies: training waits, and one line says so with both numbers."""
    with open("meminfo", "w") as file:
        file.write("MemTotal:       1000 kB\nMemAvailable:     64 kB\n")
    for size in (1, 2):
        done = run_ranks(size, command(f"tight_{size}", "--async-save"), f"tight_{size}_log",
                         {"FAIL_MEMORY": os.path.abspath("meminfo")}, f"tight_{size}")
        told = re.findall(r"^async-save: a copy of what \S+ saves takes ([\d.]+) MB, and it has 0.0655 MB of memory left: "
                          r"training waits for each save$", done.stdout, re.M)
        check(done.returncode == 0 and len(told) == 1 and float(told[0]) > 0.1, f"{size} ranks: {told} {done.stderr[-300:]}")
        waits = all(save["stall_seconds"] >= save["write_seconds"] for save in saves_of(f"tight_{size}"))
        check(waits and not differing(f"tight_{size}", f"waited_{size}", [2, 4, 6]), "    the same bits, and it has waited")


def test_an_older_step():
    """--ckpt-step takes it of the run in --load, and leaves that as it is; the same command then continues its own."""
    other = command("from_2", "--load", "waited_1", "--ckpt-step", "2")
    done = moetron([*other, "--train-iters", "4", "--lr-decay-iters", str(STEPS), "--accept-changes"])
    check(done.returncode == 0 and first_step(done.stdout) == 2, f"step 2 is continued: {done.stderr[-300:]}")
    done = moetron([*other, "--lr-decay-iters", str(STEPS)])
    check(done.returncode == 0 and first_step(done.stdout) == 4 and not differing("from_2", "waited_1", [4, 6]),
          f"    to the same bits: {done.stderr[-300:]}")
    check(steps_in("waited_1") == [2, 4, 6], "    and the other run is as it was")
    texts = [moetron(["generate", "--tokenizer", "bytes", "--prompt", "a", "--max-new-tokens", "4", "--load", *load]).stdout
             for load in (["waited_1", "--ckpt-step", "2"], ["waited_1/step_0000002"], ["waited_1"])]
    check(texts[0] == texts[1] != "", "    generate takes it, too")
    done = moetron(command("waited_1", "--ckpt-step", "2"))
    check(done.returncode == 2 and "ckpt-step (2) is not what the run would continue" in done.stderr,
          f"where --save holds newer ones it is refused: {done.stderr[-200:]}")
    done = moetron(command("none", "--load", "waited_1", "--ckpt-step", "3"))
    check(done.returncode == 3 and "holds no step 3; it holds 6, 4, 2" in done.stderr, f"    or missing: {done.stderr[-200:]}")


def test_failed_write():
    """One call of a save in mid-run fails, on a rank that is not the first, too."""
    for size, rank, number in ((1, None, 15), (2, 0, 15), (2, 1, 2)):
        folder = f"failed_{size}_{rank}"
        faults = {"FAIL_CALL": "fsync", "FAIL_NUMBER": number, "FAIL_ERRNO": errno.EDQUOT,
                  **({"FAIL_RANK": rank} if size > 1 else {})}
        done = run_ranks(size, command(folder, "--async-save"), f"{folder}_log", faults, folder)
        failed = [save["step"] for save in saves_of(folder) if "failure" in save]
        check(done.returncode == 0 and len(failed) == 1 and failed[0] < STEPS
              and saved_steps(done.stdout) == [step for step in (2, 4, 6) if step not in failed],
              f"{size} ranks, fsync {number} of rank {rank} fails: {failed} not saved; {done.codes} {done.stderr[-300:]}")
        told = [line for line in done.stderr.splitlines() if "was not saved" in line]
        check(len(told) == 1 and "Disk quota exceeded" in told[0] and "1 of save-failures 3" in told[0],
              f"    one line: {told}")
        check(not differing(folder, f"waited_{size}", [6]), "    the next one is good")
        check(not any(name.endswith(".tmp") for name in os.listdir(folder)), "    nothing is left of the failed one")


def test_failures_in_a_row():
    for how in ([], ["--async-save"]):
        for size in (1, 2):
            folder = f"row_{size}_{len(how)}"
            done = run_ranks(size, command(folder, "--save-failures", "2", *how), f"{folder}_log",
                             {"FAIL_CALL": "create", "FAIL_NUMBER": 4, "FAIL_TIMES": ALWAYS,
                              "FAIL_ERRNO": errno.ENOSPC}, folder)
            check(set(done.codes.values()) == {2} and done.stderr.count("was not saved") == 2
                  and "save-failures (2)" in done.stderr and "No space left" in done.stderr
                  and [record["step"] for record in records(folder)][-1] <= STEPS,
                  f"{size} ranks {how}: the second failure in a row ends the run: {done.codes} {done.stderr[-300:]}")
    folder = "last"
    done = moetron(command(folder, "--async-save", "--save-interval", "100"),
                   {"FAIL_CALL": "fsync", "FAIL_NUMBER": 1, "FAIL_TIMES": ALWAYS, "FAIL_ERRNO": errno.EROFS}, folder)
    check(done.returncode == 2 and "Read-only file system" in done.stderr, f"the last must succeed: {done.stderr}")
    check([record["step"] for record in records(folder)] == list(range(1, STEPS + 1)), "    all steps are recorded")


def test_slow_disk():
    """A save that is due while one is being written waits for it; so does the end of the run."""
    for size in (1, 2):
        folder = f"slow_{size}"
        done = run_ranks(size, command(folder, "--async-save", "--save-interval", "1"), f"{folder}_log",
                         {"FAIL_SLOW": 30}, folder)
        waited = done.stdout.count("to be written")
        check(done.returncode == 0 and saved_steps(done.stdout) == [1, 2, 3, 4, 5, 6] and waited >= 3,
              f"{size} ranks: waited {waited} times: {done.stderr[-300:]}")
        check(not differing(folder, f"waited_{size}", [2, 4, 6]), "    the same bits")


def test_stop():
    folder = "stopped"
    process = subprocess.Popen([MOETRON, *command(folder, "--async-save", "--train-iters", "100000")],
                               env={**ENVIRONMENT, **preload({"FAIL_SLOW": 100}, folder)}, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    wait_for_step(folder, 3, process)
    process.send_signal(signal.SIGTERM)
    text, errors = process.communicate(timeout=HANG)
    last = records(folder)[-1]["step"]
    check(process.returncode == 75 and saved_steps(text)[-1] == last and 2 in saved_steps(text),
          f"stopped after step {last}: {process.returncode} {text[-300:]} {errors[-300:]}")


def test_killed_peer():
    """A rank dies while both write; the other ends soon, whatever its writer waits for."""
    folder = "peer"
    slow = {rank: preload({"FAIL_SLOW": 1000}, folder) for rank in range(2)}
    with Ranks(command(folder, "--async-save", "--comm-timeout", str(HANG)), "peer_log", variables=slow, size=2) as ranks:
        wait_for_step(folder, 3, ranks.processes[0])
        ranks.processes[1].kill()
        begin = time.monotonic()
        codes = ranks.codes(120, but=1)
        check(codes == {0: 1}, f"rank 0 ends with 1 after {time.monotonic() - begin:.1f} s: {codes}")
        check(ranks.errors().count("the run failed") == 1, f"    and tells once: {ranks.errors()[-1000:]}")
    done = run_ranks(2, command(folder), "peer_again_log")
    check(done.returncode == 0 and not differing(folder, "waited_2", [6]), f"    the same command continues: {done.codes}")


def test_kept():
    for more in ([], ["--async-save"]):
        folder = f"kept_{len(more)}"
        shutil.copytree("waited_1", folder)
        os.truncate(f"{folder}/step_0000004/model.safetensors", 100)
        shutil.copytree("waited_1/step_0000006", f"{folder}/.step_0000006.17.tmp")
        done = moetron(command(folder, "--train-iters", "14", "--keep-last", "2", "--keep-every", "6", *more))
        check(done.returncode == 0 and steps_in(folder) == [6, 12, 14], f"kept {more}: {steps_in(folder)}")
        check(os.listdir(f"{folder}/damaged_1") == ["step_0000004"] and "damaged" in done.stderr,
              "    the damaged one was moved aside")
        check(not any(name.endswith(".tmp") for name in os.listdir(folder)), "    nothing hidden is left")
        check("fit into the" in done.stdout and "the newest 2 stay, and every one of a multiple of 6" in done.stdout,
              f"    the start says what is kept: {[l for l in done.stdout.splitlines() if l.startswith('saves')]}")
        done = moetron(command(folder, "--train-iters", "14"))
        check(first_step(done.stdout) == 14, "    and the run is continued")


if __name__ == "__main__":
    run_tests(make_data, test_bits, test_dualpipev_goes_on_anywhere, test_states_on_the_host, test_too_little_memory,
              test_an_older_step, test_failed_write, test_failures_in_a_row, test_slow_disk, test_stop, test_killed_peer, test_kept)
