#!/usr/bin/env python3
"""Takes some layers of a release, and compares every bit with what safetensors and transformers make of the same
files: converting, training from it alone and as ranks of a layout, continuing that run, and what is refused.

    load_layers_test.py MOETRON
"""
import json
import os
import re
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles"))
from process_support import TORCHRUN, check, make_data, records, run, run_tests

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, DeepseekV3Config, Qwen3MoeConfig

COMMON = dict(vocab_size=259, hidden_size=48, intermediate_size=96, num_attention_heads=4, num_key_value_heads=4,
              moe_intermediate_size=24, num_experts_per_tok=2, max_position_embeddings=256, initializer_range=0.05)
MODELS = {
    "deepseek": DeepseekV3Config(
        **COMMON, num_hidden_layers=5, n_routed_experts=8, n_group=1, topk_group=1, first_k_dense_replace=2,
        q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8,
        num_nextn_predict_layers=1),
    "qwen": Qwen3MoeConfig(**COMMON, num_hidden_layers=5, num_experts=8, mlp_only_layers=[0, 3], head_dim=16),
}
TRAINING = """--tokenizer bytes --seq-length 32 --micro-batch-size 1 --global-batch-size 4 --lr 1e-3
  --split 100,0,0 --eval-iters 0 --log-interval 1 --fp32 --data-path data/pages_text_document""".split()


def rename(name, first, last):
    """Of the whole model's tensor the name in that of layers first .. last; None beyond them."""
    found = re.match(r"model\.layers\.(\d+)(\..*)", name)
    if not found:
        return name
    layer = int(found[1])
    return f"model.layers.{layer - first}{found[2]}" if first <= layer <= last else None


def cut(source, target, first, last, changes):
    """The same by hand."""
    os.makedirs(target)
    tensors = load_file(f"{source}/model.safetensors")
    save_file({rename(name, first, last): value for name, value in tensors.items() if rename(name, first, last)},
              f"{target}/model.safetensors", {"format": "pt"})
    with open(f"{source}/config.json") as file:
        config = json.load(file)
    with open(f"{target}/config.json", "w") as file:
        json.dump({**config, "num_hidden_layers": last - first + 1, "layer_types": None, **changes}, file)


def make_models():
    for name, config in MODELS.items():
        torch.manual_seed(3)
        AutoModelForCausalLM.from_config(config).save_pretrained(name)
    tensors = load_file("deepseek/model.safetensors")  # transformers has no layer of multi-token prediction
    tensors.update({name.replace("layers.4.", "layers.5."): value + 1 for name, value in tensors.items()
                    if name.startswith("model.layers.4.")})
    tensors["model.layers.5.eh_proj.weight"] = torch.randn(48, 96)
    save_file(tensors, "deepseek/model.safetensors", {"format": "pt"})


def same(left, right):
    left, right = load_file(left), load_file(right)
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left)


def test_convert():
    make_models()
    for name, first, last, changes in (
            ("deepseek", 0, 2, {"num_nextn_predict_layers": 0}),
            ("deepseek", 1, 3, {"num_nextn_predict_layers": 0, "first_k_dense_replace": 1}),
            ("deepseek", 4, 4, {"num_nextn_predict_layers": 0, "first_k_dense_replace": 0}),
            ("qwen", 2, 4, {"mlp_only_layers": [1]})):
        made, expected = f"{name}_{first}_{last}", f"{name}_{first}_{last}_by_hand"
        cut(name, expected, first, last, changes)
        run(["convert", "--from", "hf", "--to", "hf", "--load", name, "--save", made, "--load-layers",
             f"{first}-{last}", "--verify"])
        check(same(f"{made}/model.safetensors", f"{expected}/model.safetensors"), f"{made}: the bits of those layers")
        ids = torch.arange(40).reshape(2, 20)
        logits = []
        for folder in (made, expected):
            model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
            check(not told["missing_keys"] and not told["unexpected_keys"], f"    transformers loads {folder} whole")
            with torch.no_grad():
                logits.append(model(ids, use_cache=False).logits)
        check(torch.equal(*logits), "    which are the same model to it")


def test_8_bits():
    """The scales of a release come along, and config.json says so."""
    run(["convert", "--to", "hf", "--dtype", "fp8", "--load", "deepseek", "--save", "deepseek_fp8"])
    run(["convert", "--to", "hf", "--load", "deepseek_fp8", "--save", "fp8_layers", "--load-layers", "1-3"])
    tensors = load_file("fp8_layers/model.safetensors")
    whole = load_file("deepseek_fp8/model.safetensors")
    expected = {rename(name, 1, 3): value for name, value in whole.items() if rename(name, 1, 3)}
    check(tensors.keys() == expected.keys() and
          all(torch.equal(tensors[name].view(torch.uint8), expected[name].view(torch.uint8)) for name in expected),
          "8 bits and scales of those layers")
    with open("fp8_layers/config.json") as file:
        check("quantization_config" in json.load(file), "    and config.json tells of 8 bits")


def losses(folder):
    return [record["loss"] for record in records(folder)]


def test_training():
    make_data()
    for name, range_, expected in (("deepseek", "0-2", "deepseek_0_2_by_hand"), ("qwen", "2-4", "qwen_2_4_by_hand")):
        run(["pretrain", *TRAINING, "--train-iters", "2", "--load", expected, "--save", f"{name}_hand"])
        run(["pretrain", *TRAINING, "--train-iters", "2", "--load", name, "--load-layers", range_, "--num-layers",
             "3", "--save", f"{name}_layers"])
        check(losses(f"{name}_hand") == losses(f"{name}_layers") and len(losses(f"{name}_hand")) == 2,
              f"{name}: trains as from the model cut by hand")
        check(same(f"{name}_hand/step_0000002/model.safetensors", f"{name}_layers/step_0000002/model.safetensors"),
              "    to the same bits")
    model, told = AutoModelForCausalLM.from_pretrained("qwen_layers/step_0000002", output_loading_info=True)
    check(model.config.num_hidden_layers == 3 and model.config.mlp_only_layers == [1] and
          not told["missing_keys"] and not told["unexpected_keys"], "transformers loads what was saved")


def test_layouts():
    """Four ranks: each reads its part of the layers that are taken."""
    for name, range_, layout in (
            ("deepseek", "0-2", "--tensor-model-parallel-size 2 --expert-model-parallel-size 2".split()),
            ("qwen", "2-4", "--pipeline-model-parallel-size 3 --expert-model-parallel-size 1".split())):
        launcher = TORCHRUN if name == "deepseek" else [*TORCHRUN[:-1], "3"]
        run(["pretrain", *TRAINING, "--train-iters", "2", "--load", name, "--load-layers", range_, *layout, "--save",
             f"{name}_ranks"], launcher=launcher)
        pairs = list(zip(losses(f"{name}_hand"), losses(f"{name}_ranks")))
        check(len(pairs) == 2 and all(abs(a - b) < 1e-5 * a for a, b in pairs),
              f"{name}: ranks begin with the same layers: {pairs}")


def test_continuing():
    """The same command goes on from its own checkpoint, of which all layers are taken."""
    run(["pretrain", *TRAINING, "--train-iters", "2", "--load", "qwen_2_4_by_hand", "--save", "qwen_hand_on"])
    for folder, source in (("qwen_hand_on", ["qwen_2_4_by_hand"]), ("qwen_layers", ["qwen", "--load-layers", "2-4"])):
        done = run(["pretrain", *TRAINING, "--train-iters", "3", "--load", *source, "--save", folder])
        check("continues at step 2" in done.stdout + done.stderr, f"    {folder} goes on")
    check(same("qwen_hand_on/step_0000003/model.safetensors", "qwen_layers/step_0000003/model.safetensors"),
          "and both end with the same bits")
    done = run(["pretrain", *TRAINING, "--train-iters", "4", "--load", "qwen_layers", "--load-layers", "0-1",
                "--save", "other"], code=2)
    check("load-layers (0-1) does not go with load (qwen_layers)" in done.stderr and "--finetune" in done.stderr,
          "a run is continued whole")
    run(["pretrain", *TRAINING, "--train-iters", "1", "--load", "qwen_layers", "--load-layers", "0-1", "--finetune",
         "--save", "other"])
    with safe_open("other/step_0000001/model.safetensors", "pt") as file:
        check(max(int(name.split(".")[2]) for name in file.keys() if "layers" in name) == 1,
              "    or begun anew with some of its layers")


def test_mistakes():
    train = ["pretrain", *TRAINING, "--train-iters", "1", "--load", "deepseek"]
    convert = ["convert", "--to", "hf", "--load", "deepseek", "--save", "never"]
    for arguments, sentence in (
            ([*train, "--load-layers", "0-5"], "load-layers (0-5) must be within layers 0-4"),
            ([*convert, "--load-layers", "0-5"], "load-layers (0-5) must be within layers 0-4"),
            ([*train, "--load-layers", "3"], "load-layers (3) must be the numbers of a first and a last layer"),
            ([*train, "--load-layers", "2-1"], "load-layers (2-1) must be"),
            ([*convert, "--load-layers", "-1-2"], "load-layers (-1-2) must be"),
            ([*train, "--load-layers", "0-2", "--num-layers", "5"], "num-layers (5) contradicts"),
            ([*train, "--load-layers", "0-2", "--lora-rank", "4"], "load-layers (0-2) does not go with lora-rank (4)"),
            ([*train[:-2], "--load-layers", "0-2", "--num-layers", "3"], "load-layers (0-2) needs load")):
        done = run(arguments, code=2)
        check(sentence in done.stderr and "Traceback" not in done.stderr, f"    says: {sentence}")
    check(not os.path.exists("never"), "and nothing is written")
    shutil.copytree("qwen", "sparse")
    with open("sparse/config.json") as file:
        config = json.load(file)
    with open("sparse/config.json", "w") as file:
        json.dump({**config, "decoder_sparse_step": 2, "mlp_only_layers": []}, file)
    done = run(["convert", "--to", "hf", "--load", "sparse", "--save", "never", "--load-layers", "1-2"], code=2)
    check("must begin at a multiple of decoder_sparse_step (2)" in done.stderr, "layers keep their kind")


if __name__ == "__main__":
    run_tests(test_convert, test_8_bits, test_training, test_layouts, test_continuing, test_mistakes)
