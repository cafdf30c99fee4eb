#!/usr/bin/env python3
"""A run is killed or stopped in front of any of its calls that write, sync, rename, remove or make something in its save
folder, or the power goes behind any: the other ranks end soon, and the same command continues from a whole checkpoint,
to the bits of an undisturbed run.

    save_kills_test.py MOETRON FAIL_CALLS_LIBRARY [--seed SEED] [--ranks N] [--way WAY] [--stride K]

Draws some of the calls. With MOETRON_SAVE_KILLS=all every call is tried, on 1, 2 and 4 ranks, which takes hours; with a
number, so many trials of each kind. --ranks, --way: these alone. --stride: of all calls every K-th.
"""
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

from power_cut import Disk, read_log
from process_support import HANG, Ranks, check, first_step, make_data, run_tests, saved_steps
from save_support import STEPS, command, differing, preload, run_ranks


def number_behind(option, otherwise):
    return int(sys.argv[sys.argv.index(option) + 1]) if option in sys.argv else otherwise


SEED = number_behind("--seed", 1)
STRIDE = number_behind("--stride", 1)
HOW_MANY = os.environ.get("MOETRON_SAVE_KILLS", "")
IS_LONG = HOW_MANY != ""
SIZES = (1, 2, 4) if IS_LONG else (1, 2)
if "--ranks" in sys.argv:
    SIZES = (number_behind("--ranks", 1),)
CALLS = ["create", "write", "fsync", "rename", "mkdir", "unlink"]
TIMEOUT = 5 if IS_LONG else 3  # seconds, of --comm-timeout: how long the others wait for a stopped rank
MARGIN = 120  # seconds: the search for silent ranks, the last words, and a slow machine
KEEP = ["--keep-last", "2"]
WAYS = {"waited": KEEP, "beside": [*KEEP, "--async-save"]}
if "--way" in sys.argv:
    WAYS = {way: more for way, more in WAYS.items() if way == sys.argv[sys.argv.index("--way") + 1]}
rng = random.Random(SEED)
counts = {}  # (way, ranks) -> list of (call, number, rank)


def test_setup():
    """Undisturbed runs, and what calls each way of saving makes."""
    for size in SIZES:
        done = run_ranks(size, command(f"whole_{size}", *KEEP), f"whole_{size}_log")
        check(done.returncode == 0, f"an undisturbed run on {size} ranks: {done.stderr[-300:]}")
        for way, more in WAYS.items():
            counts[way, size] = []
            for rank in range(size):
                shutil.rmtree("counted", ignore_errors=True)
                run_ranks(size, command("counted", *more), f"counted_{way}_{size}_{rank}_log",
                          {"FAIL_COUNTS": os.path.abspath("counts"), "FAIL_RANK": rank} if size > 1
                          else {"FAIL_COUNTS": os.path.abspath("counts")}, "counted")
                with open("counts") as lines:
                    for call, number in map(str.split, lines):
                        if call in CALLS:
                            counts[way, size] += [(call, n + 1, rank) for n in range(int(number))]
            print(f"{way}, {size} ranks: {len(counts[way, size])} calls")


def problems_of(folder, size, reported, trial):
    """What is wrong when the same command goes on with the folder."""
    again = run_ranks(size, command(folder, *KEEP), f"again_{trial}_log")
    if again.returncode != 0:
        return [f"the same command ends with {again.codes}: {again.stderr[-300:]}"]
    problems = []
    if reported and (first_step(again.stdout) or 0) < max(reported):
        problems.append(f"it lost step {max(reported)}")
    problems += [f"{name} differs" for name in differing(folder, f"whole_{size}", [STEPS])]
    if [name for name in os.listdir(folder) if name.endswith(".tmp")] and first_step(again.stdout) != STEPS:
        problems.append("something temporary is left")
    return problems


def interrupted_run(trial, way, size, which, number):
    """A process gets the signal in front of the call."""
    call, place, rank = which
    folder = f"trial_{trial}"
    faults = {"FAIL_CALL": call, "FAIL_NUMBER": place, "FAIL_SIGNAL": number,
              **({"FAIL_RANK": rank} if size > 1 else {})}
    for _ in range(5):
        begin = time.monotonic()
        done = run_ranks(size, command(folder, *WAYS[way], "--comm-timeout", str(TIMEOUT)), f"{folder}_log", faults,
                         folder, stopped=rank if number == signal.SIGSTOP else None)
        if "ranks to join" not in done.stderr and "cannot reach the store" not in done.stderr:
            break  # on a busy machine a rank may come too late: nothing was tried then
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(f"{folder}_log")
    seconds = time.monotonic() - begin
    others = {code for other, code in done.codes.items() if other != rank}
    problems = []
    if seconds > MARGIN:
        problems.append(f"it took {seconds:.0f} s")
    if number == signal.SIGKILL and done.codes[rank] != -signal.SIGKILL:
        problems.append(f"the call was not made: {done.codes}")
    # The others may have done all that they had to do.
    if not others <= {0, 1}:
        problems.append(f"the others end with {done.codes}")
    if 1 in others and "moetron: " not in done.stderr:
        problems.append(f"nobody says why: {done.stderr[-600:]}")
    problems += problems_of(folder, size, saved_steps(done.stdout), f"{trial}")
    name = signal.Signals(number).name
    if problems or not IS_LONG:
        check(not problems, f"{name} at {call} {place} of rank {rank} of {size}, {way}" + "".join(f"; {p}" for p in problems))
    if os.path.isdir(folder):
        shutil.rmtree(folder)
    return not problems


def draw(points, count):
    return points[::STRIDE] if HOW_MANY == "all" else rng.sample(points, min(count, len(points)))


def test_killed_and_stopped():
    trial = 0
    wanted = int(HOW_MANY) if HOW_MANY.isdigit() else 3
    print("ranks  way      signal   trials  lost nothing")
    for (way, size), points in counts.items():
        for number in (signal.SIGKILL, signal.SIGSTOP):
            drawn = draw(points, wanted if number == signal.SIGKILL else (wanted + 1) // 2 if HOW_MANY else 1)
            good = 0
            for which in drawn:
                trial += 1
                good += interrupted_run(trial, way, size, which, number)
            print(f"{size:5}  {way:<7}  {number.name:<7} {len(drawn):7} {good:8}", flush=True)


def test_power_cut():
    wanted = int(HOW_MANY) if HOW_MANY.isdigit() else 300 // STRIDE if HOW_MANY == "all" else 3
    print("ranks  way      power cuts  lost nothing")
    for way, size in counts:
        root = os.path.abspath(f"cut_{way}_{size}")
        log = os.path.abspath(f"cut_{way}_{size}.calls")
        run_ranks(size, command(root, *WAYS[way]), f"cut_{way}_{size}_log", {"FAIL_LOG": log}, root)
        calls = read_log(log)
        first = next(n for n, call in enumerate(calls) if call[0] == "mkdir" and ".step_" in call[1])
        good = 0
        for trial in range(wanted):
            cut = rng.randint(first, len(calls))
            disk = Disk(root)
            safe = []
            for call in calls[:cut]:
                disk.do(call)
                if call[0] == "fsync" and call[1] == root:
                    safe = [int(name[5:]) for name in disk.top.names if re.fullmatch(r"step_\d+", name)]
            folder = f"power_{way}_{size}_{trial}"
            disk.cut(folder, rng)
            problems = problems_of(folder, size, safe, folder)
            good += not problems
            if problems or not IS_LONG:
                check(not problems, f"power cut behind call {cut} of {len(calls)}, {size} ranks, {way}, steps {safe} safe"
                      + "".join(f"; {p}" for p in problems))
            shutil.rmtree(folder)
        print(f"{size:5}  {way:<7}  {wanted:9} {good:12}", flush=True)


@contextlib.contextmanager
def mounted(image):
    place = f"{image}_mounted"
    os.makedirs(place)
    subprocess.run(["mount", "-o", "loop,commit=1", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def has_loop_devices():
    with open("probe", "wb") as file:
        file.truncate(8 << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", "probe"], check=True)
        with mounted("probe"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def cut_images(way, size, wanted):
    """Copies of a file system's image, taken while a run saves every step into it, and the steps reported by then."""
    image = f"image_{way}_{size}"
    with open(image, "wb") as file:
        file.truncate(48 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image], check=True)
    copies = []
    with mounted(image) as place:
        slow = {rank: preload({"FAIL_SLOW": 20}, f"{place}/run") for rank in range(size)}
        arguments = command(f"{place}/run", *WAYS[way], "--save-interval", "1")
        with Ranks(arguments, f"{image}_log", size=size, variables=slow) as ranks:
            while len(copies) < wanted and any(process.poll() is None for process in ranks.processes):
                time.sleep(rng.uniform(0, 0.2))
                if not os.path.isdir(f"{place}/run"):
                    continue
                for process in ranks.processes:  # else the copy would be of no one moment
                    process.send_signal(signal.SIGSTOP)
                with open(f"{image}_log/0.out") as out:
                    reported = saved_steps(out.read())
                copies.append((f"{image}_{len(copies)}", reported))
                subprocess.run(["cp", "--sparse=always", image, copies[-1][0]], check=True)
                for process in ranks.processes:
                    process.send_signal(signal.SIGCONT)
            ranks.codes(HANG)
    return copies


def test_power_cut_of_a_file_system():
    """Where there are loop devices: what ext4 itself had brought to its disk at some moment is mounted and continued."""
    if not IS_LONG or not has_loop_devices():
        return print("no images of file systems are cut: that takes long, and needs loop devices")
    wanted = int(HOW_MANY) if HOW_MANY.isdigit() else 60 // STRIDE
    print("ranks  way      images cut  lost nothing")
    for way, size in counts:
        good = done = 0
        while done < wanted:
            for image, reported in cut_images(way, size, min(10, wanted - done)):
                done += 1
                with mounted(image) as place:
                    problems = problems_of(f"{place}/run", size, reported, f"{image}_{done}")
                good += not problems
                if problems:
                    check(False, f"{image}, steps {reported} reported" + "".join(f"; {p}" for p in problems))
                os.remove(image)
                os.rmdir(f"{image}_mounted")
                shutil.rmtree(f"again_{image}_{done}_log", ignore_errors=True)
            shutil.rmtree(f"image_{way}_{size}_log")
            os.rmdir(f"image_{way}_{size}_mounted")
        print(f"{size:5}  {way:<7}  {wanted:10} {good:12}", flush=True)


if __name__ == "__main__":
    run_tests(make_data, test_setup, test_killed_and_stopped, test_power_cut, test_power_cut_of_a_file_system)
