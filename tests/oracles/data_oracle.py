"""Compares data sets and safetensors files with NumPy and the safetensors library.

The dataset half is written anew from the description of Megatron's format and order, on NumPy
alone: reading .idx, splits, epochs, document, sample and shuffle order, blends.

Usage: data_oracle.py DATA_TOOL
"""

import json
import math
import pathlib
import struct
import subprocess
import sys
import tempfile

import numpy as np
import safetensors.torch
import torch

TOOL = sys.argv[1]
SAMPLES = pathlib.Path(__file__).resolve().parents[3] / "shared/data/formats"
TYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}


def tool(*words):
    subprocess.run([TOOL, *map(str, words)], check=True)


# --- Megatron's indexed dataset -------------------------------------------------------------------


def write_indexed(prefix, sequences, code):
    """One sequence a document, as preprocessing of text gives."""
    data = [np.asarray(s, TYPES[code]) for s in sequences]
    lengths = np.array([len(s) for s in data], np.int32)
    ends = np.cumsum(lengths.astype(np.int64) * np.dtype(TYPES[code]).itemsize)
    pointers = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    with open(f"{prefix}.bin", "wb") as file:
        for s in data:
            file.write(s.tobytes())
    with open(f"{prefix}.idx", "wb") as file:
        file.write(b"MMIDIDX\x00\x00")
        file.write(struct.pack("<QBQQ", 1, code, len(data), len(data) + 1))
        file.write(lengths.tobytes() + pointers.tobytes())
        file.write(np.arange(len(data) + 1, dtype=np.int64).tobytes())


def read_indexed(prefix):
    with open(f"{prefix}.idx", "rb") as file:
        index = file.read()
    version, code, sequences, _ = struct.unpack("<QBQQ", index[9:34])
    assert version == 1
    lengths = np.frombuffer(index, np.int32, sequences, 34)
    pointers = np.frombuffer(index, np.int64, sequences, 34 + 4 * sequences)
    with open(f"{prefix}.bin", "rb") as file:
        tokens = file.read()
    return [
        np.frombuffer(tokens, TYPES[code], n, p).astype(np.int64) for n, p in zip(lengths, pointers)
    ]


# --- GPTDataset -----------------------------------------------------------------------------------


def split_ranges(split, total):
    weights = np.array([float(w) for w in split.split(",")] + [0.0, 0.0])[:3]
    weights = weights / weights.sum()
    bounds = [0.0]
    for weight in weights.tolist():
        bounds.append(bounds[-1] + weight)
    return [
        (int(round(a * total)), int(round(b * total))) if a < b else None
        for a, b in zip(bounds[:-1], bounds[1:])
    ]


class Gpt:
    def __init__(self, sequences, bounds, length, wanted, seed):
        self.length = length
        chosen = np.arange(*bounds, dtype=np.int32)
        per_epoch = sum(len(sequences[s]) for s in chosen)
        epochs = 1
        while wanted is not None and epochs * per_epoch < wanted * length + 1:
            epochs += 1
        before_last = ((epochs - 1) * per_epoch - 1) // length
        self.separate = epochs > 1 and wanted - before_last < int(
            0.80 * ((per_epoch - 1) // length)
        )
        self.epochs = epochs
        random = np.random.RandomState(seed)
        if self.separate:
            first, last = np.tile(chosen, epochs - 1), chosen.copy()
            random.shuffle(first)
            random.shuffle(last)
            documents = np.concatenate([first, last])
        else:
            documents = np.tile(chosen, epochs)
            random.shuffle(documents)
        self.documents = documents
        # Samples as cuts of the flat text: sample i is [i * length, (i + 1) * length + 1).
        self.flat = np.concatenate([sequences[d] for d in documents])
        self.begins = np.zeros(len(self.flat), bool)
        ends = np.cumsum([len(sequences[d]) for d in documents])
        self.begins[np.concatenate([[0], ends[:-1]])] = True
        count = (epochs * per_epoch - 1) // length
        if self.separate:
            first, last = np.arange(before_last), np.arange(before_last, count)
            random.shuffle(first)
            random.shuffle(last)
            self.shuffle = np.concatenate([first, last])
        else:
            self.shuffle = np.arange(count)
            random.shuffle(self.shuffle)
        # The sample index: the position of each cut as (document, offset). A cut at a boundary
        # stays at the last token of the earlier document.
        cuts = np.arange(count + 1) * length
        place = np.searchsorted(ends, cuts, side="right")
        self.samples = np.stack([place, cuts - np.concatenate([[0], ends])[place]], 1)

    def __len__(self):
        return len(self.shuffle)

    def row(self, k, eod):
        begin = self.shuffle[k] * self.length
        text = self.flat[begin : begin + self.length + 1]
        tokens, labels = text[:-1], text[1:]
        starts = self.begins[begin : begin + self.length].copy()
        starts[0] = True
        mask = np.ones(self.length, int) if eod is None else (tokens != eod).astype(int)
        positions = np.arange(self.length)
        if eod is not None:
            positions = positions - np.maximum.accumulate(np.where(starts, positions, 0))
        return np.concatenate([tokens, labels, mask, positions, starts.astype(int)])


class Blend:
    def __init__(self, datasets, weights, size):
        self.datasets = datasets
        weights = np.array(weights, np.float64) / np.sum(np.array(weights, np.float64))
        counts = np.zeros(len(weights), np.int64)
        self.order = []
        for t in range(size):
            chosen = int(np.argmax(weights * max(float(t), 1.0) - counts))
            self.order.append((chosen, counts[chosen]))
            counts[chosen] += 1
        self.counts = counts

    def __len__(self):
        return len(self.order)

    def row(self, k, eod):
        dataset, sample = self.order[k]
        return self.datasets[dataset].row(sample, eod)


def build(words, split, wanted, length, seed):
    weights = None
    if len(words) % 2 == 0:
        try:
            weights = [float(w) for w in words[::2]]
            words = words[1::2]
        except ValueError:
            pass
    sources = [read_indexed(w) for w in words]
    ranges = [split_ranges(split, len(s)) for s in sources]
    result = []
    for i in range(3):
        if wanted[i] == 0 or ranges[0][i] is None:
            result.append(None)
        elif weights is not None:
            w = np.array(weights, np.float64)
            w = (w / np.sum(w)).tolist()
            targets = [math.ceil(wanted[i] * x) for x in w]
            datasets = [
                Gpt(s, r[i], length, math.ceil(t * 1.005), seed)
                for s, r, t in zip(sources, ranges, targets)
            ]
            result.append(Blend(datasets, w, sum(targets)))
        elif len(sources) == 1:
            result.append(Gpt(sources[0], ranges[0][i], length, wanted[i], seed))
        else:
            datasets = [Gpt(s, r[i], length, None, seed) for s, r in zip(sources, ranges)]
            sizes = [len(d) for d in datasets]
            blend = Blend(datasets, sizes, wanted[i])
            if wanted[i] > sum(sizes):  # where Megatron gives up, data begins again
                blend.datasets = [
                    Gpt(s, r[i], length, int(n), seed)
                    for s, r, n in zip(sources, ranges, blend.counts)
                ]
            result.append(blend)
    return result


def compare_gpt(folder, name, words, split, wanted, length, seed=1234, eod=None):
    out = folder / name
    out.mkdir()
    tool("gpt", out, split, length, seed, *wanted, "none" if eod is None else eod, *words)
    kinds = []
    expected = build([str(w) for w in words], split, wanted, length, seed)
    for kind, dataset in zip(("train", "valid", "test"), expected):
        path = out / f"{kind}.npy"
        assert path.exists() == (dataset is not None), (name, kind)
        if dataset is None:
            continue
        found = np.load(path)
        assert len(found) == len(dataset) >= 1, (name, kind, len(found), len(dataset))
        for k in range(len(dataset)):
            np.testing.assert_array_equal(found[k], dataset.row(k, eod), f"{name} {kind} {k}")
        if isinstance(dataset, Gpt):
            kinds.append((dataset.epochs > 1, dataset.separate))
    # The index files themselves, of the first dataset that is no blend.
    if isinstance(expected[0], Gpt) and expected[1] is None and expected[2] is None:
        (stem,) = {str(p)[: -len("-description.json")] for p in out.glob("cache/*.json")}
        for part in ("document", "shuffle", "sample"):
            wanted_array = getattr(expected[0], part + ("" if part == "shuffle" else "s"))
            np.testing.assert_array_equal(np.load(f"{stem}-{part}_index.npy"), wanted_array, part)
        # A second run maps the cache.
        first = (out / "train.npy").read_bytes()
        tool("gpt", out, split, length, seed, *wanted, "none" if eod is None else eod, *words)
        assert (out / "train.npy").read_bytes() == first
    return kinds


def check_datasets(folder):
    random = np.random.RandomState(5)
    prefixes = []
    for i, code in enumerate((4, 8, 5, 1, 8, 4, 8, 8, 4)):
        lengths = random.randint(1, 90, 40 + 13 * i)
        rows = [np.append(random.randint(1, 200, n - 1), 0) for n in lengths]  # 0 ends a document
        prefixes.append(folder / f"set{i}")
        write_indexed(prefixes[-1], rows, code)
    a, b, c = prefixes[:3]
    kinds = set()
    for case, (words, split, wanted, length, *rest) in {
        "one_epoch": ([a], "1", (20, 0, 0), 64),
        "short_last_epoch": ([a], "1", (80, 0, 0), 64),
        "many_epochs": ([a], "100,0,0", (300, 0, 0), 64),
        "splits": ([b], "80,15,5", (200, 20, 5), 16),
        "odd_splits": ([b], "949,50,1", (100, 9, 0), 16),
        "half_splits": ([b], "1,1", (50, 50, 0), 16),  # 26.5 sequences each
        "only_test": ([b], "0, 0, 1", (9, 9, 9), 16),
        "eod": ([c], "9,1", (300, 30, 0), 32, 7, 0),
        "weights": ([0.3, a, 0.7, b], "9,1,0", (150, 20, 0), 32),
        "nine": (
            [x for i, p in enumerate(prefixes) for x in (0.1 + 0.07 * i, p)],
            "8,2",
            (500, 300, 0),
            24,
        ),
        "one_weight": ([1.5, a], "1", (150, 0, 0), 32, 99),
        "by_size": ([a, b, c], "9,1", (150, 12, 0), 32),
        "by_size_again": ([a, b, c], "9,1", (1000, 12, 0), 32),
    }.items():
        kinds.update(compare_gpt(folder, case, words, split, wanted, length, *rest))
    # Sizes around the 80 % rule, several epochs.
    for wanted in range(50, 120, 3):
        kinds.update(compare_gpt(folder, f"rule{wanted}", [a], "1", (wanted, 0, 0), 48))
    # Shares around whole epochs, where the surplus decides.
    for wanted in range(100, 400, 20):
        words = [0.3, a, 0.7, b]
        compare_gpt(folder, f"surplus{wanted}", words, "1", (wanted, 0, 0), 48)
    assert {(False, False), (True, False), (True, True)} <= kinds, kinds
    web = SAMPLES / "megatron/meg-gpt2-openwebtext_text_document"
    if SAMPLES.exists():
        compare_gpt(folder, "web", [web], "949,50,1", (3000, 40, 2), 1024, 1234, 0)


def check_shuffle(folder):
    for seed, count in ((0, 10), (1234, 1_000_003), (2**32 - 1, 65537), (42, 1), (7, 2)):
        expected = np.arange(count)
        np.random.RandomState(seed).shuffle(expected)
        tool("shuffle", seed, count, folder / "shuffle.npy")
        np.testing.assert_array_equal(np.load(folder / "shuffle.npy"), expected)


# --- safetensors ----------------------------------------------------------------------------------


def check_safetensors(folder):
    torch.manual_seed(1)
    types = """bool uint8 int8 int16 uint16 float16 bfloat16 int32 uint32 float32 float64 int64 uint64
        complex64 float8_e5m2 float8_e4m3fn float8_e5m2fnuz float8_e4m3fnuz float8_e8m0fnu""".split()
    tensors = {}
    for i, name in enumerate(types):
        raw = torch.randint(0, 2, (3, 5, 16), dtype=torch.uint8)
        tensors[f"layers.{i}.{name}"] = raw.view(getattr(torch, name))
        tensors[f"b.{name}"] = raw[0, 0].clone().view(getattr(torch, name))
    tensors["scalar"] = torch.tensor(3.5)
    tensors["empty"] = torch.zeros(0, 7)
    tensors['odd "name"\\ \t\n\x01 \u00e9\u4e2d\U0001f600'] = torch.arange(3.0)
    for case, content in {
        "all": tensors,
        "none": {},
        "one": {"x": torch.ones(1)},
        "odd": {"b": torch.ones(3, dtype=torch.int8), "a": torch.ones(5, dtype=torch.bool)},
    }.items():
        theirs, ours = folder / f"{case}.theirs", folder / f"{case}.ours"
        safetensors.torch.save_file(content, theirs, metadata={"format": "pt"})
        tool("safetensors", theirs, ours)
        assert theirs.read_bytes() == ours.read_bytes(), case
        loaded = safetensors.torch.load_file(ours)
        assert loaded.keys() == content.keys()
        for name, tensor in content.items():
            assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape, name
            same = loaded[name].contiguous().view(-1).view(torch.uint8)
            assert torch.equal(same, tensor.contiguous().view(-1).view(torch.uint8)), name
    safetensors.torch.save_file(tensors, folder / "plain.theirs")  # without metadata
    tool("safetensors", folder / "plain.theirs", folder / "plain.ours")
    assert (folder / "plain.theirs").read_bytes() == (folder / "plain.ours").read_bytes()


def damaged_header(random, header):
    """Changes a field or two of a sound header, then perhaps a byte."""
    header = {k: dict(v) for k, v in header.items()}
    tensors = [k for k in header if k != "__metadata__"]
    numbers = [0, 1, 2, 3, 4, 6, 8, 16, 24, 2**32, 2**62, 2**63, 2**64 - 1, 2**64, -1, 1.5]
    for _ in range(random.randint(0, 3)):
        name = tensors[random.randint(len(tensors))]
        field = ("dtype", "shape", "data_offsets", "other", "meta", "drop")[random.randint(6)]
        number = numbers[random.randint(len(numbers))]
        if field == "dtype":
            header[name][field] = ("F32", "U8", "BF16", "F4", "F6_E2M3", "f32", 3)[random.randint(7)]
        elif field == "meta":
            header["__metadata__"] = ({}, {"a": "b"}, {"a": 1}, [], None)[random.randint(5)] or {}
        elif field == "drop":
            header[name].pop(("dtype", "shape", "data_offsets")[random.randint(3)], None)
        elif field == "other":
            header[name]["extra"] = number
        elif field in header[name]:
            values = list(header[name][field])
            values.insert(random.randint(len(values) + 1), number)
            if random.randint(2):
                values.pop(random.randint(len(values)))
            header[name][field] = values
    text = bytearray(json.dumps(header).encode() + b" " * random.randint(3))
    if random.randint(3) == 0:
        text[random.randint(len(text))] = random.randint(256)
    if random.randint(20) == 0:  # a key twice
        text = text.replace(b'"shape": [', b'"shape": [1], "shape": [', 1)
    return bytes(text)


def check_verdicts(folder):
    """Accepts and refuses damaged headers as the library does."""
    random = np.random.RandomState(11)
    (folder / "verdicts").mkdir()
    sound = {
        "__metadata__": {"format": "pt"},
        "x": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
        "y": {"dtype": "U8", "shape": [8], "data_offsets": [8, 16]},
        "z": {"dtype": "F4", "shape": [4, 4], "data_offsets": [16, 24]},
        "e": {"dtype": "BF16", "shape": [0, 3], "data_offsets": [24, 24]},
    }
    expected = []
    for i in range(3000):
        header = damaged_header(random, sound)
        data = struct.pack("<Q", len(header)) + header + bytes(24 if random.randint(9) else 23)
        (folder / "verdicts" / str(i)).write_bytes(data)
        try:
            safetensors.deserialize(data)
            expected.append(1)
        except safetensors.SafetensorError:
            expected.append(0)
    tool("verdicts", folder / "verdicts", folder / "verdicts.npy")
    found = np.load(folder / "verdicts.npy")
    assert 200 < sum(expected) < 2800, sum(expected)
    for i in np.nonzero(found != np.array(expected))[0]:
        # Ours refuses integers of 2^63 and more even in places where they do no harm: beside a
        # dimension of 0, or under an unknown key.
        content = (folder / "verdicts" / str(i)).read_bytes()
        huge = any(str(n).encode() in content for n in (2**63, 2**64 - 1, 2**64))
        assert expected[i] == 1 and huge, content


# --- JSON lines -----------------------------------------------------------------------------------


def random_json(random, depth=0):
    draw = random.randint(9 if depth < 3 else 7)
    if draw < 2:
        return '"' + "".join(random.choice(list('aé😀 ,:{}[]') + ['\\\\', '\\"', '\\n', '\\u00e9', "NaN"])
                             for _ in range(random.randint(5))) + '"'
    if draw == 2:
        return str(random.choice(["true", "false", "null"]))
    if draw == 3:
        return str(random.choice(["NaN", "Infinity", "-Infinity", "1e400", "-1e-400", "9" * 30,
                                  "-18446744073709551616", "0." + "1" * 400]))
    if draw < 7:
        return str(random.choice(["0", "-0", "12", "-1.5e+3", "1E5", "0.25"]))
    items = [random_json(random, depth + 1) for _ in range(random.randint(4))]
    if draw == 7:
        return "[" + ", ".join(items) + "]"
    return "{" + ", ".join(f'"{random.choice(["a", "text", "b"])}": {item}' for item in items) + "}"


def random_line(random):
    """An object with a text or several, of which one line in three is damaged."""
    fields = [f'"n": {random_json(random)}', f'"text": "t{random.randint(100)}"',
              f'"text": {random_json(random)}', f'"te\\u0078t": "e{random.randint(100)}"']
    random.shuffle(fields)
    line = "{" + ", ".join(fields[:random.randint(1, 5)]) + "}"
    if random.randint(3) == 0:
        place = random.randint(len(line) + 1)
        line = line[:place] + str(random.choice(list('0.-eE+N"{}[],: x') + ["NaN", "01", "nan"])) + line[
            place + random.randint(2):]
    return line


def check_json_lines(folder):
    """Takes the lines that Python's json takes, and their texts; the other lines are bad."""
    random = np.random.RandomState(13)
    lines = [random_line(random) for _ in range(20000)]
    expected = []
    for line in lines:
        try:
            value = json.loads(line)
            if isinstance(value, dict) and isinstance(value.get("text"), str):
                expected.append(value["text"])
        except json.JSONDecodeError:
            pass
    assert 5000 < len(expected) < 15000, len(expected)
    (folder / "lines.jsonl").write_text("\n".join(lines), encoding="utf-8")
    tool("lines", folder / "lines.jsonl", folder / "lines")
    found = [bytes(map(int, tokens)).decode() for tokens in read_indexed(folder / "lines_text_document")]
    assert found == [text for text in expected if text], [
        pair for pair in zip(found, [text for text in expected if text]) if pair[0] != pair[1]][:3]


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        check_shuffle(folder)
        check_safetensors(folder)
        check_verdicts(folder)
        check_datasets(folder)
        check_json_lines(folder)
    print("data oracle: equal")


main()
