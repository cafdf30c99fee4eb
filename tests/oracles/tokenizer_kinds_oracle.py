#!/usr/bin/env python3
"""Compares Moetron's tokenizer with the `tokenizers` library over all that a tokenizer.json may say.

    tokenizer_kinds_oracle.py TOKENIZER_TOOL [--long]

Small vocabularies of BPE over bytes and over characters are trained here; each case changes a part: normalizers,
pre-tokenizers with every behaviour, what is unknown, post-processors, decoders. Random and hostile texts are encoded with
and without special tokens and decoded with both, and random ids. Then patterns, written by hand and at random, and every
property of Unicode on the characters at the ends of its ranges. Exits with 1 on any difference; --long tries more texts.
"""
import os

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import json
import pathlib
import random
import re
import sys
import tempfile
import unicodedata

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import tokenizer_oracle as base  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers  # noqa: E402
from tokenizers import pre_tokenizers, processors, trainers  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import make_unicode_tables as tables  # noqa: E402

MARK = "\u2581"
BEHAVIORS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
CASED = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# Those that are matched by hand-written code and that tokenizer_oracle.py has no file of.
KNOWN = {
    "gpt4o": CASED,
    "tekken": CASED.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "").replace("{1,3}", ""),
    "kimi": r"[\p{Han}]+|" + CASED.replace("\\p{M}]", "\\p{M}&&[^\\p{Han}]]").replace("/]*", "]*"),
    "qwen35": (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
               r"|\s*[\r\n]+|\s+(?!\S)|\s+"),
}
TEXT = [(ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")] + [
    "专家模型训练，文件的打开。かなカナ한국어 Čeština Ελληνικά naïve café 2024 ½ x² …" * 20]


def byte_model():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(
        vocab_size=600, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return json.loads(tokenizer.to_str())["model"]


def char_model(size=900, **options):
    """Llama-2's kind: over characters, a mark for spaces, the tokens of bytes."""
    tokenizer = Tokenizer(models.BPE(**options))
    if "end_of_word_suffix" in options:
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    elif "continuing_subword_prefix" in options:
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(
        vocab_size=size, show_progress=False, special_tokens=["<unk>", "<s>", "</s>"] + BYTES,
        limit_alphabet=90, **options))
    return json.loads(tokenizer.to_str())["model"]


def fallback_model(model):
    return dict(model, byte_fallback=True, unk_token="<unk>")


def cases():
    """(name, model, what is set of the tokenizer, added tokens)"""
    of_bytes, of_chars = byte_model(), char_model()
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    byte_parts = dict(pre_tokenizer=level, decoder=decoders.ByteLevel())
    for name, normalizer in (
            ("nfd", normalizers.NFD()), ("nfkc", normalizers.NFKC()), ("nfkd", normalizers.NFKD()),
            ("lowercase", normalizers.Lowercase()), ("strip", normalizers.Strip()),
            ("strip left", normalizers.Strip(right=False)), ("strip right", normalizers.Strip(left=False)),
            ("replace", normalizers.Replace("a", "bab")), ("replace by nothing", normalizers.Replace(Regex(r"\s+|^x"), "")),
            ("prepend", normalizers.Prepend("pre ")), ("bytes", normalizers.ByteLevel()),
            ("sequence", normalizers.Sequence([
                normalizers.Replace(Regex(" {2,}"), MARK), normalizers.NFKC(), normalizers.Lowercase(),
                normalizers.Strip(), normalizers.Prepend(" ")]))):
        parts = dict(byte_parts, normalizer=normalizer)
        if name == "bytes":
            parts["pre_tokenizer"] = None
        yield name, of_bytes, parts, {}
    for behavior in BEHAVIORS:
        for inverted in (False, True):
            yield f"split {behavior} {inverted}", of_bytes, dict(byte_parts, pre_tokenizer=pre_tokenizers.Sequence([
                pre_tokenizers.Split(Regex(r"\s|\d+"), behavior, inverted), plain])), {}
        yield f"split text {behavior}", of_bytes, dict(byte_parts, pre_tokenizer=pre_tokenizers.Sequence([
            pre_tokenizers.Split("e", behavior), plain])), {}
        yield f"punctuation {behavior}", of_bytes, dict(byte_parts, pre_tokenizer=pre_tokenizers.Sequence([
            pre_tokenizers.Punctuation(behavior), plain])), {}
    for name, stages in (
            ("whitespace", [pre_tokenizers.Whitespace()]), ("whitespace split", [pre_tokenizers.WhitespaceSplit()]),
            ("bert", [pre_tokenizers.BertPreTokenizer()]), ("delimiter", [pre_tokenizers.CharDelimiterSplit("e")]),
            ("digits", [pre_tokenizers.Digits(False)]), ("single digits", [pre_tokenizers.Digits(True)]),
            ("fixed length", [pre_tokenizers.FixedLength(3)]),
            ("metaspace first", [pre_tokenizers.Metaspace(prepend_scheme="first")]),
            ("empty pattern", [pre_tokenizers.Split("", "isolated")])):
        yield name, of_bytes, dict(byte_parts, pre_tokenizer=pre_tokenizers.Sequence(stages + [plain])), {}
    for name, pattern in KNOWN.items():
        yield name, of_bytes, dict(byte_parts, pre_tokenizer=pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(pattern), "isolated"), plain])), {}
    yield "gpt4o without gaps", of_bytes, dict(byte_parts, pre_tokenizer=pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(CASED), "removed", True), plain])), {}
    yield "bloom", of_bytes, dict(byte_parts, pre_tokenizer=pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r" ?[^(\s|[.,!?…。，、।۔،])]+"), "isolated"), plain])), {}
    yield "gemma", dict(fallback_model(of_chars), fuse_unk=True), dict(
        normalizer=normalizers.Replace(" ", MARK), pre_tokenizer=pre_tokenizers.Split(" ", "merged_with_previous"),
        decoder=decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()])), {}
    # Falcon's: what follows ByteLevel sees its alphabet.
    yield "falcon", of_bytes, dict(byte_parts, pre_tokenizer=pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("contiguous"), level, pre_tokenizers.Digits(False),
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")])), {}
    yield "bytes, unknown and fallback", dict(of_bytes, unk_token="a", byte_fallback=True), byte_parts, {}
    llama2 = dict(normalizer=normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)]),
                  decoder=decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(),
                                             decoders.Strip(" ", 1, 0)]))
    ends = [("<s>", of_chars["vocab"]["<s>"]), ("</s>", of_chars["vocab"]["</s>"])]
    fallback = fallback_model(of_chars)
    without = {k: v for k, v in of_chars["vocab"].items() if k not in BYTES[0xe0:0xf0]}
    for name, model in (("", dict(fallback, fuse_unk=True)), ("no fusing ", fallback),
                        ("whole words ", dict(fallback, ignore_merges=True)),
                        ("no fallback ", dict(of_chars, unk_token="<unk>", fuse_unk=True)),
                        ("lone unknown ", dict(of_chars, unk_token="<unk>")), ("nothing unknown ", of_chars),
                        ("some bytes ", dict(fallback, fuse_unk=True, vocab=without)),
                        ("some bytes, no fusing ", dict(fallback, vocab=without))):
        yield name + "llama2", model, dict(llama2, post_processor=processors.TemplateProcessing(
            single="<s> $A", special_tokens=ends)), {}
    for scheme in ("always", "first", "never"):
        for splits in (True, False):
            yield f"metaspace {scheme} {splits}", dict(fallback, fuse_unk=True), dict(
                pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme=scheme, split=splits),
                decoder=decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme)])), {}
    yield "metaspace behind strip", fallback, dict(
        normalizer=normalizers.Sequence([normalizers.Strip(), normalizers.Replace(Regex("^a+"), "")]),
        pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first"), decoder=decoders.Metaspace()), {}
    yield "no decoder", fallback, dict(llama2, decoder=None), {}
    yield "strip decoder", fallback, dict(llama2, decoder=decoders.Sequence([
        decoders.Replace(Regex("[" + MARK + "e]"), " "), decoders.Strip(" ", 2, 0)])), {}
    roberta = processors.RobertaProcessing(("</s>", ends[1][1]), ("<s>", ends[0][1]))
    bert = processors.BertProcessing(("</s>", ends[1][1]), ("<s>", ends[0][1]))
    template = processors.TemplateProcessing(single="</s> <s> $A <s>", special_tokens=ends)
    for name, processor in (("roberta", roberta), ("bert", bert), ("template", template),
                            ("processors", processors.Sequence([processors.ByteLevel(), roberta]))):
        yield name, fallback, dict(llama2, post_processor=processor), {}
    of_ends = dict(char_model(end_of_word_suffix="</w>"), unk_token="<unk>")
    yield "suffix", of_ends, dict(pre_tokenizer=pre_tokenizers.Whitespace(),
                                               decoder=decoders.BPEDecoder()), {}
    yield "suffix, fallback", dict(of_ends, byte_fallback=True), dict(
        pre_tokenizer=pre_tokenizers.Whitespace(), normalizer=normalizers.Lowercase(),
        decoder=decoders.BPEDecoder()), {}
    yield "prefix", dict(char_model(continuing_subword_prefix="##"), unk_token="<unk>"), dict(pre_tokenizer=pre_tokenizers.WhitespaceSplit(),
                                               decoder=decoders.Fuse()), {}
    flags = [AddedToken("<mask>", lstrip=True, rstrip=True, normalized=False), AddedToken("word", single_word=True),
             AddedToken("Norm", normalized=True), AddedToken("</s>", special=True, normalized=False),
             AddedToken("<ma", normalized=False, special=True), AddedToken("e\u0301", normalized=True, special=True)]
    yield "added, llama2", fallback, llama2, dict(tokens=flags)
    yield "added, lowercase", of_bytes, dict(byte_parts, normalizer=normalizers.Sequence([
        normalizers.NFKC(), normalizers.Lowercase()])), dict(tokens=flags)
    yield "added, first", fallback, dict(pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first", split=False),
                                         decoder=decoders.Metaspace()), dict(tokens=flags)


def build(model, parts, added):
    tokenizer = Tokenizer.from_str(json.dumps(dict(version="1.0", added_tokens=[], model=model)))
    for name, value in parts.items():
        if value is not None:
            setattr(tokenizer, name, value)
    if added:
        tokenizer.add_tokens(added["tokens"])
    return tokenizer


def random_texts(count, added):
    texts = base.random_texts(added, count)
    draw = random.Random(22)
    kinds = [MARK, " ", "  ", "a", "the", " a", "\t", "e", "word", "Norm", "<mask>", "</s>", "<0x41>", "\u00e9", "e\u0301",
             "\u1e9e", "\u0130", "\u03a3", "\ufb01", "\u3300", "1", "23", "-", "!", "\u4e2d", "\U00020000", "\U0001f600",
             "\u00b2", "\u00bd", "\u0660", "\x1f", "\u200d", "\u2028", "\U00016ea0", "\U00011de3", "x", "\n"]
    for _ in range(count):
        texts.append("".join(draw.choice(kinds) for _ in range(draw.randrange(1, 16))).encode())
    return texts


def check(tool, name, tokenizer, texts, path):
    tokenizer.save(path)
    strings = [text.decode("utf-8", errors="replace") for text in texts]
    ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(strings, add_special_tokens=False)]
    ours, _ = base.run_tool(tool, path, "encode", texts, 1)
    same = base.compare(name, "encoding", texts, ours, [base.pack(i) for i in ids])
    ours, _ = base.run_tool(tool, path, "encode_special", texts[::4], 1)
    same &= base.compare(name, "encoding with special tokens", texts[::4], ours,
                         [base.pack(e.ids) for e in tokenizer.encode_batch_fast(strings[::4])])
    draw = random.Random(23)
    size = tokenizer.get_vocab_size()
    ids += [[draw.randrange(size + 3) for _ in range(draw.randrange(1, 12))] for _ in range(len(ids) // 4)]
    # Of no tokens at all the library's decoders make nothing, or fail.
    ids = [i for i in ids if any(tokenizer.id_to_token(t) is not None for t in i)]
    for mode, skips in (("decode", False), ("decode_skip", True)):
        given = ids if not skips else [i for i in ids if tokenizer.decode(i) and not all(
            t in special_ids(tokenizer) for t in i)]
        ours, _ = base.run_tool(tool, path, mode, [base.pack(i) for i in given], 4)
        same &= base.compare(name, mode, [str(i) for i in given], ours,
                             [text.encode() for text in tokenizer.decode_batch(given, skip_special_tokens=skips)])
    return same


def special_ids(tokenizer):
    return [i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special]


PATTERNS = [
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    r"[\p{Han}&&[^\p{Lo}]]+|[\p{L}&&[^\p{Han}]]+", r"[^\p{Han}\s]+", r"(?i)k's|\bthe\b|[a-f]+", r"a(?i)b|c", r"(?m:.)x?",
    r".+?e|\Ba\B", r"^\s*$|^.", r"\A.|.\z|.\Z", r"(?<=[aeiou])\w(?!\w)", r"(?<![0-9])[0-9]{2,}?", r"(?<n>a|b)+c?",
    r"[[:word:]&&[^_]]+", r"[[:^space:]]+", r"\h+|\H", r"[\x{61}-\u0066]+|\x41", r"a{,2}b|{x}|a{2}+", r"[-a]|[a-]|[\w-]+",
    r"(?:a|ab)(?:c|bcd)*+|(?>a+)b?", r"(?i:\p{^L}'s)", r"[^\S\n]+|\P{L}", r"\p{letter}+|\p{Number}|\p{Word}",
    r"x*", r"(?#comment)a|\/|\-|\#", r"[\]\[\^\\&]+|&&", r"(?-i:A)(?i-m:B)", r"\d{3}(?=(?:\d{3})*\b)|\D",
]


def random_pattern(draw, depth=2):
    atoms = [r"a", r"b", r"\s", r"\w", r"\d", r"\p{L}", r"\p{Lu}", r"\p{Han}", r"[a-c]", r"[^\s\d]", r"[\p{N}x]", r".", r"é",
             r"[é-中]", r" ", r"'", r"\p{M}", r"(?i:s)", r"[[a-f]&&[^b]]", r"\S", r"\W", r"\n", r"(?i:[k-m])"]
    parts = []
    for _ in range(draw.randrange(1, 4)):
        atom = draw.choice(atoms)
        if depth and draw.random() < 0.4:
            group = random_pattern(draw, depth - 1)
            atom = draw.choice(["(?:%s)", "(%s)", "(?=%s)a?", "(?!%s)\\w", "(?>%s)", "(?i:%s)"]) % group
            if atom.startswith(("(?=", "(?!")):
                parts.append(atom)
                continue
        parts.append(atom + draw.choice(["", "", "", "?", "*", "+", "+?", "?+", "++", "{2}", "{1,2}", "{1,3}?", "{2}+"]))
    pattern = "".join(parts)
    if draw.random() < 0.3:
        pattern += "|" + random_pattern(draw, 0)
    return pattern


def check_patterns(tool, texts, folder, num_random):
    """Matches are cut out, so that the ids show where they are."""
    draw = random.Random(24)
    texts = texts[::2]
    patterns = PATTERNS + [random_pattern(draw) for _ in range(num_random)]
    model = dict(byte_model(), merges=[])
    model["vocab"] = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    same, refused = True, 0
    for number, pattern in enumerate(patterns):
        tokenizer = build(model, dict(pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(pattern), "removed"), byte_level()])), {})
        path = f"{folder}/pattern.json"
        tokenizer.save(path)
        strings = [text.decode("utf-8", errors="replace") for text in texts]
        try:
            ours, _ = base.run_tool(tool, path, "encode", texts, 1)
        except SystemExit as error:
            if number < len(PATTERNS) or not any(text in str(error) for text in ("is not supported", "limit exceeded")):
                print(error)
                same = False
            refused += 1
            continue
        theirs = [base.pack(e.ids) for e in tokenizer.encode_batch_fast(strings, add_special_tokens=False)]
        same &= base.compare(pattern, "pattern", texts, ours, theirs)
    print(f"{len(patterns)} patterns, {refused} of those at random refused")
    return same and refused <= num_random // 3


def byte_level():
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def check_properties(tool, folder):
    """Each property takes out its characters: of all that begin or end a stretch of a category or script, and more."""
    draw = random.Random(25)
    edges = {draw.randrange(0x110000) for _ in range(5000)} | {draw.randrange(0x32000) for _ in range(5000)}
    for name, bits in (("categories", 5), ("scripts", 8)):
        written = (ROOT / f"moetron/tokenizer/unicode_{name}.cpp").read_text()
        runs = [int(n) >> bits for n in re.findall(r"\d+", written[written.rindex("Runs{"):]) if int(n) < 0x110000 << bits]
        edges.update(c for first in runs for c in (first - 1, first))
    edges.update(c for c in range(1, 0x110000) if unicodedata.category(chr(c)) != unicodedata.category(chr(c - 1)))
    edges -= {-1, *range(0xd800, 0xe000)}
    text = "".join(map(chr, sorted(edges))).encode()
    names = [n for n in tables.CATEGORIES if n != "Cs"] + ["L", "M", "N", "P", "S", "Z", "C"] + tables.SCRIPTS[::4]
    vocab = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    same = True
    for name in names + ["w", "s", "d", "h"]:
        pattern = rf"\p{{{name}}}" if name not in "wsdh" else "\\" + name
        tokenizer = build(dict(type="BPE", vocab=vocab, merges=[]), dict(pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(pattern), "removed"), byte_level()])), {})
        tokenizer.save(f"{folder}/property.json")
        ours, _ = base.run_tool(tool, f"{folder}/property.json", "encode", [text], 1)
        theirs = [base.pack(tokenizer.encode(text.decode(), add_special_tokens=False).ids)]
        same &= base.compare(pattern, "property", [text], ours, theirs)
    print(f"{len(names)} properties on {len(edges)} characters")
    return same


def main():
    tool, is_long = os.path.abspath(sys.argv[1]), sys.argv[2:] == ["--long"]
    all_same, count = True, 0
    with tempfile.TemporaryDirectory() as folder:
        texts = random_texts(4000 if is_long else 300, ["<mask>", "word", "Norm", "e\u0301"])
        for name, model, parts, added in cases():
            all_same &= check(tool, name, build(model, parts, added), texts, f"{folder}/tokenizer.json")
            count += 1
        print(f"{count} tokenizers, {len(texts)} texts each")
        all_same &= check_patterns(tool, texts, folder, 1000 if is_long else 60)
        all_same &= check_properties(tool, folder)
    sys.exit(0 if all_same else 1)


if __name__ == "__main__":
    main()
