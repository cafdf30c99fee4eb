"""Compares Moetron's tokenizer with AutoTokenizer: what the files beside a tokenizer.json say.

Tokens that only tokenizer_config.json, special_tokens_map.json or added_tokens.json name, their
flags, beginning and end tokens, and who puts them around a text. For each folder: ids of texts with
and without special tokens, the number of tokens, and the tokens that begin and end a text; or
Moetron refuses the folder. Usage: auto_tokenizer_oracle.py TOKENIZER_TOOL
"""
import json
import os
import struct
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers  # noqa: E402
from tokenizers import pre_tokenizers, processors, trainers  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402
from transformers.utils import logging  # noqa: E402

TEXTS = ["hello world", "hello <|think|> world", " <|think|>x<|image|>  <|endoftext|>hello", "<|begin|>a",
         "<|end|> e\u0301<|cafe\u0301|> <|think|>", ""]
FLAGS = dict(lstrip=False, rstrip=False, single_word=False, normalized=False, special=True)
THINK = dict(FLAGS, content="<|think|>")


def make_file(folder, template=None, normalizer=None):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(
        ["hello world think begin end"] * 9,
        trainers.BpeTrainer(vocab_size=290, show_progress=False,
                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False),
                                  AddedToken("<|begin|>", special=True, normalized=False)])
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(t, tokenizer.token_to_id(t))
                                             for t in ("<|begin|>", "<|endoftext|>")])
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    return tokenizer.get_vocab_size()


def folders(size):
    """(name, tokenizer_config.json, other files, arguments of make_file); size: the next id"""
    end = dict(eos_token="<|endoftext|>")
    yield "plain", end, {}, {}
    for key in ("additional_special_tokens", "extra_special_tokens"):
        yield key, dict(end, **{key: ["<|think|>", "hello", "<|endoftext|>"]}), {}, {}
        yield key + " objects", dict(end, **{key: [dict(THINK, __type="AddedToken", lstrip=True)]}), {}, {}
        yield key + " null", dict(end, **{key: None}), {}, {}
    yield "both lists", dict(end, extra_special_tokens=["<|think|>"],
                             additional_special_tokens=["<|image|>"]), {}, {}
    yield "empty and full list", dict(end, extra_special_tokens=[],
                                      additional_special_tokens=["<|image|>"]), {}, {}
    yield "extra object", dict(end, extra_special_tokens=dict(image_token="<|image|>")), {}, {}
    yield "own name", dict(end, image_token="<|image|>", pad_token="<|think|>"), {}, {}
    for key in ("pad_token", "unk_token", "mask_token", "eos_token", "bos_token"):
        yield key, {**end, key: "<|think|>"}, {}, {}
        yield key + " null", {**end, key: None}, {}, {}
        yield key + " object", {**end, key: dict(THINK, __type="AddedToken", special=False)}, {}, {}
        yield key + " known", {**end, key: "hello"}, {}, {}
    for flag in ("lstrip", "rstrip", "single_word", "normalized"):
        token = dict(THINK, **{flag: True})
        yield "decoder " + flag, dict(end, added_tokens_decoder={str(size): token}), {}, {}
        known = dict(token, content="<|endoftext|>")
        yield "decoder known " + flag, dict(end, added_tokens_decoder={str(size - 2): known}), {}, {}
    yield "decoder not special", dict(
        end, added_tokens_decoder={str(size): dict(THINK, special=False)}), {}, {}
    yield "decoder two", dict(end, added_tokens_decoder={
        str(size + 1): THINK, str(size): dict(THINK, content="<|image|>")}, pad_token="<|end|>"), {}, {}
    yield "decoder other id", dict(end, added_tokens_decoder={"700": THINK}), {}, {}
    yield "decoder named", dict(end, pad_token="<|think|>", added_tokens_decoder={
        str(size): dict(THINK, special=False, normalized=True)}), {}, {}
    yield "nfc", dict(end, extra_special_tokens=["<|cafe\u0301|>"]), {}, dict(
        normalizer=normalizers.NFC())
    old_map = dict(eos_token="<|end|>", pad_token=dict(THINK, lstrip=True))
    old_map["pad_token"].pop("special")
    yield "special_tokens_map", {}, {"special_tokens_map.json": old_map}, {}
    yield "special_tokens_map wins", end, {"special_tokens_map.json": old_map}, {}
    yield "special_tokens_map, list", end, {"special_tokens_map.json": dict(
        additional_special_tokens=["<|think|>"])}, {}
    yield "special_tokens_map beside decoder", dict(end, added_tokens_decoder={}), {
        "special_tokens_map.json": old_map}, {}
    yield "added_tokens", end, {"added_tokens.json": {"<|think|>": size, "<|endoftext|>": size - 2}}, {}
    yield "added_tokens special", dict(end, pad_token="<|think|>"), {
        "added_tokens.json": {"<|think|>": size}}, {}
    for template in (None, "<|begin|> $A", "<|begin|> $A <|endoftext|>"):
        for begin in ("absent", None, False, True):
            for last in ("absent", True):
                config = dict(end, bos_token="<|begin|>", add_bos_token=begin, add_eos_token=last)
                config = {k: v for k, v in config.items() if v != "absent"}
                yield f"{template}, begin {begin}, end {last}", config, {}, dict(template=template)
    yield "begin without a token", dict(end, add_bos_token=True), {}, {}


def run_tool(tool, folder, mode, texts=()):
    given = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in texts)
    done = subprocess.run([tool, folder, mode], input=given, capture_output=True, check=False)
    if done.returncode == 3:
        return None
    assert done.returncode == 0, done.stderr
    return done.stdout


def unpack(output):
    lists = []
    while output:
        count = struct.unpack_from("<I", output)[0]
        lists.append(list(struct.unpack_from(f"<{count}i", output, 4)))
        output = output[4 + 4 * count:]
    return lists


def check_folder(tool, name, folder):
    """Whether Moetron reads the folder; prints what differs."""
    tokens = run_tool(tool, folder, "tokens")
    if tokens is None:
        return False, 0
    tokenizer = AutoTokenizer.from_pretrained(folder)
    problems = []
    size, begin, end = map(int, tokens.split())
    if size != len(tokenizer):
        problems.append(f"{size} tokens for {len(tokenizer)}")
    if tokenizer.bos_token_id not in (None, begin):
        problems.append(f"begins with {begin}, not {tokenizer.bos_token_id}")
    if tokenizer.eos_token_id not in (None, end):
        problems.append(f"ends with {end}, not {tokenizer.eos_token_id}")
    for mode, special in (("encode", False), ("encode_special", True)):
        ours = unpack(run_tool(tool, folder, mode, TEXTS))
        for text, ids in zip(TEXTS, ours):
            theirs = tokenizer(text, add_special_tokens=special).input_ids
            if ids != theirs:
                problems.append(f"{mode} {text!r}: {ids} for {theirs}")
        # What is printed without special tokens depends on which are special.
        if special:
            packed = b"".join(struct.pack("<I", len(i)) + struct.pack(f"<{len(i)}i", *i) for i in ours)
            done = subprocess.run([tool, folder, "decode_skip"], input=packed, capture_output=True,
                                  check=True).stdout
            for ids in ours:
                length = struct.unpack_from("<I", done)[0]
                text, done = done[4:4 + length].decode(), done[4 + length:]
                theirs = tokenizer.decode(ids, skip_special_tokens=True,
                                          clean_up_tokenization_spaces=False)
                if text != theirs:
                    problems.append(f"decode {ids}: {text!r} for {theirs!r}")
    for problem in problems:
        print(f"{name}: {problem}")
    return True, len(problems)


def main(tool):
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        size = make_file(folder)
    tried = read = failures = 0
    for name, config, files, made in folders(size):
        with tempfile.TemporaryDirectory() as folder:
            make_file(folder, **made)
            files = {"tokenizer_config.json": dict(config, tokenizer_class="PreTrainedTokenizerFast"),
                     **files}
            for file_name, values in files.items():
                with open(os.path.join(folder, file_name), "w") as file:
                    json.dump(values, file)
            was_read, problems = check_folder(tool, name, folder)
            if not was_read and name != "decoder other id":
                print(f"{name}: refused")
                problems = 1
            tried, read, failures = tried + 1, read + was_read, failures + (problems > 0)
    print(f"{tried} folders, {read} read, {failures} differ from AutoTokenizer")
    return failures != 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
