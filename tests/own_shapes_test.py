#!/usr/bin/env python3
"""Trains every combination of experts, biases and norms of queries and keys, saves it, and compares what Moetron
computes from the saved directory with a plain program of its own (oracles/plain_qwen.py): logits, loss, every
gradient and greedy tokens. What transformers has a class for must be saved as that class.

    own_shapes_test.py MOETRON MODEL_TOOL
"""
import itertools
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles"))
from process_support import check, make_data, records, run, run_tests

import json
import model_oracle
from plain_qwen import PlainQwen, expected
from safetensors.torch import save_file

MODEL_TOOL = os.path.abspath(sys.argv[2])
# By experts, norms, biases.
MODEL_TYPES = {(True, True, False): "qwen3_moe", (False, True, False): "qwen3", (False, False, True): "qwen2",
               (False, False, False): "llama"}
# Wide weights, so that what is compared is more than the embedding.
COMMON = """--model-family qwen --num-layers 2 --hidden-size 48 --ffn-hidden-size 80 --num-attention-heads 4
  --group-query-attention --num-query-groups 2 --kv-channels 16 --max-position-embeddings 256 --tokenizer bytes
  --rotary-base 1e6 --init-method-std 0.2 --fp32 --data-path data/pages_text_document --split 100,0,0 --eval-iters 0
  --seq-length 32 --micro-batch-size 2 --global-batch-size 4 --lr 2e-2 --lr-decay-style constant""".split()
EXPERTS = "--num-experts 6 --moe-router-topk 2 --moe-ffn-hidden-size 24 --moe-aux-loss-coeff 1e-3".split()


def options_of(experts, norm, bias):
    return ([*COMMON] + EXPERTS * experts + ["--qk-layernorm"] * norm + ["--add-qkv-bias"] * bias +
            # The guide's rule for the weights of experts, where its biases are, and an untied head.
            ["--moe-router-pre-softmax"] * (experts and bias) + ["--untie-embeddings-and-output-weights"] * bias)


def test_shapes():
    make_data()
    for shape in itertools.product((True, False), repeat=3):
        experts, norm, bias = shape
        name = f"experts_{experts}_norm_{norm}_bias_{bias}".lower()
        done = run(["pretrain", *options_of(*shape), "--train-iters", "3", "--save", name])
        folder = f"{name}/step_0000003"
        with open(f"{folder}/config.json") as file:
            model_type = json.load(file)["model_type"]
        check(model_type == MODEL_TYPES.get(shape, "moetron"), f"{name} is saved as {model_type}")
        check(("config.json says model_type moetron" in done.stdout + done.stderr) == (model_type == "moetron"),
              "    and the start says so where transformers has no class")
        weights = PlainQwen(folder).weights
        for part, wanted in (("q_norm.weight", norm), ("k_proj.bias", bias), ("mlp.gate.weight", experts)):
            found = [value for key, value in weights.items() if key.endswith(part)]
            check(len(found) == 2 * wanted and all(bool((value != value.flatten()[0]).any()) for value in found),
                  f"    {part}: {len(found)} trained")
        save_file(expected(folder, seed=7), f"{folder}/expected.safetensors")
        check(model_oracle.check_fixture([MODEL_TOOL], folder), f"    {name} equals the plain program")
        os.remove(f"{folder}/expected.safetensors")


def test_gated_shared_expert():
    """Beside the experts: Qwen2-MoE's layers, and such as transformers has no class for."""
    make_data()
    gate = ["--enable-shared-expert", "--num-shared-experts", "2", "--enable-shared-expert-gate"]
    for norm, bias, model_type in ((False, True, "qwen2_moe"), (True, False, "moetron")):
        name = f"gated_{model_type}"
        run(["pretrain", *options_of(True, norm, bias), *gate, "--train-iters", "3", "--save", name])
        folder = f"{name}/step_0000003"
        with open(f"{folder}/config.json") as file:
            check(json.load(file)["model_type"] == model_type, f"a gated shared expert is saved as {model_type}")
        gates = [value for key, value in PlainQwen(folder).weights.items() if key.endswith("shared_expert_gate.weight")]
        check(len(gates) == 2 and gates[0].shape == (1, 48), "    with its gates")
        save_file(expected(folder, seed=8), f"{folder}/expected.safetensors")
        check(model_oracle.check_fixture([MODEL_TOOL], folder), "    and equals the plain program")
        os.remove(f"{folder}/expected.safetensors")
    done = run(["pretrain", *options_of(True, False, True), *gate[:3], "--train-iters", "1"], code=2)
    check("without enable-shared-expert-gate" in done.stderr, "    Qwen's have a gate")
    done = run(["pretrain", *options_of(True, False, True), *gate, "--train-iters", "1", "--bf16", "--fp8-format", "e4m3"],
               code=2)
    check("fp8-format does not go with a shared expert that has a gate" in done.stderr, "    not in 8 bits")


def test_loading():
    """What was saved trains and speaks again: the same command goes on, --load begins, generate continues."""
    name = "experts_true_norm_false_bias_true"
    options = options_of(True, False, True)
    run(["pretrain", *options, "--train-iters", "5", "--save", "whole"])
    run(["pretrain", *options, "--train-iters", "5", "--save", name])
    check([r["loss"] for r in records(name)] == [r["loss"] for r in records("whole")], "resumed with equal losses")
    run(["pretrain", *options, "--train-iters", "1", "--load", f"{name}/step_0000005"])
    done = run(["generate", "--load", name, "--tokenizer", "bytes", "--prompt", "the router", "--greedy",
                "--max-new-tokens", "8"])
    check(done.stdout.startswith("the router"), "generates")
    done = run(["pretrain", *options, "--qk-layernorm", "--train-iters", "1", "--load", f"{name}/step_0000005"], code=2)
    check("qk-layernorm (true)" in done.stderr and "config.json says false" in done.stderr, "    a contradiction is told")


if __name__ == "__main__":
    run_tests(test_shapes, test_gated_shared_expert, test_loading)
