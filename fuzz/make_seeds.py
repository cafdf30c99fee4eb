#!/usr/bin/env python3
"""Writes small inputs for the programs of this folder, good and bad ones: make_seeds.py OUT."""
import gzip
import io
import json
import pathlib
import struct
import sys
import zipfile

out = pathlib.Path(sys.argv[1])


def seed(program, name, content):
    folder = out / program
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def safetensors(header, data=b"", length=None):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


TWO = {"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},
       "b": {"dtype": "U8", "shape": [], "data_offsets": [8, 9]}}
seed("safetensors", "good", safetensors(TWO, bytes(9)))
seed("safetensors", "cut", safetensors(TWO, bytes(5)))
seed("safetensors", "empty", safetensors({}))
seed("safetensors", "long", safetensors(TWO, bytes(9), 1 << 63))
seed("safetensors", "fp8", safetensors({"w": {"dtype": "F8_E4M3", "shape": [2, 1], "data_offsets": [0, 2]}}, bytes(2)))
seed("index", "good", {"metadata": {"total_size": 1}, "weight_map": {"x": "a"}})
seed("index", "missing", {"metadata": {}, "weight_map": {"x": "a", "y": "b"}})
seed("index", "outside", {"weight_map": {"x": "../a"}})
seed("index", "unicode", b'{"weight_map":{"\\u0000x":"a\\ud83d\\ude00"}}')
MANIFEST = {"version": 1, "block_bytes": 1 << 24, "extra": {"step": 1}, "checksum": "",
            "files": [{"name": "state/x", "size": 3, "xxh3_128": ["00"]}]}
seed("manifest", "good", MANIFEST)
seed("manifest", "itself", {**MANIFEST, "files": [{"name": "manifest.json", "size": 3, "xxh3_128": ["00"]}]})
seed("manifest", "outside", {**MANIFEST, "files": [{"name": "a/../../b", "size": 0, "xxh3_128": []}]})
seed("manifest", "huge", {**MANIFEST, "files": [{"name": "x", "size": (1 << 64) - 1, "xxh3_128": []}]})
STATE = {"step": 3, "consumed_samples": 24, "optimizer_steps": 3, "has_optimizer": True, "options": {"optimizer": {"lr": 1e-3}}}
seed("trainer_state", "good", STATE)
seed("trainer_state", "negative", {**STATE, "step": -1})
seed("trainer_state", "large", {**STATE, "step": 1 << 63})
seed("trainer_state", "deep", b"[" * 100 + b"]" * 100)


def short(text):
    return b"\x8c" + bytes([len(text)]) + text.encode()


# What torch.save writes of {"args": Namespace(n=2), "model": {"w": a tensor of 2 x 2}}.
TENSOR = (b"ctorch._utils\n_rebuild_tensor_v2\n((" + short("storage") + b"ctorch\nBFloat16Storage\n" + short("0") +
          short("cpu") + b"K\x04tQK\x00K\x02K\x02\x86K\x02K\x01\x86\x89ccollections\nOrderedDict\n)RtR")
PICKLE = (b"\x80\x02}(" + short("args") + b"cargparse\nNamespace\n)\x81}" + short("n") + b"K\x02sb" + short("model") +
          b"ccollections\nOrderedDict\n)R(" + short("w") + TENSOR + b"uu.")
seed("torch_file", "pickle", PICKLE)
seed("torch_file", "loop", b"\x80\x02}q\x00" + short("model") + b"h\x00s.")
seed("torch_file", "protocol4", b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94" + short("model") +
     short("os") + short("system") + b"\x93" + short("true") + b"\x85Rs.")
for kind, compression in (("zip", zipfile.ZIP_STORED), ("packed", zipfile.ZIP_DEFLATED)):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        archive.writestr("a/data.pkl", PICKLE)
        archive.writestr("a/byteorder", "little")
        archive.writestr("a/data/0", b"abcdefgh")
    seed("torch_file", kind, packed.getvalue())
# As torch.serialization.set_crc32_options(False) leaves them: what changes in it is not refused for its CRC.
plain = bytearray((out / "torch_file" / "zip").read_bytes())
for at in range(len(plain) - 4):
    if plain[at : at + 4] == b"PK\1\2":
        plain[at + 16 : at + 20] = bytes(4)
seed("torch_file", "no_crcs", bytes(plain))


def built(module, name, state):
    return f"c{module}\n{name}\n)\x81".encode("latin1") + state + b"b"


# What torch.distributed.checkpoint writes of a tensor of 4 elements in two parts.
DCP = "torch.distributed.checkpoint.metadata"
SIZE = [b"ctorch\nSize\n(" + b"K" + bytes([n]) + b"t\x85R" for n in range(5)]
CHUNKS = b"](" + b"".join(built(DCP, "ChunkStorageMetadata", b"}(" + short("offsets") + SIZE[at] + short("sizes") +
                                SIZE[2] + b"u") for at in (0, 2)) + b"e"
TOLD = built(DCP, "TensorStorageMetadata", b"}(" + short("properties") + built(DCP, "TensorProperties", b"(ctorch\nfloat32\nt") +
             short("size") + SIZE[4] + short("chunks") + CHUNKS + b"u")
PLACES = b"".join(built(DCP, "MetadataIndex", b"}(" + short("fqn") + short("w") + short("offset") + SIZE[at] + b"u") +
                  built("torch.distributed.checkpoint.filesystem", "_StorageInfo", b"}(" + short("relative_path") +
                        short("__0_0.distcp") + short("offset") + b"K" + bytes([32 * at]) + short("length") + b"K\x40u")
                  for at in (0, 2))
seed("dist_metadata", "parts", b"\x80\x02" + built(DCP, "Metadata", b"}(" + short("state_dict_metadata") + b"}(" + short("w") +
     TOLD + b"u" + short("storage_data") + b"}(" + PLACES + b"uu") + b".")
seed("dist_metadata", "call", b"\x80\x02cos\nsystem\n" + short("true") + b"\x85R.")

TEMPLATE = (b"{%- macro m(x, y=1) -%}{{ x|tojson(indent=2) }}{%- endmacro -%}{% set ns = namespace(n=0) %}{% for m in messages "
            b"if m.role != 'system' recursive %}{{ loop.index ~ m['content'][1:]|trim }}{% set ns.n = ns.n + 1 %}{% if loop.last %}"
            b"{% break %}{% endif %}{% else %}none{% endfor %}{% generation %}{{ m(tools) }}{% endgeneration %}{{ '%s' % ns.n }}"
            b"{# c #}{% raw %}{{ x }}{% endraw %}{% filter upper %}{{ 'a'.split('b')|join(', ') }}{% endfilter %}"
            b"{{ messages|map(attribute='role')|list|sort|reverse|list }}{% call m(1) %}{% endcall %}{{ 1 if x is defined }}")
seed("chat_template", "many", TEMPLATE)
seed("chat_template", "loops", b"{% for a in range(9) %}{% for b in range(9) %}{{ 'x' * a }}{% endfor %}{% endfor %}")
seed("chat_template", "numbers", b"{{ (7 // -2) ** 3 % 5 - 1e3|int|round(2)|abs + [1, 2][::-1]|sum / 4 }}{{ '{}'.format(1) }}")
TALK = [{"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}], "weight": 1},
        {"role": "tool", "content": "r"}, {"role": "assistant", "content": "b", "reasoning_content": "c"}]
seed("conversation", "messages", {"messages": TALK, "tools": [{"name": "f"}]})
seed("conversation", "sharegpt", {"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": '{"name": "f"}'},
                                                    {"from": "gpt", "value": "b"}], "tools": "[]", "system": "s"})
seed("conversation", "alpaca", {"instruction": "a", "input": "b", "output": "c", "history": [["d", "e"]]})
seed("conversation", "pair", {"prompt": "a", "chosen": [TALK[3]], "rejected": "c"})
seed("conversation_file", "array", [{"messages": TALK}, {"prompt": "a"}])
seed("conversation_file", "lines", b'{"a": "]}"}\r\n\n{"b": 1}\nx')
seed("conversation_file", "gzip", gzip.compress(b'{"a": 1}\n' * 9))

PARTS = [{"type": "Split", "pattern": {"Regex": r"\p{N}{1,3}|[^\s\w&&[a-f]]+(?=x)"}, "behavior": "MergedWithNext"},
         {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"}]
TOKENIZER = {"added_tokens": [{"id": 4, "content": "<s>", "special": True, "lstrip": True}],
             "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Strip"}, {
                 "type": "Replace", "pattern": {"String": "a"}, "content": "bb"}, {"type": "Prepend", "prepend": "_"}]},
             "pre_tokenizer": {"type": "Sequence", "pretokenizers": PARTS},
             "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
             "model": {"type": "BPE", "byte_fallback": True, "unk_token": "a", "vocab": {"a": 0, "b": 1, "ab": 2, "<0xC3>": 3},
                       "merges": ["a b"]}}
seed("tokenizer", "characters", b"\0" + json.dumps(TOKENIZER).encode())
seed("tokenizer", "bytes", b"\0" + json.dumps({**TOKENIZER, "pre_tokenizer": {"type": "ByteLevel"}, "decoder": None}).encode())
seed("tokenizer", "tiktoken", b"\1YQ== 0\nYg== 1\nYWI= 2\n")
PIECES = b"".join(b"\x0a" + bytes([len(p) + 9]) + b"\x0a" + bytes([len(p)]) + p + b"\x15" + struct.pack("<f", -i) + bytes([24, t])
                  for i, (p, t) in enumerate([(b"<unk>", 2), (b"a", 1), (b"b", 1), (b"ab", 1), (b"<0x0A>", 6), (b"bb", 4)]))
seed("tokenizer", "sentencepiece", b"\3" + PIECES + b"\x12\x05\x18\x02\x98\x02\x01")
for number, pattern in enumerate([r"(?i:'s|k)|[^\r\n\p{L}]?\p{L}+|\p{N}{1,3}+| ?[^\s\w&&[^a-f]]+|\s+(?!\S)", r"(?<=a)\b.\z|(?m:.)*?",
                                  r"[\p{Han}]+|\u4e2d|\x{61}{,2}|(?>a+)b++$"]):
    seed("pattern", str(number), (pattern + "\nab 12 's\u4e2d \u00e9k\n").encode())
