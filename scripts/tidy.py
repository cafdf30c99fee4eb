#!/usr/bin/env python3
"""Runs clang-tidy over the sources of the torch-free folders, skipping those that passed before unchanged.

    tidy.py [FILE ...]

What counts as unchanged is the source, every header of the project that it includes, and .clang-tidy; passes
are remembered in build/tidy. Tests are left out: their macros expand to code nobody wrote.
"""
import concurrent.futures
import hashlib
import os
import pathlib
import re
import subprocess
import sys

from check_layers import read_layers

ROOT = pathlib.Path(__file__).resolve().parent.parent
PASSED = ROOT / "build" / "tidy"
FLAGS = ["-std=c++20", f"-I{ROOT}", "-Wall", "-Wextra", "-Wno-unknown-warning-option"]
INCLUDE = re.compile(rb'^\s*#\s*include\s*"(moetron/[^"]+)"', re.MULTILINE)


def sources():
    for folder, (kind, _) in read_layers(ROOT / "cmake" / "layers.txt").items():
        if kind == "core":
            for path in sorted((ROOT / "moetron" / folder).rglob("*.cpp")):
                if not path.stem.endswith("_test"):
                    yield path


def key_of(path):
    """A hash of the source and of all project headers below it."""
    todo, seen, digest = [path], set(), hashlib.sha256((ROOT / ".clang-tidy").read_bytes())
    digest.update(" ".join(FLAGS).encode())
    while todo:
        current = todo.pop()
        if current in seen or not current.exists():
            continue
        seen.add(current)
        content = current.read_bytes()
        digest.update(str(current.relative_to(ROOT)).encode() + b"\0" + content)
        todo += [ROOT / name.decode() for name in INCLUDE.findall(content)]
    return digest.hexdigest()


def run(path):
    """None when the file passes, otherwise what clang-tidy says."""
    stamp = PASSED / key_of(path)
    if stamp.exists():
        return None
    done = subprocess.run(["clang-tidy-14", "--quiet", str(path), "--", *FLAGS], capture_output=True, text=True)
    if done.returncode == 0:
        stamp.touch()
        return None
    return done.stdout or done.stderr


def main():
    paths = [pathlib.Path(name).resolve() for name in sys.argv[1:]] or list(sources())
    PASSED.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        faults = [fault for fault in pool.map(run, paths) if fault]
    for fault in faults:
        print(fault)
    if faults:
        sys.exit(f"lint: clang-tidy finds fault with {len(faults)} of {len(paths)} files")
    print(f"lint: clang-tidy passes {len(paths)} files")


if __name__ == "__main__":
    main()
