#!/usr/bin/env python3
"""Compares vocabularies of tiktoken and SentencePiece models with the libraries that they are of.

    tokenizer_files_oracle.py TOKENIZER_TOOL

Small ones are trained here, of many settings. Ids of random and hostile texts, and decoding them. What the libraries do
with control tokens in a text is not compared: Moetron finds them there, as transformers does. Exits with 1 on any
difference.
"""
import base64
import io
import json
import os
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import sentencepiece  # noqa: E402
import tiktoken  # noqa: E402
import tokenizer_kinds_oracle as kinds  # noqa: E402
import tokenizer_oracle as base  # noqa: E402

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# What the file's name stands for: the pattern, whether text is NFC, the special tokens.
TIKTOKEN = {
    "qwen.tiktoken": (base.QWEN, True, {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|extra_204|>": 151850}),
    "cl100k_base.tiktoken": (base.LLAMA3, False, {"<|endoftext|>": 100257, "<|endofprompt|>": 100276}),
    "o200k_base.tiktoken": (kinds.KNOWN["gpt4o"], False, {"<|endoftext|>": 199999}),
    "r50k_base.tiktoken": (GPT2, False, {"<|endoftext|>": 50256}),
    "tiktoken.model": (kinds.KNOWN["kimi"], False, {"<|im_end|>": 163586}),
    "tokenizer.model": (base.LLAMA3, False, {"<|begin_of_text|>": 128000, "<|eot_id|>": 128009}),
}


def check_tiktoken(tool, name, ranks, texts, folder):
    pattern, normalizes, special = TIKTOKEN[name]
    path = pathlib.Path(folder) / name
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
    config = pathlib.Path(folder) / "tokenizer_config.json"
    config.unlink(missing_ok=True)
    if name == "tiktoken.model":
        config.write_text(json.dumps(dict(added_tokens_decoder={
            str(id): dict(content=token, special=True) for token, id in special.items()})))
    encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    strings = [text.decode("utf-8", errors="replace") for text in texts]
    if normalizes:
        import unicodedata
        # Marks newer than the tables of this Python or of Unicode 9.0 are left out.
        strings = [text for text in strings if unicodedata.normalize("NFC", text) == text]
    strings += [" ".join(special) + "x".join(special)]
    ids = [encoding.encode(text, allowed_special="all") for text in strings]
    texts = [text.encode() for text in strings]
    ours, _ = base.run_tool(tool, str(path), "encode", texts, 1)
    same = base.compare(name, "encoding", texts, ours, [base.pack(i) for i in ids])
    ours, _ = base.run_tool(tool, str(path), "decode", [base.pack(i) for i in ids], 4)
    same &= base.compare(name, "decoding", texts, ours, texts)
    path.unlink()
    return same


def bytes_of_alphabet():
    """GPT-2's: printable bytes are themselves, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


def train_ranks():
    model = kinds.byte_model()
    level = bytes_of_alphabet()
    merged = sorted(model["vocab"].items(), key=lambda item: item[1])
    return {bytes(level[c] for c in token): id for token, id in merged}


def train_sentencepiece(**options):
    out = io.BytesIO()
    options = dict(dict(model_type="bpe", vocab_size=1000, byte_fallback=True, character_coverage=0.98,
                        normalization_rule_name="identity", remove_extra_whitespaces=False), **options)
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter("\n".join(kinds.TEXT).split("\n")), model_writer=out,
                                             minloglevel=2, hard_vocab_limit=False, **options)
    return out.getvalue()


def check_sentencepiece(tool, name, options, texts, folder):
    model = train_sentencepiece(**options)
    path = pathlib.Path(folder) / "tokenizer.model"
    path.write_bytes(model)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    controls = [processor.id_to_piece(i) for i in range(processor.get_piece_size())
                if processor.is_control(i) or processor.is_unknown(i)]
    strings = [text.decode("utf-8", errors="replace") for text in texts]
    # NUL ends a text there, and U+2581 becomes a space when decoded.
    strings = [s for s in strings if "\0" not in s and not any(control in s for control in controls)]
    texts = [text.encode() for text in strings]
    ids = [processor.encode(text) for text in strings]
    ours, _ = base.run_tool(tool, str(path), "encode", texts, 1)
    same = base.compare(name, "encoding", texts, ours, [base.pack(i) for i in ids])
    if options.get("byte_fallback", True):
        ours, _ = base.run_tool(tool, str(path), "decode", [base.pack(i) for i in ids], 4)
        same &= base.compare(name, "decoding", texts, ours, [processor.decode(i).encode() for i in ids])
    path.unlink()
    return same


SENTENCEPIECE = {
    "llama2": {},
    "no fallback": dict(byte_fallback=False),
    "no prefix": dict(add_dummy_prefix=False),
    "extra spaces": dict(remove_extra_whitespaces=True),
    "user's symbols": dict(user_defined_symbols=["<mask>", "word", "\u2581\u2581", "aa", "e\u0301"]),
    "across words": dict(split_by_whitespace=False, split_by_number=False),
    "digits": dict(split_digits=True, allow_whitespace_only_pieces=True),
}


def main():
    tool, same = os.path.abspath(sys.argv[1]), True
    texts = kinds.random_texts(400, ["<mask>", "word", "e\u0301"])
    with tempfile.TemporaryDirectory() as folder:
        ranks = train_ranks()
        for name in TIKTOKEN:
            same &= check_tiktoken(tool, name, ranks, texts, folder)
        for name, options in SENTENCEPIECE.items():
            same &= check_sentencepiece(tool, name, options, texts, folder)
    print(f"{len(TIKTOKEN)} vocabularies of tiktoken, {len(SENTENCEPIECE)} SentencePiece models, {len(texts)} texts")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
