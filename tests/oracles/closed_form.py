#!/usr/bin/env python3
"""Writes the tiny models of tiny_golden.json, whose weights are a closed formula, as Hugging Face directories.

    closed_form.py OUT [NAME ...]

Writes OUT/NAME/{config.json, model.safetensors, input.safetensors}; the last holds input_ids and labels
(labels[b][t] is the target of position t, -100 for none).

With fnv1a64 of a tensor's name and splitmix64, u(name, i) = 2 * (splitmix64(fnv(name) + i) >> 11) / 2^53 - 1
for the row-major index i. Matrices are 0.25 u, norm weights 1 + 0.1 u, biases (the router's as well)
0.05 u, computed in double precision and rounded to fp32. tiny_golden.json holds what an independent
float64 program computes with these weights.
"""
import argparse
import json
import os
import sys

import numpy as np
from safetensors.numpy import save_file

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tiny_golden.json")
MASK = (1 << 64) - 1


def fnv1a64(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def splitmix64(x):
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def tensor(name, shape):
    with np.errstate(over="ignore"):
        index = np.arange(np.prod(shape), dtype=np.uint64) + np.uint64(fnv1a64(name))
    u = 2.0 * ((splitmix64(index) >> np.uint64(11)).astype(np.float64) * 2.0**-53) - 1.0
    if name.endswith("bias"):
        values = 0.05 * u
    elif len(shape) == 1:
        values = 1 + 0.1 * u
    else:
        values = 0.25 * u
    return values.astype(np.float32).reshape(shape)


def attention_shapes(config, prefix):
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    if "kv_lora_rank" in config:
        nope, rope, v = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
        kv_rank, q_rank = config["kv_lora_rank"], config["q_lora_rank"]
        if q_rank:
            yield prefix + "q_a_proj.weight", (q_rank, hidden)
            yield prefix + "q_a_layernorm.weight", (q_rank,)
            yield prefix + "q_b_proj.weight", (heads * (nope + rope), q_rank)
        else:
            yield prefix + "q_proj.weight", (heads * (nope + rope), hidden)
        yield prefix + "kv_a_proj_with_mqa.weight", (kv_rank + rope, hidden)
        yield prefix + "kv_a_layernorm.weight", (kv_rank,)
        yield prefix + "kv_b_proj.weight", (heads * (nope + v), kv_rank)
        yield prefix + "o_proj.weight", (hidden, heads * v)
        return
    dim = config.get("head_dim", hidden // heads)
    rows = {"q": heads * dim, "k": config["num_key_value_heads"] * dim, "v": config["num_key_value_heads"] * dim}
    for letter, num_rows in rows.items():
        yield f"{prefix}{letter}_proj.weight", (num_rows, hidden)
        if config["model_type"] == "qwen2":
            yield f"{prefix}{letter}_proj.bias", (num_rows,)
    if config["model_type"].startswith("qwen3"):
        yield prefix + "q_norm.weight", (dim,)
        yield prefix + "k_norm.weight", (dim,)
    yield prefix + "o_proj.weight", (hidden, heads * dim)


def mlp_shapes(prefix, hidden, width):
    yield prefix + "gate_proj.weight", (width, hidden)
    yield prefix + "up_proj.weight", (width, hidden)
    yield prefix + "down_proj.weight", (hidden, width)


def layer_shapes(config, layer):
    prefix, hidden = f"model.layers.{layer}.", config["hidden_size"]
    yield prefix + "input_layernorm.weight", (hidden,)
    yield prefix + "post_attention_layernorm.weight", (hidden,)
    yield from attention_shapes(config, prefix + "self_attn.")
    experts = config.get("n_routed_experts") or config.get("num_experts")
    if not experts or layer < config.get("first_k_dense_replace", 0):
        yield from mlp_shapes(prefix + "mlp.", hidden, config["intermediate_size"])
        return
    yield prefix + "mlp.gate.weight", (experts, hidden)
    if config["model_type"] == "deepseek_v3":
        yield prefix + "mlp.gate.e_score_correction_bias", (experts,)
    width = config["moe_intermediate_size"]
    for expert in range(experts):
        yield from mlp_shapes(f"{prefix}mlp.experts.{expert}.", hidden, width)
    if config.get("n_shared_experts"):
        yield from mlp_shapes(prefix + "mlp.shared_experts.", hidden, width * config["n_shared_experts"])


def model_tensors(config):
    hidden, vocab, layers = config["hidden_size"], config["vocab_size"], config["num_hidden_layers"]
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    num_mtp = config.get("num_nextn_predict_layers", 0)
    for layer in range(layers + num_mtp):
        shapes |= dict(layer_shapes(config, layer))
    tensors = {name: tensor(name, shape) for name, shape in shapes.items()}
    for layer in range(layers, layers + num_mtp):
        prefix = f"model.layers.{layer}."
        for name, shape in (("enorm.weight", (hidden,)), ("hnorm.weight", (hidden,)),
                            ("eh_proj.weight", (hidden, 2 * hidden)), ("shared_head.norm.weight", (hidden,))):
            tensors[prefix + name] = tensor(prefix + name, shape)
        tensors[prefix + "embed_tokens.weight"] = tensors["model.embed_tokens.weight"].copy()
        tensors[prefix + "shared_head.head.weight"] = tensors["lm_head.weight"].copy()
    return tensors


def batch(vocab):
    """Two sequences of eight tokens and the token after each; the first two targets are left out."""
    full = [[int(splitmix64(np.array([1000 * b + t], dtype=np.uint64))[0]) % vocab for t in range(9)]
            for b in range(2)]
    full = np.array(full, dtype=np.int64)
    input_ids, labels = full[:, :8].copy(), full[:, 1:].copy()
    labels[0, :2] = -100
    return {"input_ids": input_ids, "labels": labels}


def write(name, config, out):
    folder = os.path.join(out, name)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file, indent=2)
    save_file(model_tensors(config), os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    save_file(batch(config["vocab_size"]), os.path.join(folder, "input.safetensors"))
    return folder


def main():
    parser = argparse.ArgumentParser(description="Writes the tiny models whose weights are a closed formula.")
    parser.add_argument("out")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    with open(GOLDEN) as file:
        golden = json.load(file)
    unknown = set(args.names) - set(golden)
    if unknown:
        sys.exit(f"no model named {', '.join(sorted(unknown))}; there are {', '.join(golden)}")
    for name in args.names or golden:
        print(write(name, golden[name]["config"], args.out))


if __name__ == "__main__":
    main()
