#!/usr/bin/env python3
"""Compares encoded conversations with transformers: tokens, prompts, and which tokens are trained.

    chat_encode_oracle.py CHAT_TOOL DATA

Tokens against apply_chat_template(tokenize=True), with users' control tokens as text where
sanitize_control_tokens=True makes them so; masks of templates with {% generation %} blocks against
return_assistant_tokens_mask; masks found by prefixes, of Qwen3's own template, against the mask that
transformers gives for the same template with blocks put in by hand. Exits with 1 on any difference.
"""
import json
import os
import pathlib
import random
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(pathlib.Path(__file__).parent))

from transformers import AutoTokenizer  # noqa: E402

from chat_template_oracle import (LONG, OWN_TEMPLATES, Tool, conversation_files,  # noqa: E402
                                  conversations_of, random_conversation)


def with_blocks(template):
    """Qwen3's template with each assistant turn in a generation block."""
    for old, new in [
            ('{%- elif message.role == "assistant" %}',
             '{%- elif message.role == "assistant" %}{{- \'<|im_start|>\' + message.role + \'\\n\' }}{%- generation %}'),
            ("'<|im_start|>' + message.role + '\\n<think>", "'<think>"),
            ("{{- '<|im_start|>' + message.role + '\\n' + content }}", "{{- content }}"),
            ("{{- '<|im_end|>\\n' }}\n    {%- elif message.role == \"tool\"",
             "{{- '<|im_end|>' }}{%- endgeneration %}{{- '\\n' }}\n    {%- elif message.role == \"tool\"")]:
        assert old in template, old
        template = template.replace(old, new)
    return template


def plain(messages):
    """Messages without what templates of plain chats do not know; assistants say no control tokens."""
    kept = []
    for message in messages:
        if not isinstance(message.get("content"), str) or "tool_calls" in message:
            return None
        content = message["content"]
        if message["role"] == "assistant":
            for token in ("<think>", "</think>", "<|im_end|>", "<tool_response>", "</tool_response>"):
                content = content.replace(token, "")
        kept.append(dict(role=message["role"], content=content or "x"))
    return kept


def samples(data, draw):
    found = []
    for path in conversation_files(data):
        all_of_file = list(conversations_of(path))
        found += draw.sample(all_of_file, min(400 if LONG else 4, len(all_of_file)))
    return found + [random_conversation(draw) for _ in range(3000 if LONG else 60)]


class Comparison:
    def __init__(self, tool, data):
        self.used = None
        self.tool, self.failures, self.counts = tool, [], dict(tokens=0, sanitized=0, masks=0, prefixes=0)
        self.folder = data / "tokenizers"
        self.samples = samples(data, random.Random(3))

    def open(self, name, template=None):
        tokenizer = AutoTokenizer.from_pretrained(self.folder / name)
        if template:
            tokenizer.chat_template = template
        self.use(tokenizer)
        opened = self.tool.ask(tokenizer=str(self.folder / name))
        assert opened == {"ok": True}, opened
        return tokenizer

    def use(self, tokenizer):
        if self.used == (tokenizer, tokenizer.chat_template):
            return
        self.used = (tokenizer, tokenizer.chat_template)
        opened = self.tool.ask(template=tokenizer.chat_template, tokens=tokenizer.special_tokens_map)
        assert opened == {"ok": True}, opened

    def encode(self, messages, tools=None, **settings):
        return self.tool.ask(encode=dict(messages=messages, tools=tools), settings=settings)

    def check(self, kind, got, expected, what):
        self.counts[kind] += 1
        if got != expected:
            self.failures.append(f"{kind}: {json.dumps(what)[:1500]}\n  gave     {str(got)[:1500]}\n  expected {str(expected)[:1500]}")

    def compare_tokens(self, tokenizer):
        for messages, tools in self.samples:
            try:
                expected = tokenizer.apply_chat_template(messages, tools=tools, return_dict=False)
            except Exception:
                continue
            got = self.encode(messages, tools, allow=True)
            # Arguments in the form that the template takes are not what was given.
            if "error" not in got and not any("tool_calls" in message for message in messages):
                self.check("tokens", got["tokens"], expected, messages)
            elif "error" in got:
                self.check("tokens", got, expected, messages)
            kept = plain(messages)
            if kept is None:
                continue
            self.check("sanitized", self.encode(kept, tools).get("tokens"),
                       tokenizer.apply_chat_template(kept, tools=tools, return_dict=False, sanitize_control_tokens=True), kept)
            if kept[-1]["role"] == "assistant" and len(kept) > 1:
                self.check("sanitized", self.encode(kept, tools).get("prompt"),
                           tokenizer.apply_chat_template(kept[:-1], tools=tools, return_dict=False, sanitize_control_tokens=True,
                                                         add_generation_prompt=True), kept)

    def compare_masks(self, tokenizer, kind, template, prefixes=None):
        """Masks of a template with blocks; with `prefixes`, that template without them must give the same."""
        marked = tokenizer.chat_template = template
        for messages, tools in self.samples:
            if not any(message["role"] == "assistant" for message in messages):
                continue
            if not all(isinstance(message.get("content") or "", str) for message in messages):
                continue
            if prefixes and (messages[0]["role"] == "assistant" or "narrator" in [m["role"] for m in messages]):
                continue
            try:
                out = tokenizer.apply_chat_template(messages, tools=tools, return_dict=True, return_assistant_tokens_mask=True)
            except Exception:
                continue
            expected = [out["input_ids"], out["assistant_masks"]]
            if prefixes:
                tokenizer.chat_template = prefixes
            self.use(tokenizer)
            tokenizer.chat_template = marked
            got = self.encode(messages, tools, allow=True)
            if "error" in got:
                self.check(kind, got, expected, messages)
                continue
            if got["tokens"] != expected[0] and any("tool_calls" in message for message in messages):
                continue  # arguments in another form
            self.check(kind, [got["tokens"], [int(w > 0) for w in got["weights"]]], expected, messages)


def main():
    tool = Tool(sys.argv[1])
    comparison = Comparison(tool, pathlib.Path(sys.argv[2]))
    for name in ("deepseek-v3", "qwen3"):
        tokenizer = comparison.open(name)
        comparison.compare_tokens(tokenizer)
        if name == "qwen3":
            own = tokenizer.chat_template
            comparison.compare_masks(tokenizer, "masks", OWN_TEMPLATES["generation"])
            comparison.compare_masks(tokenizer, "masks", with_blocks(own))
            comparison.compare_masks(tokenizer, "prefixes", with_blocks(own), prefixes=own)
    print(comparison.counts, len(comparison.failures), "differences")
    for failure in comparison.failures[:int(os.environ.get("MOETRON_SHOWN", "6"))]:
        print(failure)
    sys.exit(1 if comparison.failures or not all(comparison.counts.values()) else 0)


if __name__ == "__main__":
    main()
