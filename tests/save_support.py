"""What the tests of saves share: a run of six steps that saves every other one, on a disk that the preloaded library
of fail_calls.cpp makes fail. The first argument of such a test is the program, the second the library."""
import filecmp
import os
import subprocess
import sys
import time

from process_support import ENVIRONMENT, HANG, MODEL, MOETRON, RUN, Ranks

LIBRARY = os.path.abspath(sys.argv[2])
SHORT = [*MODEL, *RUN, "--eval-iters", "0", "--split", "1,0,0", "--global-batch-size", "4", "--log-interval", "1",
         "--num-layers", "1", "--num-threads", "1", "--lr-warmup-iters", "1"]
STEPS = 6
TENSORS = ["model.safetensors", "state/optimizer.safetensors"]


def command(folder, *more):
    return ["pretrain", *SHORT, "--train-iters", str(STEPS), "--save-interval", "2", "--save", os.path.abspath(folder),
            *more]


def preload(faults, below):
    """Environment variables of a process in which calls fail."""
    return {"LD_PRELOAD": LIBRARY, "FAIL_BELOW": os.path.abspath(below),
            **{name: str(value) for name, value in faults.items()}}


def moetron(arguments, faults=None, below=None, **kwargs):
    """A run with the library preloaded, if `faults` says what to do."""
    environment = {**ENVIRONMENT, **(preload(faults, below) if faults is not None else {})}
    return subprocess.run([MOETRON, *arguments], capture_output=True, text=True, env=environment, timeout=HANG,
                          **kwargs)


class Done:
    """How several ranks ended, as subprocess.run() tells of one: the code of the first that failed, all texts."""

    def __init__(self, codes, stdout, stderr):
        self.codes = codes
        self.returncode = next((code for code in codes.values() if code != 0), 0)
        self.stdout = stdout
        self.stderr = stderr


def wait_until_stopped(process):
    """Returns when the process is stopped, has ended, or after HANG seconds."""
    deadline = time.monotonic() + HANG
    while process.poll() is None and time.monotonic() < deadline:
        with open(f"/proc/{process.pid}/stat") as file:
            if file.read().rsplit(")", 1)[1].split()[0] == "T":
                return
        time.sleep(0.02)


def run_ranks(size, arguments, log, faults=None, below=None, stopped=None):
    """The run on `size` ranks. Of one that stops itself, `stopped`, the code is None."""
    if size == 1 and stopped is None:
        done = moetron(arguments, faults, below)
        return Done({0: done.returncode}, done.stdout, done.stderr)
    variables = {rank: preload(faults, below) for rank in range(size)} if faults is not None else None
    with Ranks(arguments, log, size=size, variables=variables) as ranks:
        if stopped is not None:
            wait_until_stopped(ranks.processes[stopped])
        codes = ranks.codes(HANG, but=stopped)
        if stopped is not None:
            codes[stopped] = ranks.processes[stopped].poll()
        with open(f"{log}/0.out") as out:
            return Done(codes, out.read(), ranks.errors())


def differing(folder, other, steps):
    """The files of these steps whose tensors differ."""
    names = [f"step_{step:07}/{file}" for step in steps for file in TENSORS]
    return [name for name in names if not filecmp.cmp(f"{folder}/{name}", f"{other}/{name}", shallow=False)]
