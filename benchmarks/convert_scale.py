#!/usr/bin/env python3
"""Measures moetron convert on real bytes and on a model that is larger than memory.

    convert_scale.py MOETRON CONFIG FOLDER [--gigabytes 10] [--sparse-gigabytes 60]

CONFIG is the config.json of DeepSeek-V3; the tensors have the names and shapes of its layers, beginning with the embedding,
in bf16. First, random bits of --gigabytes: dd with conv=fsync copies the same bytes, then convert does, and convert rounds
them to fp16. Then files without content on the disk, of a tenth of --sparse-gigabytes and of all of it, which convert puts
into 8 bits. FOLDER needs room for twice the first and half the second; all is deleted in the end.
"""
import argparse
import json
import os
import resource
import shutil
import struct
import subprocess
import time

SHARD_BYTES = 5_000_000_000


def tensors_of(config):
    """Names and shapes, layer by layer."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    nope, rope, value = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    query, latent = config["q_lora_rank"], config["kv_lora_rank"]
    yield "model.embed_tokens.weight", [config["vocab_size"], hidden]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        attention = {"q_a_proj": [query, hidden], "q_a_layernorm": [query], "q_b_proj": [heads * (nope + rope), query],
                     "kv_a_proj_with_mqa": [latent + rope, hidden], "kv_a_layernorm": [latent],
                     "kv_b_proj": [heads * (nope + value), latent], "o_proj": [hidden, heads * value]}
        for name, shape in attention.items():
            yield f"{prefix}self_attn.{name}.weight", shape
        yield prefix + "input_layernorm.weight", [hidden]
        yield prefix + "post_attention_layernorm.weight", [hidden]
        mlps = {"mlp.": config["intermediate_size"]}
        if layer >= config["first_k_dense_replace"]:
            experts = config["n_routed_experts"]
            yield prefix + "mlp.gate.weight", [experts, hidden]
            mlps = {f"mlp.experts.{expert}.": config["moe_intermediate_size"] for expert in range(experts)}
            mlps["mlp.shared_experts."] = config["moe_intermediate_size"] * config["n_shared_experts"]
        for name, width in mlps.items():
            yield prefix + name + "gate_proj.weight", [width, hidden]
            yield prefix + name + "up_proj.weight", [width, hidden]
            yield prefix + name + "down_proj.weight", [hidden, width]


def count(shape):
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


def shards_of(config, total):
    """Lists of tensors, of SHARD_BYTES each and `total` together."""
    shards, filled = [[]], 0
    for name, shape in tensors_of(config):
        if total <= 0:
            break
        size = 2 * count(shape)
        if filled and filled + size > SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append((name, shape))
        filled += size
        total -= size
    return shards


def write_model(folder, config, total, sparse):
    os.makedirs(folder)
    with open(f"{folder}/config.json", "w") as file:
        json.dump({key: value for key, value in config.items() if key not in ("quantization_config", "auto_map")}, file)
    shards, places, size = shards_of(config, total), {}, 0
    # No two blocks are the same, and none holds a number that is not finite.
    random = bytearray(os.urandom(1 << 26))
    random[1::2] = bytes(byte & 0xBF for byte in random[1::2])
    for number, shard in enumerate(shards):
        name, header, end = f"model-{number + 1:05}-of-{len(shards):05}.safetensors", {}, 0
        for tensor, shape in shard:
            header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + 2 * count(shape)]}
            end += 2 * count(shape)
            places[tensor] = name
        text = json.dumps(header).encode()
        with open(f"{folder}/{name}", "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            if sparse:
                file.truncate(8 + len(text) + end)
            else:
                for begin in range(0, end, len(random)):
                    random[0:8] = struct.pack("<Q", (size + begin) & 0x3FBF3FBF3FBF3FBF)
                    file.write(random[:min(len(random), end - begin)])
                file.flush()
                os.fsync(file.fileno())
        size += end
    with open(f"{folder}/model.safetensors.index.json", "w") as file:
        json.dump({"metadata": {"total_size": size}, "weight_map": places}, file)
    return size


def timed(command):
    """Seconds of a command, and the most memory that it took, in GB."""
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begin
    if status != 0:
        raise SystemExit(f"{' '.join(command)}: {output}")
    return seconds, usage.ru_maxrss * 1024 / 1e9, output.strip()


def drop_from_cache(folder):
    """What is read next comes from the disk."""
    for name in os.listdir(folder):
        with open(f"{folder}/{name}", "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copy_with_dd(source, target):
    os.makedirs(target)
    command = " && ".join(f"dd if={source}/{name} of={target}/{name} bs=16M conv=fsync status=none"
                          for name in sorted(os.listdir(source)))
    return timed(["sh", "-c", command])[0]


def measure_copies(moetron, config, folder, total, rounds=1):
    size = write_model(f"{folder}/real", config, total, sparse=False)
    print(f"{size / 1e9:.2f} GB of random bits", flush=True)
    for _ in range(rounds):
        drop_from_cache(f"{folder}/real")
        seconds = copy_with_dd(f"{folder}/real", f"{folder}/dd")
        print(f"dd conv=fsync:           {seconds:6.1f} s  {size / seconds / 1e9:.3f} GB/s", flush=True)
        shutil.rmtree(f"{folder}/dd")
        for words in ([], ["--dtype", "fp16"]):
            drop_from_cache(f"{folder}/real")
            seconds, memory, _ = timed([moetron, "convert", "--load", f"{folder}/real", "--save", f"{folder}/out", "--to", "hf", *words])
            print(f"convert {' '.join(words):16} {seconds:6.1f} s  {size / seconds / 1e9:.3f} GB/s  peak RSS {memory:.3f} GB", flush=True)
            shutil.rmtree(f"{folder}/out")
    shutil.rmtree(f"{folder}/real")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("moetron")
    parser.add_argument("config")
    parser.add_argument("folder")
    parser.add_argument("--gigabytes", type=float, default=10)
    parser.add_argument("--sparse-gigabytes", type=float, default=60)
    arguments = parser.parse_args()
    with open(arguments.config) as file:
        config = json.load(file)
    folder = os.path.join(arguments.folder, "convert_scale")
    os.makedirs(folder)
    try:
        if arguments.gigabytes > 0:
            measure_copies(arguments.moetron, config, folder, arguments.gigabytes * 1e9)
        for part in (0.1, 1) if arguments.sparse_gigabytes > 0 else ():
            size = write_model(f"{folder}/sparse", config, part * arguments.sparse_gigabytes * 1e9, sparse=True)
            seconds, memory, _ = timed([arguments.moetron, "convert", "--load", f"{folder}/sparse", "--save", f"{folder}/out",
                                        "--to", "hf", "--dtype", "fp8"])
            print(f"convert of {size / 1e9:5.1f} GB without content to 8 bits: {seconds:6.1f} s, peak RSS {memory:.3f} GB", flush=True)
            shutil.rmtree(f"{folder}/out")
            shutil.rmtree(f"{folder}/sparse")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
