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
import tempfile

from check_layers import read_layers

ROOT = pathlib.Path(__file__).resolve().parent.parent
PASSED = ROOT / "build" / "tidy"
BATCH = 8  # sources read as one unit
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


def stamp_of(path):
    return PASSED / key_of(path)


def faults_of(path):
    """What clang-tidy says of a source, or nothing when it passes."""
    done = subprocess.run(["clang-tidy-14", "--quiet", str(path), "--", *FLAGS], capture_output=True, text=True)
    return done.stdout or done.stderr if done.returncode else ""


def run(batch):
    """The faults of a batch of one folder's sources. They are read as one unit first, since most of the time goes
    to the headers that they share; where that finds something, or names clash, each is read by itself."""
    if len(batch) > 1:
        with tempfile.NamedTemporaryFile("w", suffix=".cpp") as unit:
            unit.write("".join(f'#include "{path}"\n' for path in batch))
            unit.flush()
            if faults_of(unit.name):
                return [fault for path in batch for fault in run([path])]
    elif fault := faults_of(batch[0]):
        return [fault]
    for path in batch:
        stamp_of(path).touch()
    return []


def batches(paths):
    by_folder = {}
    for path in paths:
        if not stamp_of(path).exists():
            by_folder.setdefault(path.parent, []).append(path)
    for group in by_folder.values():
        count = -(-len(group) // BATCH)
        yield from (group[i::count] for i in range(count))


def main():
    paths = [pathlib.Path(name).resolve() for name in sys.argv[1:]] or list(sources())
    PASSED.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        faults = [fault for found in pool.map(run, list(batches(paths))) for fault in found]
    for fault in faults:
        print(fault)
    if faults:
        sys.exit(f"lint: clang-tidy finds fault with {len(faults)} of {len(paths)} files")
    print(f"lint: clang-tidy passes {len(paths)} files")


if __name__ == "__main__":
    main()
