#!/usr/bin/env python3
"""Text to tokens: ours against gigatoken and the tokenizers library, in turns, each run in a new process.

    benchmarks/tokenize_speed.py TOKENIZER_TOOL [FILE ...] [--data ../shared/data] [--work FOLDER] [--debian]
        [--rounds 3] [--threads 1 2] [--only qwen3 ...] [--times 1 5] [--hostile]

TOKENIZER_TOOL is build/core/obj/tokenizer/tokenizer_tool. The texts are the FILEs, else those of DATA/text; --debian
adds some 200 MB of documentation, translations and programs, which apt-get downloads from Debian into WORK once (300 MB).
A line that was seen before is left out, so the text is unique. WORK also gets a venv with both libraries.
--times repeats the text so many times in one run: the first row has its words for the first time, caches cold.
The tokenizers are Qwen3's, DeepSeek-V3's, and Qwen3's words with Llama-3's pattern. Reading the text and loading the
tokenizer are not timed; the ids of all documents are compared with gigatoken's by a checksum, with those of tokenizers
one by one on a part (every 20th document). MB/s of wall time, medians of the rounds.
--hostile times texts that are made to be slow instead, at two lengths: twice the text may take twice the time.
"""
import argparse
import html
import json
import pathlib
import random
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata
import zipfile

# (package, globs of its texts below usr/)
PACKAGES = [
    ("libreoffice-help-en-us", ["share/libreoffice/help/en-US/text/**/*.html"]),
    ("libreoffice-help-zh-cn", ["share/libreoffice/help/zh-CN/text/**/*.html"]),
    ("libreoffice-help-zh-tw", ["share/libreoffice/help/zh-TW/text/**/*.html"]),
    ("libreoffice-help-de", ["share/libreoffice/help/de/text/**/*.html"]),
    ("libreoffice-help-ja", ["share/libreoffice/help/ja/text/**/*.html"]),
    ("libreoffice-help-ru", ["share/libreoffice/help/ru/text/**/*.html"]),
    ("manpages-zh", ["share/man/**/*.gz"]),
    ("debian-reference-en", ["share/debian-reference/*.en.html"]),
    ("debian-reference-zh-cn", ["share/debian-reference/*.zh-cn.html"]),
    ("linux-doc-6.1", ["share/doc/linux-doc-6.1/**/*.html", "share/doc/linux-doc-6.1/**/*.rst*"]),
    ("python3.11-doc", ["share/doc/python3.11/html/**/*.html"]),
    ("postgresql-doc-15", ["share/doc/postgresql-doc-15/html/*.html"]),
    ("gnome-user-docs", ["share/help/*/**/*.page"]),
    ("libpython3.11-stdlib", ["lib/python3.11/**/*.py"]),
    ("golang-1.19-src", ["share/go-1.19/src/**/*.go", "share/go-1.19/src/**/*.s"]),
    ("rust-src", ["src/rustc-*/**/*.rs"]),
    ("manpages-dev", ["share/man/**/*.gz"]),
]
LONG_TOKEN = 200_000  # letters
LIBRARIES = ("gigatoken", "tokenizers")
PART = 20  # every so manieth document goes through the tokenizers library
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
HOSTILE = {  # a text of n bytes or a little more; the letters are not those of a word
    "one word": (50_000_000, lambda n: b"abcdefghijklmnopqrstuvwxyz"[:23] * (n // 23 + 1)),
    "one letter": (50_000_000, lambda n: b"a" * n),
    "one Chinese word": (50_000_000, lambda n: "的一是不了人我在有他这中大来上".encode() * (n // 45 + 1)),
    "blanks": (100_000_000, lambda n: b" " * n),
    "line ends": (1_000_000, lambda n: b"\n" * n),
    "blanks and line ends": (10_000_000, lambda n: b" \n" * (n // 2)),
    "signs": (10_000_000, lambda n: b"-" * n),
    "combining marks": (10_000_000, lambda n: "\u0301\u0323".encode() * (n // 4)),
    "marks behind letters": (10_000_000, lambda n: ("e" + "\u0301\u0323" * 40).encode() * (n // 161 + 1)),
    "not UTF-8": (10_000_000, lambda n: b"\xff" * n),
    "apostrophes": (10_000_000, lambda n: b"'" * n),
    "begun tokens": (10_000_000, lambda n: b"<|im_start" * (n // 10)),
    "words of 39 random letters": (10_000_000, lambda n: b" ".join(
        bytes(random.Random(i).choices(b"abcdefghijklmnopqrstuvwxyz", k=39)) for i in range(n // 40))),
}


def strip_markup(text):
    text = re.sub(r"(?s)<(script|style|head)\b.*?</\1>|<!--.*?-->", " ", text)
    return html.unescape(re.sub(r"(?s)<[^<>]*>", "", text))


def read_text(path):
    """The texts of a file, of each member of an archive."""
    if path.suffix == ".zip":
        archive = zipfile.ZipFile(path)
        return [archive.read(name) for name in archive.namelist() if not name.endswith("/")]
    if path.suffix == ".gz":
        import gzip
        return [gzip.decompress(path.read_bytes())]
    data = path.read_bytes()
    if path.suffix in (".html", ".page"):
        data = strip_markup(data.decode("utf-8", errors="replace")).encode()
    return [data]


def debian_files(work):
    """The packages' texts, downloaded (their signatures checked by apt) and unpacked once."""
    files = []
    for package, globs in PACKAGES:
        folder = work / "debian" / package
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=work) as made:
                got = subprocess.run(["apt-get", "download", "-q", package], cwd=made, capture_output=True, text=True)
                if got.returncode:
                    sys.exit(f"cannot get the package {package} (apt-get update?): {got.stderr.strip()}")
                unpacked = pathlib.Path(made) / "unpacked"
                subprocess.run(["dpkg-deb", "-x", next(pathlib.Path(made).glob("*.deb")), unpacked], check=True)
                folder.parent.mkdir(exist_ok=True)
                unpacked.rename(folder)
        for pattern in globs:
            files += [path for path in sorted((folder / "usr").glob(pattern)) if path.is_file()]
    return files


def unique_documents(files):
    """One document a file, without lines that an earlier one has; short lines are left, as every text has them. In NFC,
    so that decoding gives the text back with Qwen3's tokenizer too."""
    seen, documents = set(), []
    for path in files:
        for data in read_text(path):
            lines = []
            text = unicodedata.normalize("NFC", data.decode("utf-8", errors="replace"))
            for line in text.splitlines(keepends=True):
                key = hash(line)
                if len(line) < 24 or key not in seen:
                    lines.append(line)
                    seen.add(key)
            if lines:
                documents.append("".join(lines).encode())
    random.Random(3).shuffle(documents)
    return documents


def write_records(path, documents):
    with open(path, "wb") as file:
        for document in documents:
            file.write(struct.pack("<I", len(document)) + document)


def read_records(path):
    data, place, records = path.read_bytes(), 0, []
    while place < len(data):
        (length,) = struct.unpack_from("<I", data, place)
        records.append(data[place + 4:place + 4 + length])
        place += 4 + length
    return records


def checksum(ids):
    """The sum of each id times its place from one on, modulo 2^64, as tokenizer_tool has it."""
    import numpy
    ids = numpy.asarray(ids, dtype=numpy.uint64)
    return int((ids * numpy.arange(1, len(ids) + 1, dtype=numpy.uint64)).sum(dtype=numpy.uint64))


def run_library(library, tokenizer, records, threads, times, ids_file):
    """Runs in the venv: prints seconds, tokens and the checksum."""
    import numpy
    documents = read_records(pathlib.Path(records)) * int(times)
    if library == "gigatoken":
        import gigatoken
        model = gigatoken.Tokenizer(tokenizer)
        begin = time.monotonic()
        result = model.encode_batch(documents, parallel=threads != "1")
        seconds = time.monotonic() - begin
        import awkward
        ids = awkward.to_numpy(awkward.flatten(result))
    else:
        from tokenizers import Tokenizer
        model = Tokenizer.from_file(tokenizer)
        texts = [document.decode() for document in documents]
        begin = time.monotonic()
        result = model.encode_batch_fast(texts, add_special_tokens=False)
        seconds = time.monotonic() - begin
        ids = numpy.concatenate([numpy.asarray(encoding.ids, dtype=numpy.int32) for encoding in result])
    if ids_file != "-":
        ids.astype("<i4").tofile(ids_file)
    print(json.dumps({"seconds": seconds, "tokens": len(ids), "checksum": checksum(ids)}))


def measure(contender, tokenizer, records, threads, times=1, ids_file="-"):
    arguments = [str(tokenizer), str(records), str(threads), str(times), str(ids_file)]
    if contender in LIBRARIES:
        command = [str(OPTIONS.work / "venv/bin/python"), __file__, "--run-library", contender, *arguments]
    else:
        command = [OPTIONS.tool, arguments[0], "speed", *arguments[1:]]
    environment = {"RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false" if threads == 1 else "true"}
    done = subprocess.run(["env", *(f"{k}={v}" for k, v in environment.items()), *command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} fails: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def make_venv(folder):
    if not (folder / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin/pip", "install", "-q", *LIBRARIES, "numpy", "awkward"], check=True)
    listed = subprocess.run([folder / "bin/pip", "list", "--format=json"], capture_output=True, check=True).stdout
    versions = {entry["name"]: entry["version"] for entry in json.loads(listed)}
    return ", ".join(f"{name} {versions[name]}" for name in LIBRARIES)


def processor():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = [flag for flag in ("avx2", "avx512bw") if flag in values.get("flags", "").split()]
    return (f"{values.get('model name')}, family {values.get('cpu family')}, model {values.get('model')}, "
            f"{' '.join(flags) or 'without AVX2'}, {sum(line.startswith('processor') for line in lines)} cores")


def tokenizers(data, work):
    folder = data / "tokenizers"
    llama3 = json.loads((folder / "qwen3/tokenizer.json").read_text())
    llama3["normalizer"], llama3["model"]["ignore_merges"] = None, True
    llama3["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": LLAMA3}
    (work / "llama3").mkdir(exist_ok=True)
    (work / "llama3/tokenizer.json").write_text(json.dumps(llama3))
    return {"qwen3": folder / "qwen3/tokenizer.json", "deepseek-v3": folder / "deepseek-v3/tokenizer.json",
            "llama3": work / "llama3/tokenizer.json"}


def compare_part(name, path, part):
    files = {contender: OPTIONS.work / f"ids.{contender}" for contender in ("ours", "tokenizers")}
    for contender, file in files.items():
        measure(contender, path, part, 1, 1, file)
    if files["ours"].read_bytes() != files["tokenizers"].read_bytes():
        sys.exit(f"{name}: our ids differ from those of tokenizers")


def compare_speeds(name, path, records, part, sizes):
    compare_part(name, path, part)
    for threads in OPTIONS.threads:
        for times in OPTIONS.times:
            speeds = {contender: [] for contender in ("ours", *LIBRARIES)}
            for _ in range(OPTIONS.rounds):
                got = {}
                for contender in speeds:
                    # The library has no cache: the part is as fast as the whole.
                    file, size, count = (part, sizes[1], 1) if contender == "tokenizers" else (records, sizes[0], times)
                    got[contender] = measure(contender, path, file, threads, count)
                    speeds[contender].append(size * count / 1e6 / got[contender]["seconds"])
                if not got["ours"]["decodes"]:
                    sys.exit(f"{name}: decoding does not give the text back")
                same = got["ours"]["checksum"] == got["gigatoken"]["checksum"]
            ours, giga, library = (statistics.median(speeds[contender]) for contender in speeds)
            print(f"{name:12} {threads:7} {times:5} {ours:8.1f} {giga:10.1f} {library:11.2f} {ours / giga:13.2f} "
                  f"{ours / library:14.1f}  {'equal' if same else 'gigatoken differs'}", flush=True)


def with_long_token(path):
    """The same tokenizer with an added token of 200,000 letters."""
    model = json.loads(path.read_text())
    content = "".join(random.Random(6).choices("ab", k=LONG_TOKEN))
    model["added_tokens"].append(dict(id=max(token["id"] for token in model["added_tokens"]) + 1, content=content,
                                      single_word=False, lstrip=False, rstrip=False, normalized=False, special=False))
    (OPTIONS.work / "long").mkdir(exist_ok=True)
    (OPTIONS.work / "long/tokenizer.json").write_text(json.dumps(model))
    begun = content[:-1].encode() + b" "
    return OPTIONS.work / "long/tokenizer.json", {"a long token, begun": (
        10_000_000, lambda n: begun * (n // len(begun)) + begun[:n % len(begun)])}


def time_hostile(name, path, hostile):
    for what, (size, make) in hostile.items():
        speeds = []
        for length in (size // 2, size):
            text = make(length)
            write_records(OPTIONS.work / "hostile.records", [text])
            got = measure("ours", path, OPTIONS.work / "hostile.records", 1)
            speeds.append((len(text), got["seconds"], got["peak_bytes"]))
        (_, half, _), (length, whole, peak) = speeds
        print(f"{name:12} {what:28} {length / 1e6:6.1f} MB {half:8.3f} s {whole:8.3f} s {whole / half:6.2f} "
              f"{length / 1e6 / whole:8.1f} MB/s {peak / 1e6:8.0f} MB of memory", flush=True)


def read_options():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("tool")
    options.add_argument("files", nargs="*", type=pathlib.Path)
    options.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    options.add_argument("--work", type=pathlib.Path, default=pathlib.Path("build/tokenize_speed"))
    options.add_argument("--debian", action="store_true")
    options.add_argument("--hostile", action="store_true")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options.add_argument("--times", type=int, nargs="+", default=[1, 5])
    options.add_argument("--only", nargs="+")
    return options.parse_args()


def main():
    OPTIONS.work = OPTIONS.work.resolve()
    OPTIONS.work.mkdir(parents=True, exist_ok=True)
    models = tokenizers(OPTIONS.data.resolve(), OPTIONS.work)
    chosen = {name: path for name, path in models.items() if not OPTIONS.only or name in OPTIONS.only}
    print(processor())
    if OPTIONS.hostile:
        for name, path in chosen.items():
            time_hostile(name, path, HOSTILE)
            time_hostile(name, *with_long_token(path))
        return
    print(make_venv(OPTIONS.work / "venv"))
    files = OPTIONS.files or [path for path in sorted((OPTIONS.data / "text").rglob("*")) if path.is_file()]
    documents = unique_documents(files + (debian_files(OPTIONS.work) if OPTIONS.debian else []))
    records, part = OPTIONS.work / "texts.records", OPTIONS.work / "part.records"
    write_records(records, documents)
    write_records(part, documents[::PART])
    sizes = sum(map(len, documents)), sum(map(len, documents[::PART]))
    print(f"{len(documents)} documents, {sizes[0] / 1e6:.1f} MB of unique text")
    print("MB/s of        threads times     ours  gigatoken  tokenizers  of gigatoken  of tokenizers  ids")
    for name, path in chosen.items():
        compare_speeds(name, path, records, part, sizes)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run-library"]:
        run_library(*sys.argv[2:])
    else:
        OPTIONS = read_options()
        main()
