#!/usr/bin/env python3
"""Nobody loses a checkpoint. Runs of a small model whose save folder is on a disk that fails: at calls drawn with a
seed, after which the run must go on from a step that it had reported saved, with the bits of an undisturbed run, or say
exit code 2 or 3; and the ways to lose a run that people have found.

    save_faults_test.py MOETRON FAIL_CALLS_LIBRARY [--thorough [TRIALS]] [--seed SEED]
"""
import errno
import hashlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys

from process_support import (ENVIRONMENT, HANG, MOETRON, check, first_step, make_data, run_tests, saved_steps,
                             wait_for_step)
from save_support import SHORT, STEPS, command, differing, moetron, run_ranks

THOROUGH = "--thorough" in sys.argv
numbers = [int(word) for word in sys.argv[3:] if word.isdigit()]
SEED = int(sys.argv[sys.argv.index("--seed") + 1]) if "--seed" in sys.argv else 1
TRIALS = (numbers[0] if numbers and sys.argv[sys.argv.index("--thorough") + 1].isdigit() else 300) if THOROUGH else 16
CALLS = ["open", "create", "read", "write", "fsync", "rename", "mkdir", "unlink", "opendir"]


def tree(folder):
    """Name and hash of every file, but for the lock's text."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if name != ".lock" and not os.path.islink(path):
                with open(path, "rb") as file:
                    found[path] = hashlib.sha256(file.read()).hexdigest()
    return found


def test_setup():
    make_data()
    for size in (1, 2):
        done = run_ranks(size, command(f"whole_{size}"), f"whole_{size}_log")
        check(done.returncode == 0 and saved_steps(done.stdout) == [2, 4, 6],
              f"an undisturbed run on {size} ranks: {done.stderr[-300:]}")
        shutil.copytree(f"whole_{size}", f"begun_{size}")
        shutil.rmtree(f"begun_{size}/step_0000006")


def test_random_faults():
    """Each trial: a fresh run or one that continues, a fault, and the same command again on a sound disk."""
    rng = random.Random(SEED)
    counts = {}
    for start in ("fresh", "begun"):
        shutil.rmtree("counted", ignore_errors=True)
        if start == "begun":
            shutil.copytree("begun_1", "counted")
        moetron(command("counted"), {"FAIL_COUNTS": "counts"}, "counted")
        with open("counts") as lines:
            counts[start] = {name: int(number) for name, number in map(str.split, lines)}
    print(f"calls: {counts}")
    table = {}
    for trial in range(TRIALS):
        start = rng.choice(["fresh", "begun"])
        call = CALLS[trial % len(CALLS)]
        number = rng.randint(1, max(1, counts[start][call]))
        code = rng.choice([errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS])
        times = rng.choice([1, 1000000])
        size, how = rng.choice([1, 1, 2]), rng.choice([[], ["--async-save"]])
        fault = {"FAIL_CALL": call, "FAIL_NUMBER": number, "FAIL_TIMES": times, "FAIL_ERRNO": code,
                 **({"FAIL_RANK": rng.randrange(size)} if size > 1 else {})}
        one_trial(trial, start, size, how, fault, table)
    print("call       runs   went on   refused, 2   refused, 3")
    for call, (went_on, config, data) in table.items():
        print(f"{call:<8} {went_on + config + data:6} {went_on:9} {config:12} {data:12}")


def one_trial(trial, start, size, how, fault, table):
    folder = "faulty"
    shutil.rmtree(folder, ignore_errors=True)
    if start == "begun":
        shutil.copytree(f"begun_{size}", folder)
    what = f"trial {trial}, {start}, {size} ranks {how}: {fault['FAIL_CALL']} {fault['FAIL_NUMBER']}, " \
           f"{fault['FAIL_TIMES']} times, {errno.errorcode[fault['FAIL_ERRNO']]}"
    done = run_ranks(size, command(folder, *how), f"{folder}_{trial}_log", fault, folder)
    row = table.setdefault(fault["FAIL_CALL"], [0, 0, 0])
    problems = []
    if done.returncode not in (0, 2, 3):
        problems.append(f"exit {done.returncode}: {done.stderr[-500:]}")
    else:
        row[{0: 0, 2: 1, 3: 2}[done.returncode]] += 1
    if done.returncode != 0 and "moetron: " not in done.stderr:
        problems.append(f"no sentence: {done.stderr[-300:]}")
    reported = saved_steps(done.stdout)
    if start == "begun":
        reported += [2, 4]
        if first_step(done.stdout) == 0:
            problems.append("it began anew")
    again = run_ranks(size, command(folder), f"{folder}_{trial}_again_log")
    if again.returncode != 0:
        problems.append(f"the same command ends with {again.returncode}: {again.stderr[-300:]}")
    elif reported and (first_step(again.stdout) or 0) < max(reported):
        problems.append(f"it lost step {max(reported)}: {again.stdout[-300:]}")
    else:
        problems += [f"{name} is not an undisturbed run's" for name in differing(folder, f"whole_{size}", [STEPS])]
        left = [name for name in os.listdir(folder) if name.endswith(".tmp")]
        if left and first_step(again.stdout) != STEPS:
            problems.append(f"left behind: {left}")
    if problems or not THOROUGH:
        check(not problems, what + (": " + "; ".join(problems) if problems else f" ({done.returncode})"))


def test_nothing_is_begun_anew():
    """Damage of all checkpoints, and a folder that cannot be listed: exit code 3, and nothing is touched."""
    shutil.copytree("begun_1", "damaged")
    for step in (2, 4):
        with open(f"damaged/step_000000{step}/model.safetensors", "r+b") as file:
            file.seek(3000)
            file.write(b"\xff\xfe")
    before = tree("damaged")
    done = moetron(command("damaged"))
    check(done.returncode == 3 and all(f"step_000000{step}/model.safetensors is damaged" in done.stderr
                                       for step in (2, 4)), f"both damaged: {done.stderr.strip()[-300:]}")
    check(tree("damaged") == before, "    nothing was touched")
    for call in ("opendir", "open", "read"):
        done = moetron(command("begun_1"), {"FAIL_CALL": call, "FAIL_NUMBER": 1, "FAIL_TIMES": 1000000}, "begun_1")
        check(done.returncode in (2, 3), f"{call} fails: {done.stderr.strip()[-200:]}")
    done = moetron(command("damaged", "--restart"))
    check(done.returncode == 0 and first_step(done.stdout) == 0, f"--restart begins anew: {done.stderr.strip()[-300:]}")
    moved = {name.replace("damaged/", "damaged/before_restart_1/"): text for name, text in before.items()}
    check({name: text for name, text in tree("damaged/before_restart_1").items()} == moved,
          "    what was there was moved as it is")
    done = moetron(command("damaged", "--restart"))
    check("nothing is left to do" in done.stdout, "    but a sound checkpoint is continued")


def test_renamed():
    shutil.copytree("begun_1", "renamed")
    os.rename("renamed/step_0000004", "renamed/step_0000008")
    done = moetron(command("renamed"))
    check(done.returncode == 0 and first_step(done.stdout) == 2 and "step_0000008 holds step 4" in done.stderr,
          "a renamed step is left out")
    shutil.rmtree("renamed/step_0000002")
    for step in (4, 6):
        shutil.rmtree(f"renamed/step_000000{step}")
    done = moetron(command("renamed"))
    check(done.returncode == 3 and "holds step 4 by its state/trainer.json, not step 8" in done.stderr,
          f"    and alone it is refused: {done.stderr.strip()[-200:]}")


def test_trainer_keys():
    done = moetron(command("other_weights", "--load", "begun_1/step_0000002"))
    check(done.returncode == 0, "--load of a step folder takes its weights")
    shutil.copytree("begun_1/step_0000002", "tampered")
    with open("tampered/model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    for words in (command("other", "--load", "tampered"),
                  ["generate", "--load", "tampered", "--tokenizer", "bytes", "--prompt", "x"]):
        done = moetron(words)
        check(done.returncode == 3 and "tampered/model.safetensors is damaged in block 0" in done.stderr,
              f"{words[0]} checks the manifest of what it loads: {done.stderr.strip()[-200:]}")


def test_second_run():
    arguments = ["pretrain", *SHORT, "--train-iters", "100000", "--save", "locked"]
    with subprocess.Popen([MOETRON, *arguments], env=ENVIRONMENT, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as first:
        wait_for_step("locked", 2, first)
        done = moetron(arguments)
        check(done.returncode == 2 and f"process {first.pid} on " in done.stderr and "locked" in done.stderr,
              f"a second run is refused: {done.stderr.strip()[-200:]}")
        check(first.poll() is None, "    and the first goes on")
        first.kill()
    done = moetron([*arguments[:-4], "--train-iters", "2", "--save", "locked"])
    check(done.returncode == 0, f"a killed run holds no lock: {done.stderr.strip()[-200:]}")


def test_places():
    """What cannot be written is refused before the first step."""
    done = moetron(command("small"), {"FAIL_SPACE": 100000}, "small")
    check(done.returncode == 2 and "the checkpoint needs" in done.stderr and saved_steps(done.stdout) == []
          and not os.path.exists("small/metrics.jsonl"), f"too little space: {done.stderr.strip()[-200:]}")
    os.makedirs("read_only")
    done = moetron(command("read_only"), {"FAIL_CALL": "mkdir", "FAIL_NUMBER": 1, "FAIL_TIMES": 1000000,
                                          "FAIL_ERRNO": errno.EROFS}, "read_only")
    check(done.returncode == 2 and "read_only" in done.stderr and "Read-only" in done.stderr
          and not os.path.exists("read_only/metrics.jsonl"), f"a read-only folder: {done.stderr.strip()[-200:]}")
    limit = 50000
    done = moetron(command("limited"), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    check(done.returncode == 2 and "File too large" in done.stderr, f"a limit on files: {done.stderr.strip()[-200:]}")


def test_logs_cost_no_step():
    """Logs and pictures that cannot be written are warnings."""
    metrics = os.path.abspath("logs/own/metrics.jsonl")
    os.makedirs("logs/own")
    done = moetron(command("logged", "--metrics", metrics),
                   {"FAIL_CALL": "write", "FAIL_NUMBER": 3, "FAIL_TIMES": 2, "FAIL_ERRNO": errno.ENOSPC}, metrics)
    with open(metrics) as lines:
        steps = [int(re.match(r'{"step":(\d+)', line)[1]) for line in lines]
    check(done.returncode == 0 and "No space left" in done.stderr and steps == list(range(1, STEPS + 1)),
          f"a metrics file that fails for two steps: {steps}")
    os.makedirs("bin")
    with open("bin/gnuplot", "w") as file:
        file.write("#!/bin/sh\nexit 1\n")
    os.chmod("bin/gnuplot", 0o755)
    for variable, value in (("TMPDIR", "/nowhere/at/all"), ("PATH", os.path.abspath("bin"))):
        shutil.rmtree("pictures", ignore_errors=True)
        done = subprocess.run([MOETRON, *command("pictures")], capture_output=True, text=True,
                              env={**ENVIRONMENT, variable: value}, timeout=HANG)
        check(done.returncode == 0 and saved_steps(done.stdout) == [2, 4, 6] and "warning" in done.stderr,
              f"a picture that cannot be drawn: {done.stderr.strip()[-200:]}")
    with open("notes.txt", "w") as file:
        file.write("mine\n")
    done = moetron(command("notes", "--metrics", "notes.txt"))
    check(done.returncode == 3 and "notes.txt" in done.stderr and open("notes.txt").read() == "mine\n",
          f"--metrics of another file is refused: {done.stderr.strip()[-200:]}")
    reader, writer = os.pipe()
    process = subprocess.Popen([MOETRON, *command("unread")], env=ENVIRONMENT, stdout=writer,
                               stderr=subprocess.DEVNULL)
    os.close(writer)
    os.close(reader)
    check(process.wait(HANG) == 0 and os.path.exists("unread/step_0000006"), "a run whose lines nobody reads goes on")


def test_shrunk_data():
    for ending in ("bin", "idx"):
        shutil.copy(f"data/pages_text_document.{ending}", f"data/shrinks.{ending}")
    process = subprocess.Popen([MOETRON, "pretrain", *SHORT, "--data-path", "data/shrinks", "--train-iters", "100000",
                                "--save", "shrunk"], env=ENVIRONMENT, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    wait_for_step("shrunk", 2, process)
    os.truncate("data/shrinks.bin", os.path.getsize("data/shrinks.bin") - 2)  # within its last page
    _, errors = process.communicate(timeout=HANG)
    check(process.returncode == 3 and "shrinks.bin was cut short while it was read" in errors,
          f"a .bin that shrinks: {process.returncode}, {errors.strip()[-200:]}")


def test_ranks():
    """What fails on rank 0 ends all ranks, with one message."""
    done = run_ranks(2, command("begun_1"), "ranks_log",
                     {"FAIL_CALL": "opendir", "FAIL_NUMBER": 1, "FAIL_TIMES": 1000000}, "begun_1")
    check(set(done.codes.values()) == {3} and done.stderr.count("cannot list") == 1,
          f"two ranks: {done.codes}, {done.stderr.strip()[-300:]}")


if __name__ == "__main__":
    run_tests(test_setup, test_random_faults, test_nothing_is_begun_anew, test_renamed, test_trainer_keys,
              test_second_run, test_places, test_logs_cost_no_step, test_shrunk_data, test_ranks)
