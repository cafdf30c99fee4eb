#!/usr/bin/env python3
"""Trains the demo's tokenizer: a byte-level BPE on the demo's text, in the Hugging Face format.

    demo_tokenizer.py TEXT_FOLDER OUT [VOCABULARY]

Writes OUT/tokenizer.json and OUT/tokenizer_config.json. The text is cut into words the way Qwen's
tokenizers do it; <|endoftext|> is the last id of the vocabulary and ends every document.
"""
import json
import pathlib
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def read_texts(folder):
    for path in sorted(pathlib.Path(folder).glob("*.jsonl")):
        with open(path, encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)["text"]


def train(texts, num_tokens):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=num_tokens - 1, show_progress=False, min_frequency=2,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(END, special=True, normalized=False)])
    return tokenizer


def main():
    texts, out = list(read_texts(sys.argv[1])), pathlib.Path(sys.argv[2])
    num_tokens = int(sys.argv[3]) if len(sys.argv) > 3 else 4096
    tokenizer = train(texts, num_tokens)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": END,
              "clean_up_tokenization_spaces": False}
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    sample = texts[:: max(1, len(texts) // 500)]
    num_bytes = sum(len(text.encode()) for text in sample)
    per_token = num_bytes / sum(len(e.ids) for e in tokenizer.encode_batch(sample))
    print(f"  {out}/tokenizer.json: {tokenizer.get_vocab_size()} tokens, {per_token:.1f} bytes of text a token")


if __name__ == "__main__":
    main()
