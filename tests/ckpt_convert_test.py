#!/usr/bin/env python3
"""Runs the guide's conversions to Megatron's files and back as its readers do: the two commands of its Step 2, as
printed but for the paths, and the scripts of tools/ckpt_convert. Every weight comes back bit for bit.

    ckpt_convert_test.py MOETRON
"""
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles"))
from process_support import ENVIRONMENT, HANG, MOETRON, check, records, run, run_tests

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import make_models

TOOLS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tools", "ckpt_convert")
STEP_2 = r"""
SCRIPT_PATH={tools}/src
CKPT_PATH_HF={folder}/DeepSeek-V3
CKPT_PATH_MF={folder}/DeepSeek-V3_middle_file
CKPT_PATH_MG={folder}/DeepSeek-V3_mg_tp1_pp2
TP_SIZE=1
PP_SIZE=2
rm -rf $CKPT_PATH_MF
python $SCRIPT_PATH/convert_hf_to_middle_file.py \
--load-path $CKPT_PATH_HF \
--save-path $CKPT_PATH_MF \
--model 'DeepSeek-V3' \
--use-gpu-num 0 \
--process-num 16
rm -rf $CKPT_PATH_MG
python $SCRIPT_PATH/convert_middle_file_to_mg.py \
--load-path $CKPT_PATH_MF \
--save-path $CKPT_PATH_MG \
--model 'DeepSeek-V3' \
--tp-size $TP_SIZE \
--tpe-size 1 \
--ep-size 1 \
--pp-size $PP_SIZE \
--use-gpu-num 0 \
--process-num 16
rm -rf $CKPT_PATH_MF
"""


def shell(script, **variables):
    path = os.path.dirname(sys.executable) + os.pathsep + ENVIRONMENT["PATH"]
    done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, timeout=HANG,
                          env={**ENVIRONMENT, "PATH": path, "MOETRON": MOETRON, **variables})
    check(done.returncode == 0, f"runs: {script.strip()[:90]!r}")
    if done.returncode != 0:
        print(done.stdout[-1000:], done.stderr[-2000:])


def make_model(name, folder, seed=0):
    """A tiny model in bf16, with the layer of multi-token prediction where its family has one."""
    model = make_models.build(name, seed).to(torch.bfloat16)
    for tensor, weight in model.named_buffers():
        if tensor.endswith("e_score_correction_bias"):
            weight.data = weight.data.float()
    model.save_pretrained(folder)


def same_weights(first, second):
    first, second = (load_file(os.path.join(folder, "model.safetensors")) for folder in (first, second))
    check(first.keys() == second.keys() and all(first[name].dtype == second[name].dtype and
                                                torch.equal(first[name], second[name]) for name in first),
          "every weight comes back bit for bit")


def test_step_2():
    folder = os.path.abspath("step_2")
    hf, mg, back = (os.path.join(folder, name) for name in ("DeepSeek-V3", "DeepSeek-V3_mg_tp1_pp2", "back"))
    make_model("deepseek_v3", hf)
    shell(STEP_2.format(tools=TOOLS, folder=folder))
    check(sorted(os.listdir(os.path.join(mg, "release"))) == ["mp_rank_00_000", "mp_rank_00_001"],
          "a file for each pipeline rank")
    file = torch.load(os.path.join(mg, "release", "mp_rank_00_001", "model_optim_rng.pt"), weights_only=False)
    check(file["args"].pipeline_model_parallel_size == 2 and "output_layer.weight" in file["model"],
          "torch opens what the second rank has")
    run(["convert", "--load", mg, "--save", back, "--to", "hf", "--verify"])
    same_weights(hf, back)


def test_scripts():
    folder = os.path.abspath("scripts")
    hf, mg, back = (os.path.join(folder, name) for name in ("hf", "mg", "back"))
    make_model("qwen2", hf)
    shell(f"{TOOLS}/examples/1.hf-mg-cpu-distil_qwen2_1.5b.sh", CKPT_PATH_HF=hf, CKPT_PATH_MG=mg, TP_SIZE="2")
    shell(f"{TOOLS}/examples/2.mg-hf-cpu-distil_qwen2_1.5b.sh", CKPT_PATH_HF=back, CKPT_PATH_MG=mg)
    same_weights(hf, back)
    again, last = mg + "_7b", back + "_7b"
    shell(f"{TOOLS}/examples/3.hf-mg-cpu-distil_qwen2_7b.sh", CKPT_PATH_HF=hf, CKPT_PATH_MG=again, PP_SIZE="2")
    shell(f"{TOOLS}/examples/4.mg-hf-cpu-distil_qwen2_7b.sh", CKPT_PATH_HF=last, CKPT_PATH_MG=again)
    same_weights(hf, last)
    shell(f"{TOOLS}/tests/2.hf-middle_file1-mg-middle_file2-check-gpu-qwen2.sh", CKPT_PATH_HF=hf, PP_SIZE="2",
          WORK_PATH=folder)
    qwen3 = os.path.join(folder, "qwen3")
    make_model("qwen3", qwen3)
    shell(f"{TOOLS}/tests/1.hf-middle_file-hf-check-cpu-qwen3.sh", CKPT_PATH_HF=qwen3, WORK_PATH=folder)


def test_layouts():
    """What has no oracle: dualpipev's placement, TransformerEngine's names, and a layout read as another."""
    folder = "layouts"
    hf, v, loop, back = (os.path.join(folder, name) for name in ("hf", "v", "loop", "back"))
    make_model("deepseek_v3", hf)
    run(["convert", "--load", hf, "--save", v, "--to", "megatron", "--verify", "--scheduler", "dualpipev",
         "--pp-size", "2", "--ep-size", "2", "--tp-size", "2", "--moe-grouped-gemm",
         "--virtual-hetero-pipeline-stages", "1", "1", "1", "0"])
    file = torch.load(f"{v}/release/mp_rank_00_000_000/model_optim_rng.pt", weights_only=False)
    check("embedding.word_embeddings.weight" in file["model0"] and "output_layer.weight" in file["model1"],
          "embedding and head lie on the first rank")
    run(["convert", "--load", v, "--save", loop, "--to", "megatron", "--verify", "--pp-size", "3",
         "--transformer-impl", "local"])
    run(["convert", "--load", loop, "--save", back, "--to", "hf"])
    same_weights(hf, back)


def test_training_starts_from_it():
    """As the guide's fine-tuning does: from Megatron's folder, and saving into it."""
    folder = "start"
    hf, mg = os.path.join(folder, "hf"), os.path.join(folder, "mg")
    make_model("qwen3_moe", hf)
    run(["convert", "--load", hf, "--save", mg, "--to", "megatron", "--tp-size", "2", "--pp-size", "2"])
    path = f"{mg}/release/mp_rank_01_001/model_optim_rng.pt"
    with open(path, "rb") as file:
        before = file.read()
    train = ["pretrain", "--mock-data", *"""--seq-length 16 --micro-batch-size 1 --global-batch-size 2 --train-iters 3
             --lr 1e-3 --fp32 --eval-iters 0""".split()]
    run([*train, "--load", hf, "--save", f"{folder}/from_hf"])
    run([*train, "--load", mg, "--save", mg])
    check([r["loss"] for r in records(mg)] == [r["loss"] for r in records(f"{folder}/from_hf")],
          "losses are those of the model that it was made of")
    with open(path, "rb") as file:
        check(file.read() == before, "the files of its ranks are as they were")
    check(os.path.exists(f"{mg}/step_0000003/config.json"), "checkpoints lie beside them")
    run([*train, "--load", mg, "--save", mg, "--train-iters", "4", "--accept-changes"])
    check(len(records(mg)) == 4, "the same command continues the run")
    check_iterations(folder, mg, train)
    run(["convert", "--load", hf, "--save", mg + "2", "--to", "megatron"])
    for name in os.listdir(mg + "2"):
        if name.endswith(".json"):
            os.remove(f"{mg}2/{name}")
    check_without_config(folder, hf, mg + "2", train)


def check_iterations(folder, mg, train):
    """--ckpt-step takes one of several iterations; the last that Megatron noted is another model's."""
    both, losses = f"{folder}/iterations", lambda save: [record["loss"] for record in records(save)]
    make_model("qwen3_moe", f"{folder}/other_hf", 7)
    run(["convert", "--load", f"{folder}/other_hf", "--save", both, "--to", "megatron"])
    os.rename(f"{both}/release", f"{both}/iter_0000010")
    shutil.copytree(f"{mg}/release", f"{both}/iter_0000005")
    with open(f"{both}/latest_checkpointed_iteration.txt", "w") as file:
        file.write("10")
    for save in (f"{folder}/from_5", both):
        for steps in ("3", "4"):
            run([*train, "--load", both, "--ckpt-step", "5", "--save", save, "--train-iters", steps])
        check(len(losses(save)) == 4 and losses(save)[:3] == losses(f"{folder}/from_hf"),
              f"--ckpt-step 5 begins with that iteration, and is continued in {save}")
    run([*train, "--load", both, "--save", f"{folder}/from_10", "--finetune"])
    check(losses(f"{folder}/from_10")[0] != losses(f"{folder}/from_hf")[0], "    without it the last one is taken")
    text = lambda *load: run(["generate", "--tokenizer", "bytes", "--prompt", "a", "--greedy", "--max-new-tokens", "4",
                              "--load", *load]).stdout
    shutil.rmtree(f"{both}/step_0000003")
    shutil.rmtree(f"{both}/step_0000004")
    check(text(both, "--ckpt-step", "5") == text(mg + "/release") != text(both), "    by generate, too")
    done = run([*train, "--load", both, "--ckpt-step", "7", "--save", f"{folder}/none"], code=3)
    check("holds no step 7" in done.stderr, "    and one that is not there is refused")


# Of the tiny Qwen3-MoE, for a model that nothing else tells of.
SHAPE = """--model-family qwen --num-layers 3 --hidden-size 64 --ffn-hidden-size 96 --num-attention-heads 4
  --group-query-attention --num-query-groups 2 --kv-channels 24 --max-position-embeddings 512 --qk-layernorm
  --num-experts 8 --moe-router-topk 2 --moe-ffn-hidden-size 32 --rotary-base 1000000 --vocab-size 128
  --untie-embeddings-and-output-weights --moe-aux-loss-coeff 0.001 --moe-router-load-balancing-type aux_loss""".split()


def check_without_config(folder, hf, mg, train):
    """The files' own arguments tell the model; where they tell none, options do."""
    losses = lambda save: [record["loss"] for record in records(f"{folder}/{save}")]
    run([*train, "--load", mg, "--save", f"{folder}/told"])
    check(losses("told") == losses("from_hf"), "without config.json, Megatron's arguments tell the same model")
    again = AutoModelForCausalLM.from_pretrained(f"{folder}/told/step_0000003")
    check(again.config.num_experts == 8, "    which is saved so that transformers loads it")
    run([*train, "--load", mg, "--save", f"{folder}/told", "--train-iters", "4"])
    check(len(losses("told")) == 4, "    and continued")
    done = run([*train, "--load", mg, "--save", f"{folder}/none", "--hidden-size", "32"], code=2)
    check("hidden-size (32) contradicts" in done.stderr and "model_optim_rng.pt says 64" in done.stderr,
          "    and compared with options")
    texts = [run(["generate", "--load", load, "--tokenizer", "bytes", "--prompt", "a", "--greedy",
                  "--max-new-tokens", "4"]).stdout for load in (hf, mg)]
    check(texts[0] == texts[1], "    and generates the same")
    run([*train, "--load", mg, "--load-layers", "1-2", "--save", f"{folder}/two_mg"])
    run([*train, "--load", hf, "--load-layers", "1-2", "--save", f"{folder}/two_hf"])
    check(losses("two_mg") == losses("two_hf"), "    of whose layers some can be taken")
    run(["convert", "--load", mg, "--save", f"{folder}/told_hf", "--to", "hf"])
    same_weights(hf, f"{folder}/told_hf")
    path = f"{mg}/release/mp_rank_00/model_optim_rng.pt"
    file = torch.load(path, weights_only=False)
    del file["args"].hidden_size
    torch.save(file, path)
    done = run([*train, "--load", mg, "--save", f"{folder}/none"], code=2)
    check("num-layers is missing: without a model in --load the options must give its shape" in done.stderr,
          "where arguments tell no model, it says what options must")
    done = run(["convert", "--load", mg, "--save", f"{folder}/none", "--to", "hf"], code=3)
    check("its args do not tell the model" in done.stderr and "(model-files)" in done.stderr, "    or convert needs")
    run(["generate", "--load", mg, "--tokenizer", "bytes", "--prompt", "a", "--max-new-tokens", "1"], code=3)
    run([*train, "--load", mg, "--load-layers", "0-1", "--save", f"{folder}/none"], code=3)
    run([*train, *SHAPE, "--load", mg, "--save", f"{folder}/described"])
    check(losses("described") == losses("from_hf"), "and with them it is the same model")


def test_mistakes():
    folder = "mistakes"
    hf, mg = os.path.join(folder, "hf"), os.path.join(folder, "mg")
    make_model("qwen3_moe", hf)
    start = ["convert", "--load", hf, "--save", mg, "--to", "megatron"]
    done = run([*start, "--ep-size", "3"], code=2)
    check("expert-model-parallel-size (3) must divide the number of experts (8)" in done.stderr, "names both numbers")
    run([*start, "--dtype", "fp8"], code=2)
    check(not os.path.exists(mg), "nothing is written")
    run(start)
    done = run(start, code=2)
    check("is there already" in done.stderr, "a folder that is there is kept")
    path = f"{mg}/release/mp_rank_00/model_optim_rng.pt"
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) // 2)
    done = run(["convert", "--load", mg, "--save", hf + "2", "--to", "hf"], code=3)
    check(path in done.stderr and not os.path.exists(hf + "2"), "a file that is cut short is named")
    weights = load_file(f"{hf}/model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, f"{hf}/model.safetensors")
    done = run(["convert", "--load", hf, "--save", mg + "2", "--to", "megatron"], code=3)
    check("model.norm.weight" in done.stderr, "a tensor that is missing is named")


if __name__ == "__main__":
    run_tests(test_step_2, test_scripts, test_layouts, test_training_starts_from_it, test_mistakes)
