#!/usr/bin/env python3
"""Kills and stops ranks of a running training, at moments drawn with a seed: the others end soon, one of them says
what failed, and where; under torchrun --max-restarts the run continues from its checkpoint and ends with the bits of
an undisturbed run.

    faults_test.py MOETRON
"""
import filecmp
import os
import random
import re
import signal
import subprocess
import time

from process_support import (ENVIRONMENT, HANG, MODEL, MOETRON, RUN, TORCHRUN, Ranks, check, children_of, code_within,
                             failure_blocks, make_data, records, run, run_tests, wait_for_step)

TIMEOUT = 15  # seconds, of --comm-timeout: longer than any wait of a healthy run, on a slow machine, too
MARGIN = 120  # seconds: the search for silent ranks, the last words, and a slow machine
NEVER = "600"  # a --comm-timeout that nobody waits for: who is gone is noticed at once
LAYOUT = """--tensor-model-parallel-size 2 --expert-model-parallel-size 2 --moe-token-dispatcher-type alltoall
  --use-distributed-optimizer --overlap-grad-reduce --overlap-param-gather""".split()
ENDLESS = [*MODEL, *RUN, *LAYOUT, "--train-iters", "100000", "--eval-iters", "0"]
COLLECTIVE = (r"(all_reduce|all_gather|reduce_scatter|all_to_all_v|broadcast|send|recv|barrier)"
              r" in group \".+?\" failed: ")
rng = random.Random(20)


def wait_for_moment(folder, process, step=5):
    """In mid-training, somewhere within a few steps."""
    wait_for_step(folder, step, process)
    time.sleep(rng.uniform(0, 0.4))


def check_message(text, victims, what):
    """One block, which names phase, collective and one of `victims`."""
    blocks = failure_blocks(text)
    check(len(blocks) == 1, f"{what}: one block is printed" + ("" if len(blocks) == 1 else f": {text[-3000:]}"))
    cause = blocks[0].get("cause", "") if blocks else ""
    phase = blocks[0].get("phase", "") if blocks else ""
    check(re.match(r"step \d+", phase), f"    the phase: {phase}")
    check(re.search(COLLECTIVE, cause) and any(f"rank {victim}" in cause.split(" failed: ")[-1] for victim in victims),
          f"    the collective and the rank: {cause}")
    check(not any(trace in text for trace in ("frame #", "terminate called", "Aborted")), "    no stack trace of ours")


def test_killed_under_torchrun():
    """torchrun itself ends with 1; its other ranks have gone with it."""
    for number, victim in enumerate((3, 0)):
        folder = f"killed_{number}"
        command = [*TORCHRUN, MOETRON, "pretrain", *ENDLESS, "--save", folder, "--comm-timeout", NEVER]
        with open(f"{folder}.err", "w") as errors:
            launcher = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=errors)
        wait_for_moment(folder, launcher)
        ranks = children_of(launcher.pid)
        check(sorted(ranks) == [0, 1, 2, 3], f"four ranks run: {ranks}")
        os.kill(ranks[victim], signal.SIGKILL)
        code = code_within(launcher, MARGIN)
        check(code == 1, f"rank {victim} killed: torchrun ends with 1 ({code})")
        check(not any(os.path.exists(f"/proc/{pid}") for pid in ranks.values()), "    no rank is left behind")
        check_message(open(f"{folder}.err").read(), [victim], f"rank {victim} killed under torchrun")


def test_killed():
    """Without a launcher nobody but the ranks themselves notices."""
    for number, victim in enumerate((0, 2, rng.randrange(1, 4))):
        folder = f"alone_{number}"
        with Ranks(["pretrain", *ENDLESS, "--save", folder, "--comm-timeout", NEVER], f"{folder}_log") as ranks:
            wait_for_moment(folder, ranks.processes[0])
            ranks.processes[victim].kill()
            begin = time.monotonic()
            codes = ranks.codes(MARGIN, but=victim)
            check(all(code == 1 for code in codes.values()),
                  f"rank {victim} killed: the others end with 1 after {time.monotonic() - begin:.1f} s: {codes}")
            check_message(ranks.errors(), [victim], f"rank {victim} killed")


def test_stopped():
    """A rank that hangs: the others wait for the time-out, no longer. Rank 0 serves the store; when it is stopped,
    no rank can ask the others, and each names whom it waited for."""
    for victim in (2, 0):
        folder = f"stopped_{victim}"
        with Ranks(["pretrain", *ENDLESS, "--save", folder, "--comm-timeout", str(TIMEOUT)], f"{folder}_log") as ranks:
            wait_for_moment(folder, ranks.processes[0])
            ranks.processes[victim].send_signal(signal.SIGSTOP)
            begin = time.monotonic()
            codes = ranks.codes(TIMEOUT + MARGIN, but=victim)
            seconds = time.monotonic() - begin
            check(all(code == 1 for code in codes.values()),
                  f"rank {victim} stopped: the others end with 1 after {seconds:.1f} s: {codes}")
            check(seconds > TIMEOUT / 2, "    not before the time-out")
            check_message(ranks.errors(), [victim], f"rank {victim} stopped")


def test_restarted():
    """Two faults, at two moments; torchrun starts all ranks again each time."""
    command = ["pretrain", *MODEL, *RUN, *LAYOUT, "--train-iters", "40", "--save-interval", "5"]
    run([*command, "--save", "whole"], launcher=TORCHRUN)
    launcher = [*TORCHRUN, "--max-restarts", "2", MOETRON, *command, "--save", "restarted"]
    with open("restarted.out", "w") as out:
        process = subprocess.Popen(launcher, env=ENVIRONMENT, stdout=out, stderr=subprocess.STDOUT)
    for victim, step in ((1, 11), (0, 27)):
        wait_for_moment("restarted", process, step)
        ranks = children_of(process.pid)
        check(victim in ranks, f"rank {victim} still runs and is killed")
        if victim in ranks:
            os.kill(ranks[victim], signal.SIGKILL)
    code = code_within(process, HANG)
    text = open("restarted.out").read()
    check(code == 0, f"torchrun --max-restarts ends with 0 ({code})" + ("" if code == 0 else text[-3000:]))
    starts = re.findall(r"continues at step (\d+)", text)
    check(len(starts) == 2 and 10 <= int(starts[0]) < int(starts[1]), f"continued twice, at steps {starts}")
    found, expected = records("restarted"), records("whole")
    check([r["step"] for r in found] == list(range(1, 41)), "metrics.jsonl has every step once")
    for field in ("loss", "grad_norm"):
        check([r[field] for r in found] == [r[field] for r in expected], f"{field} bit-equal to the undisturbed run's")
    for file in ("model.safetensors", "state/optimizer.safetensors"):
        check(filecmp.cmp(f"restarted/step_0000040/{file}", f"whole/step_0000040/{file}", shallow=False),
              f"{file} of the last step has the same bytes")


if __name__ == "__main__":
    run_tests(make_data, test_killed_under_torchrun, test_killed, test_stopped, test_restarted)
