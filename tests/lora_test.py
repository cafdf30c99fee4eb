#!/usr/bin/env python3
"""Low-rank updates against PEFT: gradients, what a run saves, merging, and what a run without them must not notice.

    lora_test.py MOETRON MODEL_TOOL

The oracle is peft 0.21.2 with transformers 5.23.0 (scripts/requirements.txt): routed experts are stacked parameters
there, which PEFT updates as target_parameters.
"""
import json
import os
import shutil
import sys
import tempfile
import warnings

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles"))
from process_support import Ranks, check, records, run, run_tests

import subprocess

import torch
import torch.nn.functional as F
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

import model_oracle

MODEL_TOOL = os.path.abspath(sys.argv[2])
FAMILIES = ("qwen3", "qwen3_moe", "deepseek_v3")
MODULES = {
    "qwen3": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "qwen3_moe": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "deepseek_v3": ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"],
}
# PEFT takes gate_proj, up_proj and down_proj among target_modules for the experts'.
PARAMETERS = {
    "qwen3": [],
    "qwen3_moe": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
    "deepseek_v3": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj", "gate_proj.weight", "up_proj.weight",
                    "down_proj.weight"],
}
TRAIN = """--mock-data --seq-length 16 --micro-batch-size 1 --global-batch-size 4 --lr 5e-3 --lr-decay-style constant
  --clip-grad 1 --eval-iters 0 --log-interval 1 --fp32""".split()
LORA = "--lora-rank 4 --lora-alpha 6".split()


def load_base(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", experts_implementation="eager", dtype=torch.float32)


def load_peft(folder, base):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(load_base(base), folder)
    missing = [str(w.message) for w in told if "missing" in str(w.message).lower()]
    check(not missing, f"    PEFT loads {folder} whole{': ' + missing[0][:300] if missing else ''}")
    return model.eval()


def inputs_of(name):
    expected = load_file(f"models/{name}/expected.safetensors")
    return {key: expected[key] for key in ("input_ids", "labels")}


def tool_outputs(folder, inputs):
    with tempfile.TemporaryDirectory() as scratch:
        source, target = f"{scratch}/in.safetensors", f"{scratch}/out.safetensors"
        save_file(inputs, source)
        subprocess.run([MODEL_TOOL, folder, source, target], check=True)
        return load_file(target)


def distance(found, wanted):
    return float((found.double() - wanted.double()).abs().max() / wanted.double().abs().max().clamp_min(1e-30))


def test_gradients():
    """An adapter that PEFT wrote: logits, loss and the gradients of all its factors."""
    subprocess.run([sys.executable, os.path.join(os.path.dirname(model_oracle.__file__), "make_models.py"), "models",
                    *FAMILIES], check=True, stdout=subprocess.DEVNULL)
    for name in FAMILIES:
        torch.manual_seed(5)
        model = get_peft_model(load_base(f"models/{name}"), LoraConfig(
            r=4, lora_alpha=6, target_modules=MODULES[name], target_parameters=PARAMETERS[name] or None,
            task_type="CAUSAL_LM"))
        with torch.no_grad():
            for key, tensor in model.named_parameters():
                if "lora_B" in key:
                    tensor.copy_(torch.randn(tensor.shape) * 0.05)
        model.peft_config["default"].base_model_name_or_path = os.path.abspath(f"models/{name}")
        model.save_pretrained(f"peft/{name}")
        inputs = inputs_of(name)
        logits = model(input_ids=inputs["input_ids"], use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), inputs["labels"].flatten(), ignore_index=-100)
        loss.backward()
        got = tool_outputs(f"peft/{name}", inputs)
        check(distance(got["logits"], logits) < 1e-5, f"{name}: logits as PEFT's")
        check(distance(got["loss"], loss) < 1e-5, "    and the loss")
        with torch.no_grad():
            for tensor in model.parameters():
                if tensor.requires_grad:
                    tensor.copy_(tensor.grad)
        wanted = {f"grad.{key}": value for key, value in get_peft_model_state_dict(model).items()}
        found = {key for key in got if key.startswith("grad.")}
        check(found == set(wanted), f"    gradients of the {len(wanted)} factors and of nothing else")
        whole = sum(float(value.norm())**2 for value in wanted.values())**0.5
        worst = max(((float((got[key] - value).norm() / (value.norm() + 1e-2 * whole)), key)
                     for key, value in wanted.items() if key in got), default=(1, "none"))
        check(worst[0] < 1e-4, f"    gradients as PEFT's: {worst[0]:.1e} at most ({worst[1]})")


def test_training():
    """What a run saves: an adapter that PEFT loads; the same bits where it is stopped and continued."""
    for name in FAMILIES:
        base, out = f"models/{name}", f"runs/{name}"
        options = ["pretrain", "--load", base, *TRAIN, *LORA]
        done = run([*options, "--train-iters", "4", "--save", out])
        folder = f"{out}/step_0000004"
        check(sorted(os.listdir(folder))[:2] == ["adapter_config.json", "adapter_model.safetensors"] and
              not os.path.exists(f"{folder}/config.json"), f"{name}: saves an adapter and not the model")
        factors = load_file(f"{folder}/adapter_model.safetensors")
        trained = sum(value.numel() for value in factors.values())
        line = next(line for line in done.stdout.splitlines() + done.stderr.splitlines() if line.startswith("trained"))
        check(f"{trained * 4 / 1e6:.4g} of gradients" in line and f"{trained * 8 / 1e6:.4g} of optimizer" in line,
              f"    holds gradients and states of the updates alone: {line}")
        state = load_file(f"{folder}/state/optimizer.safetensors")
        check({key.split(".", 1)[1] for key in state} == set(factors), "    and saves states of nothing else")
        check(all(float(value.abs().max()) > 0 for value in factors.values()), "    all updates were trained")
        inputs = inputs_of(name)
        model = load_peft(folder, base)
        with torch.no_grad():
            logits = model(input_ids=inputs["input_ids"], use_cache=False).logits
        got = tool_outputs(folder, inputs)["logits"]
        plain = load_file(f"{base}/expected.safetensors")["logits"]
        check(distance(got, logits) < 1e-5 and distance(got, plain) > 1e-3, "    PEFT's logits are Moetron's")
        run([*options, "--train-iters", "2", "--save", f"{out}_resumed"])
        run([*options, "--train-iters", "4", "--save", f"{out}_resumed"])
        check(all(open(f"{folder}/{file}", "rb").read() == open(f"{out}_resumed/step_0000004/{file}", "rb").read()
                  for file in ("adapter_model.safetensors", "state/optimizer.safetensors")),
              "    stopped and continued: the same bits")


def test_layouts():
    """Saved on four ranks, continued on one: the same run."""
    name = "deepseek_v3"
    options = ["pretrain", "--load", f"models/{name}", *TRAIN, *LORA]
    layout = "--tensor-model-parallel-size 2 --expert-model-parallel-size 2 --tensor-model-parallel-for-expert 2".split()
    with Ranks([*options, *layout, "--use-distributed-optimizer", "--train-iters", "2", "--save", "runs/ranks"],
               "ranks") as ranks:
        codes = ranks.codes(600)
        check(set(codes.values()) == {0}, f"four ranks train updates: {codes} {ranks.errors()[-300:]}")
    run([*options, "--train-iters", "4", "--save", "runs/ranks"])
    found = load_file("runs/ranks/step_0000004/adapter_model.safetensors")
    wanted = load_file(f"runs/{name}/step_0000004/adapter_model.safetensors")
    worst = max(float((found[key] - value).norm() / value.norm()) for key, value in wanted.items())
    check(found.keys() == wanted.keys() and worst < 1e-3, f"    one rank goes on: {worst:.1e} from one rank's run")
    losses = [[r["loss"] for r in records(folder)] for folder in ("runs/ranks", f"runs/{name}")]
    check(all(abs(a - b) < 1e-5 * b for a, b in zip(*losses)), "    with the same losses")


def test_merging():
    for name in FAMILIES:
        base, adapter = f"models/{name}", f"runs/{name}"
        run(["convert", "--merge-adapter", adapter, "--load", base, "--save", f"merged/{name}"])
        merged = load_peft(f"{adapter}/step_0000004", base).merge_and_unload()
        merged.save_pretrained(f"merged/peft_{name}")
        wanted = load_file(f"merged/peft_{name}/model.safetensors")
        found = load_file(f"merged/{name}/model.safetensors")
        before = load_file(f"{base}/model.safetensors")
        worst = max((distance(found[key], value) for key, value in wanted.items()), default=1)
        changed = [key for key in before if not torch.equal(before[key], found[key])]
        check(found.keys() == wanted.keys() and worst < 1e-6 and len(changed) > 4,
              f"{name}: merged as PEFT does, within {worst:.1e}; {len(changed)} tensors changed")
        speech = ["--tokenizer", "bytes", "--prompt", "ab", "--greedy", "--max-new-tokens", "6"]
        if json.load(open(f"{base}/config.json"))["vocab_size"] >= 257:
            texts = [run(["generate", "--load", folder, *speech]).stdout for folder in (adapter, f"merged/{name}")]
            check(texts[0] == texts[1], "    and speaks as the adapter does")


def test_refusals():
    options = ["pretrain", "--load", "models/qwen3_moe", *TRAIN, "--train-iters", "5"]
    for more, text in (
            (["--lora-rank", "4", "--lora-targets", "gate"], "lora-targets (gate) names no linear layer"),
            (["--lora-rank", "4", "--lora-dropout", "0.1"], "dropout of what an update reads"),
            (["--lora-rank", "4", "--fp8-format", "e4m3"], "lora-rank (4) does not go with fp8-format"),
            (["--freeze", "routers"], "freeze (routers) is no part of the model"),
            (["--save", "runs/qwen3_moe"], "holds low-rank updates: give lora-rank 4, lora-alpha 6"),
            (["--save", "runs/qwen3_moe", "--lora-rank", "8"], "holds low-rank updates: give lora-rank 4")):
        done = run([*options, *more], code=2)
        check(text in done.stderr, f"    {text}: {done.stderr.strip()[-300:]}")
    shutil.copytree("runs/qwen3_moe/step_0000004", "moved")
    config = json.load(open("moved/adapter_config.json"))
    config["base_model_name_or_path"] = "nowhere"
    json.dump(config, open("moved/adapter_config.json", "w"))
    os.remove("moved/manifest.json")
    done = run(["generate", "--load", "moved", "--tokenizer", "bytes", "--prompt", "a"], code=3)
    check("(nowhere) is no model directory here; name one with --base" in done.stderr, "    a base that is not there")


def test_frozen():
    """Frozen parts have neither gradients nor states."""
    run(["pretrain", "--load", "models/qwen3_moe", *TRAIN, "--train-iters", "2", "--save", "runs/frozen", "--freeze",
         "embedding,router,experts"])
    before = load_file("models/qwen3_moe/model.safetensors")
    after = load_file("runs/frozen/step_0000002/model.safetensors")
    state = load_file("runs/frozen/step_0000002/state/optimizer.safetensors")
    frozen = {key for key in before if "embed_tokens" in key or "mlp.gate." in key or ".experts." in key}
    check(all(torch.equal(before[key], after[key]) == (key in frozen) for key in before), "frozen parts stay")
    check({key.split(".", 1)[1] for key in state} == set(before) - frozen, "    and have no states")
    done = run(["pretrain", "--load", "models/qwen3_moe", *TRAIN, "--train-iters", "2", *LORA, "--dry-run"])
    check("trained   low-rank updates (rank 4, scale 1.5)" in done.stdout, "    a dry run says what is trained")


if __name__ == "__main__":
    run_tests(test_gradients, test_training, test_layouts, test_merging, test_refusals, test_frozen)
