#!/usr/bin/env python3
"""Checks what a compiler does not: the layers of cmake/layers.txt, and a few limits on sources.

    check_layers.py              checks the repository
    check_layers.py --self-test  proves that each rule catches a breach

Rules: a folder of moetron/ includes only its own headers and those of the folders that its line of
layers.txt names; the table itself has no cycle, and no core folder uses a torch folder; torch headers appear
in torch folders only, never in .cu files, and torch/torch.h nowhere; options are read by config/, run/ and the
commands alone, and of config/ the others know choices.h and model_formats.h; a file has at most 400 lines (tests
800); comments are ASCII.
"""
import pathlib
import re
import sys
import tempfile

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')
TORCH = re.compile(r"^(ATen|c10|torch|caffe2)/")
MOST_LINES, MOST_TEST_LINES = 400, 800
CHOICES = ("moetron/config/choices.h", "moetron/config/model_formats.h")
OPTION_READERS = {"config", "run", "bench", "cli"}
SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}


def read_layers(path):
    """{folder: (kind, set of folders it may use)} in the order of the file."""
    layers = {}
    for line in path.read_text().splitlines():
        match = re.match(r"^([a-z]+)\s+(core|torch):(.*)$", line)
        if match:
            layers[match[1]] = (match[2], set(match[3].split()))
    return layers


def check_table(layers):
    """The table lists folders bottom up, so every folder may only use earlier ones: no cycle is possible."""
    seen = set()
    for folder, (kind, uses) in layers.items():
        for used in sorted(uses - seen):
            where = "comes later in the table" if used in layers else "is not in the table"
            yield f"cmake/layers.txt: {folder} uses {used}, which {where}"
        for used in sorted(uses & seen):
            if kind == "core" and layers[used][0] == "torch":
                yield f"cmake/layers.txt: {folder} is core but uses {used}, which needs torch"
        seen.add(folder)


def comments_of(text):
    """(line number, text) of every comment, leaving out those inside string and character literals."""
    token = re.compile(r'R"([^()\s\\]*)\((?:.|\n)*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|//[^\n]*|/\*(?:.|\n)*?\*/')
    for match in token.finditer(text):
        if match[0].startswith(("//", "/*")):
            yield text.count("\n", 0, match.start()) + 1, match[0]


def check_include(layers, folder, path, header, is_test):
    """What is wrong with one include line of a file, or None."""
    reads_options = header.startswith("moetron/config/") and header not in CHOICES
    if reads_options and folder and folder not in OPTION_READERS and not is_test:
        return f"includes {header}: below the commands run/ alone reads options, the others its RunSpec"
    if header == "torch/torch.h":
        return "includes torch/torch.h, which costs 17 s a unit: include what it needs of ATen or torch/csrc"
    if TORCH.match(header):
        if path.suffix in (".cu", ".cuh"):
            return f"includes {header}: CUDA sources work on raw pointers, without torch"
        if folder in layers and layers[folder][0] == "core":
            return f"includes {header}, but {folder} builds without torch"
    if header.startswith("moetron/") and folder in layers:
        used = header.split("/")[1]
        if used != folder and used not in layers[folder][1]:
            return f"includes {header}, but cmake/layers.txt does not let {folder} use {used}"
    return None


def check_file(root, path, layers):
    relative = path.relative_to(root)
    parts = relative.parts
    folder = parts[1] if parts[0] == "moetron" and len(parts) > 2 else None
    if folder and folder not in layers:
        yield f"{relative}: cmake/layers.txt has no line for {folder}"
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    is_test = path.stem.endswith("_test") or parts[0] == "tests"
    limit = MOST_TEST_LINES if is_test else MOST_LINES
    if len(lines) > limit:
        yield f"{relative}: has {len(lines)} lines, at most {limit}"
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        fault = match and check_include(layers, folder, path, match[1], is_test)
        if fault:
            yield f"{relative}:{number}: {fault}"
    for number, comment in comments_of(text):
        if not comment.isascii():
            yield f"{relative}:{number}: a comment has a character that is not ASCII"


def check(root):
    layers = read_layers(root / "cmake" / "layers.txt")
    if not layers:
        yield "cmake/layers.txt: no layers found"
    yield from check_table(layers)
    for top in ("moetron", "tests", "benchmarks"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in SUFFIXES:
                yield from check_file(root, path, layers)


def self_test():
    """Breaks one rule at a time in a small tree, and expects exactly one fault, with the given words."""
    table = "base core:\nconfig core: base\ndata core: base\nnn torch: base\nmoe torch: base config nn\n"
    good = {"moetron/data/a.h": '#include "moetron/base/b.h"\n// A comment.\nconst char* s = "\u4e2d // \u6587";\n',
            "moetron/moe/c.cpp": "#include <ATen/core/Tensor.h>\n#include \"moetron/nn/n.h\"\n",
            "moetron/moe/o.h": '#include "moetron/config/choices.h"\n',
            "moetron/moe/o_test.cpp": '#include "moetron/config/options.h"\n'}
    breaches = [
        ("cmake/layers.txt", table + "up core: base top\ntop core: base\n", "comes later"),
        ("cmake/layers.txt", table + "top core: nowhere\n", "is not in the table"),
        ("cmake/layers.txt", table + "top core: nn\n", "which needs torch"),
        ("moetron/nn/n.cpp", '#include "moetron/moe/m.h"\n', "does not let nn use moe"),
        ("moetron/data/a.cpp", "#include <ATen/ATen.h>\n", "builds without torch"),
        ("moetron/moe/o.h", '#include "moetron/config/options.h"\n', "run/ alone reads options"),
        ("moetron/nn/k.cu", "#include <c10/util/Half.h>\n", "without torch"),
        ("moetron/nn/n.h", "#include <torch/torch.h>\n", "torch/torch.h"),
        ("moetron/new/n.h", "\n", "no line for new"),
        ("moetron/nn/long.cpp", "\n" * (MOST_LINES + 1), "at most 400"),
        ("moetron/nn/long_test.cpp", "\n" * (MOST_TEST_LINES + 1), "at most 800"),
        ("moetron/nn/c.h", "int x;  // \u4e2d\n", "not ASCII"),
    ]
    for name, content, words in [(None, None, None), *breaches]:
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            files = {"cmake/layers.txt": table} | good | ({name: content} if name else {})
            for path, text in files.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text, encoding="utf-8")
            faults = list(check(root))
        expected = 1 if name else 0
        if len(faults) != expected or (name and words not in faults[0]):
            sys.exit(f"self-test: expected {expected} fault about '{words}' in {name}, found {faults}")
    print(f"lint: the layer check catches all {len(breaches)} kinds of breach")


def main():
    if sys.argv[1:] == ["--self-test"]:
        self_test()
        return
    faults = list(check(pathlib.Path(__file__).resolve().parent.parent))
    for fault in faults:
        print(fault)
    if faults:
        sys.exit(f"lint: {len(faults)} faults")
    print("lint: the layers are kept")


if __name__ == "__main__":
    main()
