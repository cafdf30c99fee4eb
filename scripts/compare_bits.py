#!/usr/bin/env python3
"""compare_bits.py OLD NEW: runs the matrix tests of two builds (folders that hold layouts_test and
pipelines_test, such as build/cpu/tests) on this machine and compares the bits of what they train.

A layout counts by its label. What stands in one build alone is counted, and is no difference. Exits with 1
when the bits of a layout differ, or when the builds have no layout in common. Losses, gradients and weights
depend on the processor, so hashes are compared and never stored."""
import os
import re
import subprocess
import sys

PROGRAMS = ("layouts_test", "pipelines_test")
LINE = re.compile(r"^bits of (.*): losses (\w+) gradients (\w+) weights (\w+)$", re.M)


def bits_of(folder):
    """label -> (losses, gradients, weights)"""
    found = {}
    for program in PROGRAMS:
        path = os.path.abspath(os.path.join(folder, program))
        run = subprocess.run([path, "--gtest_filter=*Matrix*"], capture_output=True, text=True)
        if run.returncode != 0:
            print(run.stdout[-3000:], run.stderr[-3000:], sep="\n", file=sys.stderr)
            sys.exit(f"compare_bits: {path} failed with {run.returncode}")
        for label, *hashes in LINE.findall(run.stdout):
            found[label] = tuple(hashes)
    return found


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    old, new = (bits_of(folder) for folder in sys.argv[1:])
    both = sorted(old.keys() & new.keys())
    if not both:
        sys.exit(f"compare_bits: {sys.argv[1]} and {sys.argv[2]} have no layout in common")
    differing = [label for label in both if old[label] != new[label]]
    for label in differing:
        parts = ("losses", "gradients", "weights")
        what = [part for part, a, b in zip(parts, old[label], new[label]) if a != b]
        print(f"{label}: other {', '.join(what)}")
    print(f"{len(both) - len(differing)} of {len(both)} layouts have the same bits; "
          f"{len(old) - len(both)} are in the old build alone, {len(new) - len(both)} in the new one")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
