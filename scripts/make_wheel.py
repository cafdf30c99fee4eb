#!/usr/bin/env python3
"""Packs an installed tree as a Python wheel that puts `moetron` on the PATH.

    make_wheel.py TREE TORCH_LIBRARIES VERSION OUT

TREE is what `make install` makes. Its libraries of torch, which are those in the folder TORCH_LIBRARIES, are left out:
the wheel depends on torch's own, and the program finds them beside itself in site-packages.
"""
import base64
import hashlib
import os
import pathlib
import re
import sys
import zipfile

SCRIPTS = pathlib.Path(__file__).parent
MAIN = '''"""Moetron trains mixture-of-experts language models; the program is in bin/."""
import os
import sys


def main():
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bin", "moetron")
    os.environ.setdefault("MOETRON_PYTHON", sys.executable)  # for moetron demo: it has tokenizers
    os.execv(program, [program, *sys.argv[1:]])
'''
METADATA = """Metadata-Version: 2.1
Name: moetron
Version: {version}
Summary: Trains mixture-of-experts language models
License: Apache-2.0
Requires-Python: >=3.10
Requires-Dist: {torch}
Requires-Dist: tokenizers
Description-Content-Type: text/markdown

{readme}"""
WHEEL = """Wheel-Version: 1.0
Generator: make_wheel.py
Root-Is-Purelib: false
Tag: py3-none-linux_x86_64
"""


def tree_files(tree, left_out):
    """Pairs of a name in the wheel and a path. A wheel has no links: a library goes in under the name that is linked
    to it, which is the one that programs ask for."""
    paths = [path for folder in ("bin", "lib", "share") for path in sorted((tree / folder).rglob("*"))
             if not path.is_dir() and path.name not in left_out]
    linked = {path.resolve() for path in paths if path.is_symlink()}
    return [(f"moetron/{path.relative_to(tree)}", path) for path in paths if path.is_symlink() or path not in linked]


class Wheel:
    def __init__(self, path):
        self.file = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
        self.record = []

    def add(self, name, content, executable=False):
        info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
        info.external_attr = (0o100755 if executable else 0o100644) << 16
        info.compress_type = zipfile.ZIP_DEFLATED
        self.file.writestr(info, content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        self.record.append(f"{name},sha256={digest},{len(content)}")

    def close(self, record_name):
        self.record.append(f"{record_name},,")
        self.file.writestr(record_name, "\n".join(self.record) + "\n")
        self.file.close()


def main():
    tree, torch_libraries, version, out = sys.argv[1:]
    tree = pathlib.Path(tree).resolve()
    torch = re.search(r"^torch==\S+", (SCRIPTS / "requirements.txt").read_text(), re.M)[0]
    readme = (SCRIPTS.parent / "README.md").read_text()
    info = f"moetron-{version}.dist-info"
    wheel = Wheel(pathlib.Path(out) / f"moetron-{version}-py3-none-linux_x86_64.whl")
    wheel.add("moetron/__init__.py", MAIN.encode())
    for name, path in tree_files(tree, set(os.listdir(torch_libraries))):
        wheel.add(name, path.read_bytes(), os.access(path, os.X_OK))
    wheel.add(f"{info}/METADATA", METADATA.format(version=version, torch=torch, readme=readme).encode())
    wheel.add(f"{info}/WHEEL", WHEEL.encode())
    wheel.add(f"{info}/entry_points.txt", b"[console_scripts]\nmoetron = moetron:main\n")
    wheel.close(f"{info}/RECORD")


if __name__ == "__main__":
    main()
