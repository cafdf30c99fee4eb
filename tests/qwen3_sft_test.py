#!/usr/bin/env python3
"""The guide's fine-tuning walk (docs/qwen3_sft.md) as printed, from its data step to its answers: a Qwen3-MoE of four
layers that transformers made stands in for Qwen3-30B-A3B, and eight CPU ranks for eight GPUs. The commands are the
guide's but for the schedule and the folder of a second run; what is smaller is said by variables that they do not set.

    qwen3_sft_test.py MOETRON
"""
import json
import os
import re
import shutil
import subprocess
import sys

import torch
from process_support import ENVIRONMENT, HANG, MOETRON, check, free_port, records, run_tests
from safetensors.torch import load_file, save_file
from sft_test import FACTS, answers, make_model, make_tokenizer, newest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPTS = os.path.join(ROOT, "examples", "qwen3_sft")
STEPS = 4  # of runs that are only compared; the one that learns has 40
SMALL = "--device cpu --fp32 --log-interval 1 --save-interval 0 --sample-answers 0"
# Four layers in more stages than that: some have none.
STAGES = {(1, "1f1b"): "1 1 1 1", (1, "dualpipev"): "1 0 1 0 1 0 1 0", (2, "1f1b"): "1 0 1 0 1 0 1 0",
          (2, "dualpipev"): "1 0 0 1 0 0 0 0 1 0 0 0 0 0 0 1"}
DATA_STEP = """python3 scripts/alpaca_to_openai.py ${QWEN3_SFT_WORKSPACE}/data/alpaca_data_zh_51k.json \
${QWEN3_SFT_WORKSPACE}/data/alpaca_converted.json"""
ONE_NODE = "WORLD_SIZE=1\nRANK=0\n"  # what the commands for several nodes leave to the platform
TRAINING = """export QWEN3_SFT_WORKSPACE=${QWEN3_SFT_WORKSPACE:-/mnt/public/example_qwen3_sft}
export PROJECT_PATH=${PROJECT_PATH:-/root/megatron-infinigence}
%(nodes)sexport NNODES=${WORLD_SIZE}
export CUDA_DEVICE_MAX_CONNECTIONS=1
export NODE_RANK=${RANK}
export TD=allgather
export SCHD=%(schedule)s
export TP=1
export TPE=1
export EP=%(ep)s
export PP=%(pp)s
export LOAD_PATH=${QWEN3_SFT_WORKSPACE}/qwen3_30b_a3b_mg_tp1_tpe1_ep%(ep)s_pp%(pp)s
export SAVE_PATH=${QWEN3_SFT_WORKSPACE}/%(save)s
export CPU_ADAM=1
export TIME=$(date +"%%Y%%m%%d%%H%%M%%S")
export log_path=${PROJECT_PATH}/result/NNODES${NNODES}_${TIME}_test_TP${TP}_TPE${TPE}_EP${EP}_PP${PP}
export GROUP_GEMM_TE=1
if [ ! -d "$log_path" ]; then
echo ${log_path}
mkdir -p ${log_path}
fi
bash ${PROJECT_PATH}/megatron_infini/examples/qwen3_sft/qwen3_30b_a3b_sft.sh 2>&1 | tee -a ${log_path}/rank${NODE_RANK}.log
"""
LAYOUTS = {1: {"ep": 2, "pp": 4}, 2: {"ep": 1, "pp": 8}}
FOLDERS = {1: "qwen3_30b_a3b_mg_tp1_tpe1_ep2_pp4", 2: "qwen3_30b_a3b_mg_tp1_tpe1_ep1_pp8"}
RELEASE = "qwen3_30b_a3b_hf_release"


def environment(**variables):
    """No torchrun in PATH: `moetron launch` starts the ranks. The guide's project has Moetron as megatron_infini."""
    kept = {name: value for name, value in ENVIRONMENT.items()
            if name not in ("WORLD_SIZE", "RANK", "LOAD_PATH", "SAVE_PATH", "log_path")}
    return {**kept, "PATH": os.path.abspath("bin") + ":/usr/bin:/bin", "MOETRON": MOETRON,
            "PROJECT_PATH": os.path.abspath("project"), "QWEN3_SFT_WORKSPACE": os.path.abspath("ws"),
            "MASTER_PORT": str(free_port()), "EXTRA_ARGS": SMALL, "TRAIN_ITERS": "40", "LR": "8e-3",
            "MAX_SEQ_LEN": "64", **{name: str(value) for name, value in variables.items()}}


def shell(text, code=0, cwd=None, **variables):
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=HANG, cwd=cwd,
                          env=environment(**variables))
    if done.returncode != code:
        print(done.stdout[-2000:], done.stderr[-3000:])
    check(done.returncode == code, f"exit {code}: {text.strip().splitlines()[-1][-100:]}")
    return done


def training(layout, schedule="1f1b", save=None, nodes=ONE_NODE):
    return TRAINING % {**LAYOUTS[layout], "schedule": schedule, "save": save or FOLDERS[layout], "nodes": nodes}


def short(layout, schedule="1f1b"):
    """The first steps of the same run."""
    return {"EXTRA_ARGS": f"{SMALL} --exit-interval {STEPS}", "HPP": STAGES[layout, schedule]}


def losses(folder):
    return [record["loss"] for record in records(folder)]


def weights(folder):
    return load_file(os.path.join(folder, "model.safetensors"))


def same_weights(first, second):
    first, second = weights(first), weights(second)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def make_downloads(workspace):
    """What the guide's data step downloads."""
    os.makedirs(f"{workspace}/data")
    make_model(f"{workspace}/qwen3_30b_a3b_hf", moe=True)
    make_tokenizer().save_pretrained(f"{workspace}/qwen3_30b_a3b_tokenizer")
    with open(f"{workspace}/data/alpaca_data_zh_51k.json", "w") as out:
        json.dump([{"instruction": question, "input": "", "output": answer} for question, answer in FACTS], out,
                  ensure_ascii=False)


def test_data_step():
    os.makedirs("bin")
    os.symlink("/usr/bin/python3", "bin/python")
    os.makedirs("project")
    os.symlink(ROOT, "project/megatron_infini")
    make_downloads("ws")
    shell(DATA_STEP, cwd=ROOT)
    with open("ws/data/alpaca_converted.json") as lines:
        said = [[(turn["role"], turn["content"]) for turn in json.loads(line)["messages"]] for line in lines]
    check(said == [[("user", question), ("assistant", answer)] for question, answer in FACTS],
          "each record is a conversation of OpenAI's shape")
    shutil.copytree("ws", "ws2")  # where nothing is converted for Megatron


def test_before_anything_is_there():
    """What a dry run and --check-layout of the scripts say without a model, conversations or a workspace."""
    for command in ("one_click.sh --dry-run", "one_click.sh 2 --dry-run", "qwen3_30b_a3b_sft.sh --dry-run",
                    "qwen3_30b_a3b_sft.sh --check-layout"):
        done = shell(f"bash {SCRIPTS}/{command}", QWEN3_SFT_WORKSPACE="/nowhere", EXTRA_ARGS="", TRAIN_ITERS="", LR="",
                     MAX_SEQ_LEN="", TP=1, TPE=1, EP=2, PP=4, NNODES=1, NODE_RANK=0, CPU_ADAM=1)
        says = "checked     ep 2, pp 4, dp 2 on 8" if "check" in command else "30,532 M parameters"
        check("the shape is that of the released" in done.stdout and says in done.stdout, f"    {command}: {says}")
        check(not os.path.exists("/nowhere"), "    makes nothing")


def test_to_megatron():
    """The files of both layouts; they hold the model's bits, and training needs none of them."""
    for layout, folder in FOLDERS.items():
        done = shell(f"bash {SCRIPTS}/convert-hf_mg-qwen3_30b_a3b-{layout}.sh", HPP=STAGES[layout, "1f1b"])
        check("training needs none of them" in done.stdout, "    says that training needs none")
        check(len(os.listdir(f"ws/{folder}/release")) == 8, f"    {folder}: a file for each of 8 ranks")
        shell(f"bash {SCRIPTS}/convert-mg_hf-qwen3_30b_a3b-{layout}.sh", RELEASE_PATH=f"back{layout}")
        check(same_weights(f"back{layout}", "ws/qwen3_30b_a3b_hf"), "    and back: the same bits")


def test_training():
    """Layout 1 learns the facts; the other layout and schedule, each on its way, have the same losses. A second run from
    a layout's files comes first: afterwards its folder has checkpoints, which go before Megatron's files."""
    runs = ((1, "dualpipev", "dual1"), (2, "dualpipev", "dual2"), (2, "1f1b", FOLDERS[2]))
    for layout, schedule, save in runs:
        done = shell(training(layout, schedule, save), **short(layout, schedule))
        check(f"pipeline  {schedule}" in done.stdout, f"    layout {layout}, {schedule}")
    done = shell(training(1))
    log = re.search(r"^.*/result/NNODES1_\d{14}_test_TP1_TPE1_EP2_PP4$", done.stdout, re.M)
    text = open(f"{log[0]}/rank0.log").read() if log else ""
    check(log and log[0].startswith(os.path.abspath("project")) and text in done.stdout and "steps     0 to 40" in text,
          "the log is where the guide has it, once")
    check("was not converted" not in text and "layers 1 1 1 1" in text, "    of the Megatron files")
    wanted = losses(f"ws/{FOLDERS[1]}")
    check(len(wanted) == 40 and wanted[-1] < 0.3, f"    40 steps, the last loss {wanted[-1]}")
    check(os.path.exists(f"ws/{FOLDERS[1]}/latest_checkpointed_iteration.txt"), "    and the Megatron files stay")
    for layout, schedule, save in runs:
        found = losses(f"ws/{save}")
        worst = max(abs(a / b - 1) for a, b in zip(found, wanted))
        check(len(found) == STEPS and worst < 1e-5, f"layout {layout}, {schedule}: losses within {worst:.1e}")
        check(found == losses("ws/" + FOLDERS[layout])[:STEPS], "    of 1f1b's bits in this layout")


def test_two_nodes():
    """Two launches are two nodes. Nothing was converted: both load the Hugging Face model, and say so."""
    for layout in LAYOUTS:
        shared = {**short(layout), "QWEN3_SFT_WORKSPACE": os.path.abspath("ws2"), "WORLD_SIZE": 2, "GPUS_PER_NODE": 4,
                  "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        script = "set -o pipefail; " + training(layout, nodes="")
        nodes = [subprocess.Popen(["bash", "-c", script], env=environment(**shared, RANK=rank), text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for rank in range(2)]
        said = [node.communicate(timeout=HANG)[0] for node in nodes]
        codes = [node.returncode for node in nodes]
        check(codes == [0, 0], f"layout {layout} on two nodes: exit {codes}")
        if codes != [0, 0]:
            print(*(text[-2000:] for text in said))
        check(all("was not converted, which training does not need: loads " in text for text in said),
              "    without Megatron's files")
        check(losses(f"ws2/{FOLDERS[layout]}") == losses(f"ws/{FOLDERS[layout]}")[:STEPS], "    one node's losses")
    logs = [name for name in os.listdir("project/result") if name.startswith("NNODES2_") and name.endswith("EP2_PP4")]
    names = sorted(name for log in logs for name in os.listdir(f"project/result/{log}"))
    check(names == ["rank0.log", "rank1.log"], f"    a log for each node: {names}")


def test_going_on():
    """The same commands again continue, bit for bit."""
    shell(training(1), **short(1), QWEN3_SFT_WORKSPACE=os.path.abspath("ws2"))
    check(losses(f"ws2/{FOLDERS[1]}") == losses(f"ws/{FOLDERS[1]}")[:2 * STEPS], "the same commands go on")


def test_release():
    for layout in (2, 1):
        done = shell(f"bash {SCRIPTS}/convert-mg_hf-qwen3_30b_a3b-{layout}.sh")
        check("what training has saved last" in done.stdout, "    of what training saved, not of what it loaded")
        check(same_weights(f"ws/{RELEASE}", newest(f"ws/{FOLDERS[layout]}")), "    the trained weights' bits")
    kept = [name for name in os.listdir("ws") if name.startswith(RELEASE + "_until_")]
    check(len(kept) == 1 and same_weights(f"ws/{kept[0]}", newest(f"ws/{FOLDERS[2]}")), "an earlier release is kept")
    check(answers(f"ws/{RELEASE}") == [answer for _, answer in FACTS], "transformers gives the answers of the data")


def test_answers():
    command = f"python {SCRIPTS}/simple_test.py --load-path ${{QWEN3_SFT_WORKSPACE}}/{RELEASE}"
    done = shell(command)
    check(done.stdout.count("> ") == 3, "simple_test.py asks three questions")
    for question, answer in FACTS[:2]:
        done = shell(f"{command} --prompt '{question}'")
        check(done.stdout == f"> {question}\n{answer}\n", f"    and what is asked: {done.stdout!r}")
    shutil.copytree(f"ws/{RELEASE}", "broken", ignore=shutil.ignore_patterns("manifest.json"))
    tensors = weights("broken")
    tensors["lm_head.weight"].zero_()
    save_file(tensors, "broken/model.safetensors")
    done = shell(f"python {SCRIPTS}/simple_test.py --load-path broken", code=1)
    check("of broken are not sound" in done.stderr, "a model that has lost its head is told")
    refused(f"python {SCRIPTS}/simple_test.py --load-path nowhere", 3, "load-path: there is no folder nowhere")
    refused(f"{command} --typo", 2, "unknown option --typo")


def test_one_click():
    """From nothing but a name: what would be downloaded comes from programs that copy it. Then once more."""
    os.makedirs("store/data")
    shutil.copytree(f"ws/{RELEASE}", "store/qwen3_30b_a3b_hf")
    shutil.copytree("ws/qwen3_30b_a3b_tokenizer", "store/qwen3_30b_a3b_tokenizer")
    with open("bin/modelscope", "w") as out:
        out.write(f"""#!/bin/bash
[ "$1 $2 $3" = "download --model Qwen/Qwen3-30B-A3B" ] && to="${{@: -1}}" && cp -r {os.path.abspath("store")}/"$(basename "$to")"/* "$to"
""")
    with open("bin/wget", "w") as out:
        out.write(f"""#!/bin/bash
[ "${{1##*/}}" = alpaca_data_zh_51k.json ] && cp {os.path.abspath("ws")}/data/alpaca_data_zh_51k.json "$3"
""")
    for name in ("modelscope", "wget"):
        os.chmod(f"bin/{name}", 0o755)
    settings = {"QWEN3_SFT_WORKSPACE": os.path.abspath("ws3"), "TRAIN_ITERS": 2, "LR": "1e-5", "CPU_ADAM": 0}
    done = shell(f"bash {SCRIPTS}/one_click.sh", **settings)
    check([line.split()[1].rsplit("/", 1)[-1] for line in done.stdout.splitlines() if line.startswith("+ ")] ==
          ["modelscope", "modelscope", "wget", "alpaca_to_openai.py", "convert-hf_mg-qwen3_30b_a3b-1.sh",
           "qwen3_30b_a3b_sft.sh", "convert-mg_hf-qwen3_30b_a3b-1.sh", "simple_test.py"], "runs each step, and says it")
    check(answers(f"ws3/{RELEASE}") == [answer for _, answer in FACTS], "    and has a model that answers")
    done = shell(f"bash {SCRIPTS}/one_click.sh 2", **settings, SCHD="dualpipev", HPP=STAGES[2, "dualpipev"], MEGATRON=0)
    check("modelscope" not in done.stdout and "convert-hf_mg" not in done.stdout and "pipeline  dualpipev" in done.stdout,
          "the other layout and schedule, with what is there")
    check(os.path.exists(f"project/result/{sorted(os.listdir('project/result'))[-1]}/rank0.log"), "    and a log")


def refused(command, code, sentence, **variables):
    """What a user did wrong: one sentence, no trace."""
    done = shell(command, code=code, **variables)
    lines = [line for line in (done.stdout + done.stderr).splitlines()
             if not re.match(r"log: |\S+: these files are for Megatron", line)]
    check(len(lines) == 1 and sentence in lines[0], f"    {' // '.join(lines)[-170:]}")


def test_mistakes():
    train = f"{SCRIPTS}/qwen3_30b_a3b_sft.sh"
    to_megatron = f"{SCRIPTS}/convert-hf_mg-qwen3_30b_a3b-1.sh"
    good = {"TP": 1, "TPE": 1, "EP": 2, "PP": 4, "NNODES": 1, "NODE_RANK": 0}
    refused(train, 2, "qwen3_30b_a3b_sft.sh: set TP TPE EP PP NNODES NODE_RANK in the environment")
    for script in (train, to_megatron, f"{SCRIPTS}/convert-mg_hf-qwen3_30b_a3b-2.sh"):
        refused(script, 3, "QWEN3_SFT_WORKSPACE: there is no folder /nowhere", **good, QWEN3_SFT_WORKSPACE="/nowhere")
    refused(train, 3, "DATA_PATH: there is no file away.json", **good, DATA_PATH="away.json")
    refused(train, 3, "LOAD_PATH: there is no folder away", **good, LOAD_PATH="away")
    refused(train, 2, "--scheduler expects one of 1f1b,", **good, SCHD="1f1c", SAVE_PATH="no1")
    refused(train, 2, "not \"allgatter\"", **good, TD="allgatter", SAVE_PATH="no2")
    refused(train, 2, "the number of ranks (4) must be a multiple of", **{**good, "EP": 1, "PP": 8}, GPUS_PER_NODE=4, SAVE_PATH="no3", HPP=STAGES[2, "1f1b"])
    refused(f"{train} --dri", 2, "unknown argument --dri", **good)
    refused(to_megatron, 3, "HF_PATH: away holds no model", HF_PATH="away")
    refused(to_megatron, 2, FOLDERS[1] + " is there already")
    refused(f"{to_megatron} 4", 2, "unknown argument 4")
    refused(f"{SCRIPTS}/convert-mg_hf-qwen3_30b_a3b-1.sh", 3, "SAVE_PATH: away holds neither", SAVE_PATH="away")
    refused(f"{SCRIPTS}/one_click.sh 3", 2, "layout (3) must be 1 or 2")
    refused(f"{SCRIPTS}/one_click.sh", 2, "NNODES (2) must be 1", NNODES=2)
    os.remove("bin/modelscope")
    refused(f"{SCRIPTS}/one_click.sh", 3, "neither is modelscope", QWEN3_SFT_WORKSPACE=os.path.abspath("ws4"))
    check(not any(os.path.exists(name) for name in ("no1", "no2", "no3")), "none of them has begun to train")


def test_installed():
    """As `make install` lays it out: the program is found beside the scripts, logs are in the current folder."""
    os.makedirs("usr/bin")
    os.makedirs("usr/share/moetron/scripts")
    os.symlink(MOETRON, "usr/bin/moetron")
    shutil.copytree(os.path.join(ROOT, "examples"), "usr/share/moetron/examples")
    with open(os.path.join(ROOT, "cmake", "install.cmake")) as file:
        text = file.read()
    for script in re.findall(r"scripts/(\w+\.\w+)", text):
        shutil.copy(os.path.join(ROOT, "scripts", script), "usr/share/moetron/scripts")
    settings = {"MOETRON": "", "PROJECT_PATH": "", "QWEN3_SFT_WORKSPACE": os.path.abspath("ws4"), "TRAIN_ITERS": 2,
                "LR": "1e-5", "HF_PATH": os.path.abspath("store/qwen3_30b_a3b_hf"),
                "TOKENIZER_PATH": os.path.abspath("store/qwen3_30b_a3b_tokenizer"), "MEGATRON": 0}
    os.makedirs("here")
    shell(f"bash {os.path.abspath('usr')}/share/moetron/examples/qwen3_sft/one_click.sh", cwd="here", **settings)
    check(len(os.listdir("here/result")) == 1, "an installation walks, and logs where it is called")


if __name__ == "__main__":
    run_tests(test_data_step, test_before_anything_is_there, test_to_megatron, test_training, test_two_nodes, test_going_on,
              test_release, test_answers, test_one_click, test_mistakes, test_installed)
