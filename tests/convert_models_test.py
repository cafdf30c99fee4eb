#!/usr/bin/env python3
"""Converts models and compares every bit with what torch makes of the same weights: types, 8 bits with scales (edge
blocks, too), shards, and the small files; transformers loads the results, training reads 8 bits, moetron compare tells
what differs.

    convert_models_test.py MOETRON
"""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles"))
from process_support import check, make_data, records, run, run_tests

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, DeepseekV3Config

BLOCK = 128
# Linear layers of 136 to 320 rows and columns: most of them have edge blocks.
CONFIG = DeepseekV3Config(
    vocab_size=259, hidden_size=136, intermediate_size=320, moe_intermediate_size=144, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1,
    first_k_dense_replace=1, q_lora_rank=40, kv_lora_rank=48, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=40,
    max_position_embeddings=256, num_nextn_predict_layers=0, tie_word_embeddings=False, initializer_range=0.05)
TRAINING = """--tokenizer bytes --seq-length 32 --micro-batch-size 2 --global-batch-size 2 --train-iters 2 --lr 1e-3
  --split 100,0,0 --eval-iters 0 --log-interval 1 --fp32 --data-path data/pages_text_document""".split()


def tensors_of(folder):
    """All tensors of a directory, through safetensors' own reader; its index must name them all."""
    if os.path.exists(f"{folder}/model.safetensors"):
        return load_file(f"{folder}/model.safetensors")
    with open(f"{folder}/model.safetensors.index.json") as file:
        index = json.load(file)
    tensors = {}
    for shard in sorted(set(index["weight_map"].values())):
        with safe_open(f"{folder}/{shard}", "pt") as opened:
            for name in opened.keys():
                check(index["weight_map"][name] == shard, f"{name} lies where the index says") \
                    if index["weight_map"][name] != shard else None
                tensors[name] = opened.get_tensor(name)
    size = sum(tensor.nbytes for tensor in tensors.values())
    check(set(index["weight_map"]) == set(tensors) and index["metadata"]["total_size"] == size, "the index is whole")
    return tensors


def config_of(folder):
    with open(f"{folder}/config.json") as file:
        return json.load(file)


def same_bits(found, expected):
    names = sorted(set(found) | set(expected))
    unlike = [name for name in names if name not in found or name not in expected
              or found[name].dtype != expected[name].dtype or found[name].shape != expected[name].shape
              or not torch.equal(found[name].contiguous().view(torch.uint8), expected[name].contiguous().view(torch.uint8))]
    return not unlike or print("     unlike:", unlike[:5]) is not None


def blocks_of(matrix):
    for row in range(0, matrix.shape[0], BLOCK):
        for column in range(0, matrix.shape[1], BLOCK):
            yield row // BLOCK, column // BLOCK, (slice(row, row + BLOCK), slice(column, column + BLOCK))


def in_8_bits(matrix):
    """By the rule of DeepSeek's release: the greatest of a block becomes 448."""
    shape = [-(-size // BLOCK) for size in matrix.shape]
    bits, scales = torch.empty(matrix.shape, dtype=torch.float8_e4m3fn), torch.empty(shape)
    for row, column, place in blocks_of(matrix):
        scales[row, column] = matrix[place].float().abs().max() / 448
        bits[place] = (matrix[place].float() / scales[row, column]).to(torch.float8_e4m3fn)
    return bits, scales


def out_of_8_bits(bits, scales):
    values = torch.empty(bits.shape)
    for row, column, place in blocks_of(bits):
        values[place] = bits[place].float() * scales[row, column].float()
    return values


def is_linear(name):
    return name.startswith("model.layers.") and ("_proj.weight" in name or "_proj_with_mqa.weight" in name)


def make_model():
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(CONFIG)
    model.save_pretrained("whole")
    weights = {name: tensor.clone() for name, tensor in tensors_of("whole").items()}
    for name in weights:  # not all the same, as they are at first
        if name.endswith(("norm.weight", "e_score_correction_bias")):
            weights[name] = weights[name] + 0.1 * torch.randn_like(weights[name])
    save_file(weights, "whole/model.safetensors", {"format": "pt"})
    with open("whole/tokenizer_config.json", "w") as file:
        file.write('{"model_max_length": 256}')
    return weights


def test_types():
    weights = make_model()
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)):
        run(["convert", "--load", "whole", "--save", name, "--to", "hf", "--dtype", name, "--shard-size", "0.2MB",
             "--verify", "--threads", "3"])
        expected = {key: value if key.endswith("e_score_correction_bias") else value.to(dtype)
                    for key, value in weights.items()}
        check(same_bits(tensors_of(name), expected), f"{name}: torch's bits")
        config = config_of(name)
        check(config.get("dtype", config.get("torch_dtype")) == str(dtype)[6:], f"{name}: config.json says so")
        check(os.path.exists(f"{name}/tokenizer_config.json"), f"{name}: the tokenizer's files are there")
        loaded = AutoModelForCausalLM.from_pretrained(name, dtype="auto")
        check(loaded.dtype == dtype and torch.equal(loaded.state_dict()["lm_head.weight"], expected["lm_head.weight"]),
              f"{name}: transformers loads it")
        done = run(["compare", "whole", name, "--rtol", "0.01", "--atol", "1e-3"])
        check(done.stdout.splitlines()[-1].startswith("alike: "), "    which compare finds alike")
    run(["convert", "--load", "bf16", "--save", "once_more", "--to", "hf"])
    check(same_bits(tensors_of("once_more"), tensors_of("bf16")), "without a type nothing changes")


def test_8_bits():
    weights = tensors_of("whole")
    expected = {}
    for name, value in weights.items():
        expected[name] = value
        if is_linear(name):
            expected[name], expected[name + "_scale_inv"] = in_8_bits(value)
    run(["convert", "--load", "whole", "--save", "fp8", "--to", "hf", "--dtype", "fp8", "--verify"])
    check(same_bits(tensors_of("fp8"), expected), "8 bits: torch's bits")
    quantization = config_of("fp8")["quantization_config"]
    check(quantization["quant_method"] == "fp8" and quantization["weight_block_size"] == [128, 128],
          "    config.json says so")
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        run(["convert", "--load", "fp8", "--save", f"from_fp8_{name}", "--to", "hf", "--dtype", name, "--verify"])
        back = {key: value if key.endswith("e_score_correction_bias") else
                (out_of_8_bits(expected[key], expected[key + "_scale_inv"]) if is_linear(key) else value).to(dtype)
                for key, value in weights.items()}
        check(same_bits(tensors_of(f"from_fp8_{name}"), back), f"8 bits as {name}: torch's bits")
        check("quantization_config" not in config_of(f"from_fp8_{name}"), "    config.json forgets them")
    run(["compare", "fp8", "from_fp8_fp32"])
    done = run(["compare", "fp8", "whole", "--top", "3"], code=1)
    check("different: " in done.stdout and len(done.stdout.splitlines()) < 12, "    and compare tells what rounding did")


def test_training_reads_8_bits():
    make_data()
    for name in ("fp8", "from_fp8_fp32"):
        run(["pretrain", *TRAINING, "--load", name, "--save", f"trained_{name}"])
    losses = [[record["loss"] for record in records(f"trained_{name}")] for name in ("fp8", "from_fp8_fp32")]
    check(len(losses[0]) == 2 and losses[0] == losses[1], "training from 8 bits is training from what they stand for")
    run(["compare", "trained_fp8/step_0000002", "trained_from_fp8_fp32/step_0000002"])
    check("quantization_config" not in config_of("trained_fp8/step_0000002"), "    and saves plain weights")
    done = run(["generate", "--load", "fp8", "--tokenizer", "bytes", "--prompt", "the router", "--greedy",
                "--max-new-tokens", "4"])
    again = run(["generate", "--load", "from_fp8_fp32", "--tokenizer", "bytes", "--prompt", "the router", "--greedy",
                 "--max-new-tokens", "4"])
    check(done.stdout == again.stdout, "    and so is generating")


def test_damage():
    """A block that rotted is told by every command that reads it, unless nobody is to look."""
    path = "fp8/model.safetensors"
    with open(path, "r+b") as file:
        file.seek(-1, 2)
        byte = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([byte[0] ^ 1]))
    for command in (["convert", "--load", "fp8", "--save", "never", "--to", "hf"],
                    ["compare", "fp8", "fp8"],
                    ["generate", "--load", "fp8", "--tokenizer", "bytes", "--prompt", "a", "--max-new-tokens", "1"],
                    ["pretrain", *TRAINING, "--load", "fp8"]):
        done = run(command, code=3)
        check("is damaged in block 0" in done.stderr, "    names the block")
        done = run([*command, "--no-verify"])
        check("no-verify: the blocks of fp8 are not checked" in done.stdout + done.stderr, "    one line says so")
    check(os.path.isdir("never"), "and then it is converted")


def test_mistakes():
    done = run(["convert", "--load", "whole", "--save", "bf16", "--to", "hf"], code=2)
    check("bf16 is there already" in done.stderr, "never replaces a folder")
    done = run(["convert", "--load", "whole", "--save", "x", "--to", "hf", "--shard-size", "5"], code=2)
    check("shard-size (5) must be" in done.stderr, "a size needs its unit")
    done = run(["convert", "--load", "nowhere", "--save", "x", "--to", "hf"], code=3)
    check("nowhere" in done.stderr, "names the missing folder")
    done = run(["compare", "whole"], code=2)
    check("compares 2 models, not 1" in done.stderr, "compare wants two")
    check(not [name for name in os.listdir(".") if name.startswith(".moetron-convert")], "nothing hidden is left")


if __name__ == "__main__":
    run_tests(test_types, test_8_bits, test_training_reads_8_bits, test_damage, test_mistakes)
