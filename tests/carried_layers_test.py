#!/usr/bin/env python3
"""A release with a layer of multi-token prediction, which is not trained: every checkpoint of a run that begins with it
holds that layer bit for bit, on one rank and four, continued, from 8 bits and from Megatron's files.

    carried_layers_test.py MOETRON
"""
import json
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles"))
from process_support import TORCHRUN, check, make_data, records, run, run_tests

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, DeepseekV3Config

transformers.logging.set_verbosity_error()

CONFIG = DeepseekV3Config(
    vocab_size=259, hidden_size=48, intermediate_size=96, num_attention_heads=4, num_key_value_heads=4,
    moe_intermediate_size=24, num_experts_per_tok=2, max_position_embeddings=256, num_hidden_layers=2, n_routed_experts=4,
    n_group=1, topk_group=1, first_k_dense_replace=1, q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=8,
    qk_rope_head_dim=8, v_head_dim=8, num_nextn_predict_layers=1, tie_word_embeddings=False)
LAYER = "model.layers.2."
TRAINING = """--tokenizer bytes --seq-length 32 --micro-batch-size 1 --global-batch-size 4 --lr 1e-3
  --split 100,0,0 --eval-iters 0 --log-interval 1 --data-path data/pages_text_document""".split()


def make_release():
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(CONFIG).to(torch.bfloat16).save_pretrained("release")
    tensors = load_file("release/model.safetensors")
    random = lambda *shape: (torch.rand(shape) - 0.5).to(torch.bfloat16)
    tensors.update({LAYER + name[len("model.layers.1."):]: random(*value.shape) for name, value in tensors.items()
                    if name.startswith("model.layers.1.")})
    tensors.update({LAYER + "enorm.weight": random(48), LAYER + "hnorm.weight": random(48),
                    LAYER + "eh_proj.weight": random(48, 96), LAYER + "shared_head.norm.weight": random(48),
                    LAYER + "embed_tokens.weight": tensors["model.embed_tokens.weight"].clone(),
                    LAYER + "shared_head.head.weight": tensors["lm_head.weight"].clone(),
                    LAYER + "mlp.gate.e_score_correction_bias": torch.rand(4)})  # stays in fp32
    save_file(tensors, "release/model.safetensors", {"format": "pt"})
    shutil.copytree("release", "without")
    save_file({name: value for name, value in tensors.items() if not name.startswith(LAYER)},
              "without/model.safetensors", {"format": "pt"})


def layer_of(folder):
    return {name: value for name, value in load_file(f"{folder}/model.safetensors").items() if name.startswith(LAYER)}


def same(first, second):
    return first.keys() == second.keys() and len(first) > 0 and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]) for name in first)


def check_carried(folder, expected, what):
    check(same(layer_of(folder), expected), what)
    with open(f"{folder}/config.json") as file:
        check(json.load(file)["num_nextn_predict_layers"] == 1, "    and config.json tells of it")


def train(load, save, steps, *more, **kwargs):
    return run(["pretrain", *TRAINING, "--train-iters", str(steps), "--load", load, "--save", save, *more], **kwargs)


def losses(folder):
    return [record["loss"] for record in records(folder)]


def test_training():
    make_data()
    make_release()
    expected = layer_of("release")
    done = train("release", "run", 2)
    check("multi-token-prediction layers of release are not trained yet" in done.stdout + done.stderr,
          "a run says that it does not train the layer")
    check_carried("run/step_0000002", expected, "its checkpoint holds the layer bit for bit")
    train("without", "run_without", 2)
    check(losses("run") == losses("run_without"), "    which changes no loss")
    check(not layer_of("run_without/step_0000002"), "what is not there is not made up")
    with open("run_without/step_0000002/config.json") as file:
        check(json.load(file)["num_nextn_predict_layers"] == 0, "    and config.json tells of none")
    model, told = AutoModelForCausalLM.from_pretrained("run/step_0000002", output_loading_info=True)
    check(not told["missing_keys"] and all(name.startswith(LAYER) for name in told["unexpected_keys"]),
          "transformers loads it, and passes over the layer as in the release")


def test_continuing():
    """The release is gone: the layer comes out of the checkpoint itself, which may be deleted meanwhile."""
    expected = layer_of("release")
    os.rename("release", "moved")
    train("run", "run", 5, "--save-interval", "1", "--keep-last", "1")
    check_carried("run/step_0000005", expected, "a run that goes on carries it on")
    check(not os.path.exists("run/step_0000002"), "    without the checkpoint that it came from")
    os.rename("moved", "release")


def test_ranks():
    expected = layer_of("release")
    train("release", "ranks", 2, "--tensor-model-parallel-size", "2", "--expert-model-parallel-size", "2",
          "--save-interval", "1", "--async-save", launcher=TORCHRUN)
    for step in (1, 2):
        check_carried(f"ranks/step_000000{step}", expected, f"four ranks that save beside training: step {step}")
    train("ranks", "ranks", 3, "--pipeline-model-parallel-size", "2", launcher=[*TORCHRUN[:-1], "2"])
    check_carried("ranks/step_0000003", expected, "    continued in another layout")


def test_exports():
    expected = layer_of("release")
    run(["convert", "--load", "run/step_0000005", "--save", "exported", "--to", "hf", "--verify"])
    check(same(layer_of("exported"), expected), "an export has it")
    done = run(["convert", "--load", "run/step_0000005", "--save", "mg", "--to", "megatron", "--verify"])
    check("2 tensors, first model.layers.2.embed_tokens.weight" in done.stdout,
          "    Megatron has embedding and head once: the trained ones, which a line says")
    os.remove("mg/config.json")
    train("mg", "from_mg", 1)
    carried = layer_of("from_mg/step_0000001")
    ends = {LAYER + "embed_tokens.weight", LAYER + "shared_head.head.weight"}  # which Megatron has once
    check(same({name: value for name, value in carried.items() if name not in ends},
               {name: value for name, value in expected.items() if name not in ends}) and ends < carried.keys(),
          "and so have Megatron's files, and a run from them")


def test_8_bits():
    run(["convert", "--load", "release", "--save", "fp8", "--to", "hf", "--dtype", "fp8"])
    run(["convert", "--load", "fp8", "--save", "multiplied_out", "--to", "hf", "--dtype", "bf16"])
    train("fp8", "from_fp8", 1)
    check_carried("from_fp8/step_0000001", layer_of("multiplied_out"), "8 bits come as the bf16 that they stand for")


if __name__ == "__main__":
    run_tests(test_training, test_continuing, test_ranks, test_exports, test_8_bits)
