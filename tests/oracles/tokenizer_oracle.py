#!/usr/bin/env python3
"""Compares Moetron's tokenizer with the `tokenizers` library, id by id and byte by byte.

    tokenizer_oracle.py TOKENIZER_TOOL DATA [--quick]

DATA holds the folders tokenizers/ and text/. Every text (a zip file: each member) goes through both
programs, then all code points, random strings and invalid UTF-8; what is not UTF-8 is given to the
library as bytes.decode(errors="replace"). Besides the released tokenizers, one of Llama-3's kind and
some with unusual parts are trained here. --quick takes the first 64 KiB of every text and every
eighth member of a zip file. One line a tokenizer: texts, bytes, tokens, MB/s of both, in processor
time of one thread each. Exits with 1 on any difference.
"""
import os

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import multiprocessing
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata
import zipfile

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace("{1,3}", "")
# Words by case and script, as in newer tokenizers, with lookarounds, anchors and \w.
UNUSUAL = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re)?"
           r"|\p{Han}++|(?<=\d)\w|\s+$|\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))| ?[^\s\w]+[\r\n/]*|\s*[\r\n]+"
           r"|\s+(?!\S)|\s+")


def read_texts(folder, is_quick):
    limit, step = (65536, 8) if is_quick else (None, 1)
    texts = []
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".zip":
            archive = zipfile.ZipFile(path)
            names = [name for name in archive.namelist() if not name.endswith("/")]
            texts += [archive.read(name)[:limit] for name in names[::step]]
        elif path.is_file():
            texts.append(path.read_bytes()[:limit])
    points = "".join(chr(c) for c in range(0x110000) if not 0xd800 <= c < 0xe000)
    slices = [points[i:i + 4096] for i in range(0, len(points) // 16 if is_quick else len(points), 4096)]
    return texts + [text.encode() for text in slices]


def random_texts(added, count):
    """Strings of all that pre-tokenizers and normalizers tell apart, from a fixed seed."""
    draw = random.Random(20)
    marks = [chr(c) for c in range(0x300, 0x370)] + ["\u3099", "\u0591", "\u0f71", "\u0f72", "\u0f80"]
    kinds = [
        lambda: draw.choice(added), lambda: draw.choice(added)[:-1], lambda: draw.choice(added) + " ",
        lambda: draw.choice(["'s", "'T", "'rE", "'ll", "'LL", "'\u017f", "'", "''ve", "'d'M", "\u2019s"]),
        lambda: draw.choice([" ", "  ", "   ", "\n", "\r\n", "\t", "\n \n", "\u00a0", "\u3000", "\u2003 ",
                             "\u200b", "\u180e", "\x85", "\x0b", "\x1c", "\u2028", "\ufeff", "\0"]),
        lambda: str(draw.randrange(10 ** draw.randrange(1, 9))),
        lambda: draw.choice("\u0663\u0967\u00b2\u2167\u4e03\u3007\U0001d7d8\u0be7\u2460"),
        lambda: "".join(draw.choice("abcxyzABCXYZ_") for _ in range(draw.randrange(1, 12))),
        lambda: "a" * draw.randrange(1, 200),
        lambda: "".join(chr(draw.randrange(0x4e00, 0x9fff)) for _ in range(draw.randrange(1, 9))),
        lambda: "".join(chr(draw.randrange(0x3041, 0x30ff)) for _ in range(draw.randrange(1, 5))),
        lambda: chr(draw.randrange(0xac00, 0xd7a4)) + chr(draw.randrange(0x11a8, 0x11c3)),
        lambda: "".join(chr(draw.randrange(lo, hi)) for lo, hi in
                        ((0x1100, 0x1113), (0x1161, 0x1176), (0x11a7, 0x11c3))),
        lambda: draw.choice("aeiouAEnN\u0391\u03b9\u0438\u05e9\u0915\u304b\u0f40") +
        "".join(draw.choice(marks) for _ in range(draw.randrange(1, 5))),
        lambda: "".join(draw.choice(marks) for _ in range(draw.randrange(1, 3))),
        lambda: draw.choice("\u212b\u2126\u1e9b\ufb01\u0958\u0344\u1f71\U0002f800\u01c4\u00e9\u1ea5\u00df\u0130"),
        lambda: draw.choice(["\U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u2764\ufe0f",
                             "\U0001f1e9\U0001f1ea", "#\ufe0f\u20e3", "\U0001f9ff"]),
        lambda: draw.choice(["!?", "...", "(a", "$x", "/*", "\u2014", "\u3002", "+=", "\u00bf", "^`", "\u20ac", "-->", "\\n"]),
        lambda: chr(draw.choice(ASSIGNED)),
    ]
    texts = []
    for _ in range(count):
        text = "".join(draw.choice(kinds)() for _ in range(draw.randrange(1, 24)))
        data = text.encode("utf-8", errors="surrogatepass")
        if draw.random() < 0.2:
            data = bytearray(data)
            for _ in range(draw.randrange(1, 4)):
                data[draw.randrange(len(data))] = draw.choice([0x80, 0xc0, 0xe2, 0xed, 0xf0, 0xf4, 0xff, 0xa0])
            data = bytes(data)[draw.randrange(2):]
        texts.append(data)
    return texts + [b"", b" ", b"\n", b"\xff", b"\xe2\x82"]


# A character of any block; the newest ones come in order from read_texts.
ASSIGNED = [c for c in range(0x250, 0x1f800) if unicodedata.ucd_3_2_0.category(chr(c))[0] not in "C"]


def byte_level(**options):
    return pre_tokenizers.ByteLevel(**{"add_prefix_space": False, "use_regex": False, **options})


def train(texts, pre_tokenizer, normalizer=None, num_tokens=3000):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=num_tokens, show_progress=False, min_frequency=2,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def make_llama3(texts):
    tokenizer = train(texts, pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"), byte_level()]))
    tokenizer.model.ignore_merges = True
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    begin = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", begin)])])
    return tokenizer


def make_unusual(texts):
    tokenizer = train(texts, pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(UNUSUAL), "isolated"), pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Split("://", "removed"), byte_level()]), normalizers.NFC())
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.add_tokens([
        AddedToken("<mask>", lstrip=True, rstrip=True), AddedToken("word", single_word=True),
        AddedToken("e\u0301te\u0301", normalized=True), AddedToken("<ma", normalized=False),
        AddedToken("<maskmask>", normalized=True), AddedToken("\u00e9"), AddedToken("  ", normalized=False)])
    return tokenizer


def make_prefix_space(texts):
    """A ByteLevel as the library makes it by default; the demo's kinds of training."""
    tokenizer = train(texts, pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True))
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", normalized=False)])
    return tokenizer


def make_qwen_trained(texts):
    tokenizer = train(texts, pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN), "isolated"), byte_level()]), normalizers.NFC())
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def run_tool(tool, path, mode, records, item_size):
    data = b"".join(struct.pack("<I", len(record) // item_size) + record for record in records)
    done = subprocess.run([tool, path, mode], input=data, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{path}: {tool} {mode} fails: {done.stderr.decode()}")
    out_size = 4 if mode.startswith("encode") else 1
    results, place = [], 0
    while place < len(done.stdout):
        (count,) = struct.unpack_from("<I", done.stdout, place)
        results.append(done.stdout[place + 4:place + 4 + count * out_size])
        place += 4 + count * out_size
    return results, float(done.stderr)


def pack(ids):
    return struct.pack(f"<{len(ids)}i", *ids)


def compare(name, what, texts, ours, theirs):
    different = [i for i in range(len(texts)) if ours[i] != theirs[i]]
    for i in different[:5]:
        at = next((k for k, (a, b) in enumerate(zip(ours[i], theirs[i])) if a != b), -1)
        print(f"{name}: {what} of text {i} differs at byte {at} of {len(theirs[i])}: {texts[i][:80]!r}")
    if different or len(ours) != len(texts):
        print(f"{name}: {what}: {len(different)} of {len(texts)} texts differ")
        return False
    return True


def check(job):
    tool, name, path, folder, is_quick = job
    corpus = read_texts(folder, is_quick)
    library = Tokenizer.from_file(path)
    added = [token.content for token in library.get_added_tokens_decoder().values()]
    texts = corpus + random_texts(added, 1500 if is_quick else 5000)
    strings = [text.decode("utf-8", errors="replace") for text in texts]
    start = time.process_time()
    ids = [encoding.ids for encoding in library.encode_batch_fast(strings, add_special_tokens=False)]
    their_time = time.process_time() - start
    theirs = [pack(text) for text in ids]
    ours, our_time = run_tool(tool, path, "encode", texts, 1)
    same = compare(name, "encoding", texts, ours, theirs)
    decoded, _ = run_tool(tool, path, "decode", theirs, 4)
    same &= compare(name, "decoding", texts, decoded,
                    [text.encode() for text in library.decode_batch(ids, skip_special_tokens=False)])
    # Special tokens put in and left out, and ids that no text gives, on the short texts.
    few, strings = texts[len(corpus):], strings[len(corpus):]
    ours, _ = run_tool(tool, path, "encode_special", few, 1)
    same &= compare(name, "encoding with special tokens", few, ours,
                    [pack(library.encode(text).ids) for text in strings])
    draw = random.Random(21)
    mixed = [[draw.randrange(library.get_vocab_size() + 9) for _ in range(draw.randrange(20))] for _ in range(3000)]
    decoded, _ = run_tool(tool, path, "decode_skip", [pack(m) for m in mixed], 4)
    same &= compare(name, "decoding of random ids", [str(m) for m in mixed], decoded,
                    [text.encode() for text in library.decode_batch(mixed, skip_special_tokens=True)])
    size = sum(map(len, texts))
    line = (f"{name:14} {len(texts)} texts, {size} bytes, {sum(map(len, ids))} tokens, "
            f"{size / our_time / 1e6:.1f} MB/s ours, {size / their_time / 1e6:.1f} MB/s theirs")
    return same, line


def stand_in_texts(folder):
    """Where the sample data is not at hand: this repository's own pages and programs, and Chinese of sorts."""
    root = pathlib.Path(__file__).resolve().parents[2]
    text = pathlib.Path(folder) / "text"
    text.mkdir()
    for source in [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("tests/*.py"), *root.glob("moetron/*/*.h")]:
        (text / "_".join(source.relative_to(root).parts)).write_bytes(source.read_bytes())
    chosen = random.Random(5)
    words = ["专家", "模型", "训练", "，", "。", "文件", "的", "打开", "かな", "カナ", "한국어", "2024", " ", "\n"]
    (text / "mixed.txt").write_text("".join(chosen.choice(words) for _ in range(20_000)), encoding="utf-8")
    return text


def main():
    is_quick = sys.argv[3:] == ["--quick"]
    tool, data = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        length = 60_000 if is_quick else 300_000
        if data.exists():
            text = data / "text"
            parts = ("tinyshakespeare/input.txt", "olmoe_domains/github_oss_with_stack_texts.txt",
                     "zh_poetry/poet.tang.0.json", "unicode/UTF-8-demo.txt")
            jobs = [(tool, name, str(data / "tokenizers" / name / "tokenizer.json"), text, is_quick)
                    for name in ("qwen3", "deepseek-v3", "gpt2")]
        else:
            text, jobs = stand_in_texts(folder), []
            parts = sorted(path.name for path in text.iterdir())
        sample = [(text / part).read_text(encoding="utf-8", errors="replace")[:length] for part in parts]
        for make in (make_llama3, make_unusual, make_prefix_space, make_qwen_trained):
            name = make.__name__.removeprefix("make_")
            make(sample).save(f"{folder}/{name}.json")
            jobs.append((tool, name, f"{folder}/{name}.json", text, is_quick))
        with multiprocessing.get_context("spawn").Pool(min(2, os.cpu_count())) as pool:
            all_same = True
            for same, line in pool.imap(check, jobs, chunksize=1):
                all_same &= same
                print(line if same else f"{line}: DIFFERENT", flush=True)
    sys.exit(0 if all_same else 1)


if __name__ == "__main__":
    main()
