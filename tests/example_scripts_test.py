#!/usr/bin/env python3
"""Runs the scripts of examples/ and tools/ as their readers do, for three steps of a small model on CPU ranks, and the
argument lists of the guide as printed (tests/guide/). Sizes and layouts are smaller, everything else is the scripts'.

    example_scripts_test.py MOETRON [--long]

With --long every script runs on four ranks, with and without each optional variable.
"""
import filecmp
import json
import os
import re
import subprocess
import sys

from process_support import ENVIRONMENT, HANG, MOETRON, PYTHON, check, free_port, records, run, run_tests

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPTS = os.path.join(ROOT, "examples", "moe", "nvidia")
IS_LONG = "--long" in sys.argv[2:]
STEPS = 3
# The last of a repeated option wins.
DEEPSEEK = """--hidden-size 32 --num-attention-heads 2 --ffn-hidden-size 48 --moe-ffn-hidden-size 16
  --q-lora-rank 16 --kv-lora-rank 16 --qk-nope-head-dim 8 --qk-rope-head-dim 8 --v-head-dim 8 --kv-channels 8
  --moe-router-topk 2 --lr-warmup-iters 0"""
GROUPS = " --moe-router-num-groups 4 --moe-router-group-topk 2"  # which the guide's list does not have
QWEN = """--hidden-size 32 --num-attention-heads 4 --num-query-groups 2 --ffn-hidden-size 48 --moe-ffn-hidden-size 16
  --moe-router-topk 2 --lr-warmup-iters 0"""
SMALL = {"NUM_EXPERTS": "8", "FIRST_K_DENSE_REPLACE": "1", "MAX_SEQ_LEN": "16", "GLOBAL_BATCH_SIZE": "16",
         "TRAIN_ITERS": str(STEPS)}
# Where the two whole models' scripts save, and those of single nodes begin.
STARTS = {"test_deepseek": f"deepseek/step_000000{STEPS}", "test_qwen3": f"qwen3/step_000000{STEPS}"}
# Of each script: ranks, and what is set besides. Each optional variable stands in some of them.
RUNS = {
    "deepseekv3_671b": (1, {"PP": 1, "EP": 1, "NUM_LAYERS": 4, "CPU_ADAM": 1, "DP_OVERLAP": 1, "SAVE_PATH": "deepseek"}),
    "qwen3_235b": (1, {"PP": 1, "EP": 1, "NUM_LAYERS": 8, "FORCE_DROP_AND_PADDING": 1, "MOE_LAYER_RECOMPUTE": 1,
                       "SAVE_PATH": "qwen3"}),
    "test_deepseek": (4, {"EP": 2, "LOAD_PATH": STARTS["test_deepseek"]}),
    "test_qwen3": (4, {"EP": 2, "LOAD_PATH": STARTS["test_qwen3"]}),
    "test_deepseek_node8": (2, {"EP": 1}),
    "test_deepseek_node8_baseline": (2, {"EP": 1, "RECOMPUTE": 1}),
    "test_deepseek_node16": (4, {"EP": 1}),
    "test_deepseek_node16_baseline": (4, {"EP": 1, "MOE_LAYER_RECOMPUTE": 1}),
    "test_deepseek_node32": (2, {"EP": 1, "PP": 2, "NUM_LAYERS": 4}),
    "test_deepseek_node32_baseline": (2, {"EP": 1, "PP": 2, "NUM_LAYERS": 4, "VPP": 1}),
    "test_qwen3_node8": (4, {"EP": 1}),
    "test_qwen3_node8_baseline": (4, {"EP": 1, "CUDA_DEVICE_MAX_CONNECTIONS": 1}),
    "test_qwen3_node16": (2, {"EP": 1, "PP": 2, "NUM_LAYERS": 3, "HPP": "1 1 0 1", "DP_OVERLAP": 1}),
    "test_qwen3_node16_baseline": (2, {"EP": 1, "PP": 2, "NUM_LAYERS": 3, "HPP": "2 1", "TP": 1}),
    "test_qwen3_node32": (2, {"EP": 1, "PP": 2, "NUM_LAYERS": 4, "GROUP_GEMM": 1}),
    "test_qwen3_node32_baseline": (2, {"TP": 2, "TPE": 2, "EP": 1, "PP": 1, "NUM_LAYERS": 4}),
}


def make_inputs():
    """A tokenizer and token files, in the places where the scripts look for those of the guide."""
    subprocess.run([PYTHON, os.path.join(ROOT, "scripts", "demo_tokenizer.py"), "text", "workspace/DeepSeek-V3", "300"],
                   check=True, stdout=subprocess.DEVNULL)
    os.symlink("DeepSeek-V3", "workspace/Qwen3-30B-A3B")
    for model, name in (("DeepSeek-V3", "deepseekv3"), ("Qwen3-30B-A3B", "qwen3")):
        run(["preprocess", "--input", "text", "--tokenizer-model", "workspace/DeepSeek-V3", "--append-eod",
             "--output-prefix", f"workspace/datasets/{model}/{name}"])


def overlay(script):
    return DEEPSEEK + GROUPS if "deepseek" in script else QWEN


def start(script, ranks, folder, variables):
    """The script's process; what it prints goes into folder.log, its steps into folder/metrics.jsonl."""
    os.makedirs(folder, exist_ok=True)
    environment = {**ENVIRONMENT, **SMALL, "PATH": os.path.dirname(PYTHON) + os.pathsep + os.environ["PATH"],
                   "MOETRON": MOETRON, "PROJECT_PATH": os.getcwd(), "WORKSPACE": os.path.abspath("workspace"),
                   "GPUS_PER_NODE": str(ranks), "TP": "1", "TPE": "1", "NNODES": "1", "NODE_RANK": "0",
                   "MASTER_PORT": str(free_port()), **{name: str(value) for name, value in variables.items()}}
    environment["EXTRA_ARGS"] = f"{overlay(script)} --metrics {folder}/metrics.jsonl {variables.get('EXTRA_ARGS', '')}"
    with open(f"{folder}.log", "w") as log:
        return subprocess.Popen([os.path.join(SCRIPTS, script + ".sh")], env=environment, stdout=log, stderr=log)


def finish(process, folder, what):
    code = process.wait(HANG)
    with open(f"{folder}.log") as log:
        text = log.read()
    steps = [r["step"] for r in records(folder)] if os.path.exists(f"{folder}/metrics.jsonl") else []
    if code != 0 or steps != list(range(1, STEPS + 1)):
        print(text[-3000:])
    check(code == 0 and steps == list(range(1, STEPS + 1)), f"{what}: exit {code}, steps {steps}")
    return text


def losses(folder):
    return [record["loss"] for record in records(folder)]


def run_script(script, ranks, folder, **variables):
    return finish(start(script, ranks, folder, variables), folder, f"{folder}, {ranks} ranks")


def test_scripts():
    make_inputs()
    listed = sorted(name[:-3] for name in os.listdir(SCRIPTS) if name not in ("common.sh", "cut_down.sh"))
    check(listed == sorted(RUNS), f"{len(listed)} scripts, all of them run")
    scripts = list(RUNS)
    for pair in zip(scripts[::2], scripts[1::2]):  # two at a time: a start is mostly one core's work
        processes = [start(script, RUNS[script][0], script, RUNS[script][1]) for script in pair]
        for script, process in zip(pair, processes):
            text = finish(process, script, f"{script}, {RUNS[script][0]} ranks")
            check(re.search(r"^operators the fastest; attention: ", text, re.M), "    says its operators and attention")
            log = re.search(r"^log: (.*/rank0\.log)$", text, re.M)
            check(log and "training samples" in open(log[1]).read(), "    and keeps a log")


def test_schedules():
    """From one checkpoint, which one rank has written, the losses of both schedules are the same bits."""
    for script in STARTS:
        run_script(script, 4, f"{script}_1f1b", **RUNS[script][1], SCHED="1f1b", TD="overlap_deepep")
        check(losses(script) == losses(f"{script}_1f1b"),
              f"{script}: dualpipev and 1f1b from one checkpoint have equal losses {losses(script)}")


def test_two_nodes():
    """Two launches on one machine are two nodes; the losses are those of one node with as many ranks."""
    shared = {**RUNS["test_qwen3"][1], "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "NNODES": 2}
    nodes = [start("test_qwen3", 2, f"node{rank}", {**shared, "NODE_RANK": rank}) for rank in range(2)]
    finish(nodes[0], "node0", "node 0 of two")
    check(nodes[1].wait(HANG) == 0, "node 1 of two: exit 0")
    check(losses("node0") == losses("test_qwen3"), f"losses as on one node: {losses('node0')}")


def test_torchrun():
    """It starts the ranks where it is asked to; else `moetron launch` does."""
    text = run_script("test_qwen3", RUNS["test_qwen3"][0], "by_torchrun", **RUNS["test_qwen3"][1], LAUNCHER="torchrun")
    check("ranks by moetron launch" not in text, "LAUNCHER=torchrun starts the ranks")
    check("ranks by moetron launch" in open("test_qwen3.log").read(), "    without it, moetron launch has")
    check(losses("by_torchrun") == losses("test_qwen3"), f"    and the losses are the same: {losses('by_torchrun')}")


def test_the_guides_lists():
    for name, family, small in (("pretrain_deepseek", "deepseek", DEEPSEEK), ("pretrain_qwen_moe", "qwen", QWEN)):
        with open(os.path.join(ROOT, "tests", "guide", name + ".txt")) as file:
            text = file.read().replace("/workspace/", os.path.abspath("workspace") + "/")
        for variable, value in (("EP", "1"), ("PP", "1"), ("TD", "allgather_fused"), ("PATHS", ""),
                                ("OPTIONAL", '--moe-grouped-gemm-te --module-impl {"core_attn":"local"}')):
            text = text.replace("${" + variable + "}", value)
        done = run(["pretrain", "--model-family", family, *text.split(), *small.split(), *"""--num-layers 2 --num-experts 8
          --seq-length 16 --global-batch-size 4 --lr-decay-iters 3 --train-iters 3""".split(),
                    *["--first-k-dense-replace", "1"] * (family == "deepseek"), "--metrics", f"{name}.jsonl"])
        check(len(open(f"{name}.jsonl").readlines()) == STEPS, f"{name}: three steps as printed")
        if family == "qwen":
            check("model_type moetron" in done.stdout + done.stderr, "    and says that transformers has no such class")


def test_missing_variables():
    environment = {k: v for k, v in ENVIRONMENT.items() if k not in ("NNODES", "NODE_RANK", "WORLD_SIZE", "RANK")}
    done = subprocess.run([f"{SCRIPTS}/qwen3_235b.sh"], env={**environment, "TP": "1"}, capture_output=True, text=True)
    check(done.returncode == 2 and "qwen3_235b.sh: set TPE EP PP NNODES NODE_RANK" in done.stderr, "names what is missing")


def last_line(done):
    return (done.stderr.strip() or done.stdout.strip()).splitlines()[-1]


def test_what_is_named_as_an_example_fits():
    """The command of the tutorial, and what a script without variables names, in full size as dry runs."""
    for script in ("qwen3_235b", "deepseekv3_671b"):
        sentence = last_line(dry_run(script, {}))
        example = dict(word.split("=") for word in sentence.split("for example: ")[1].split()[:-1])
        done = dry_run(script, example, "--dry-run")
        check(done.returncode == 0, f"{script}: {example} fits")
    sentence = last_line(dry_run("test_qwen3_node8", {}))
    check(sentence == "test_qwen3_node8.sh: set NODE_RANK in the environment, for example: NODE_RANK=0 "
          f"{SCRIPTS}/test_qwen3_node8.sh", f"only what is missing: {sentence}")
    with open(os.path.join(ROOT, "docs", "moe-tutorial.md")) as file:
        command = re.search(r"^    (TP=.*\\\n.*qwen3_235b\.sh)$", file.read(), re.M)[1]
    kept = {name: ENVIRONMENT[name] for name in ("PATH", "HOME") if name in ENVIRONMENT}
    done = subprocess.run(["bash", "-c", command + " --dry-run"], cwd=ROOT, env={**kept, "MOETRON": MOETRON},
                          capture_output=True, text=True, timeout=HANG)
    check(done.returncode == 0 and "not here  load /models/" in done.stdout, f"the tutorial's command fits: {last_line(done)}")


def test_wrong_variables():
    for script, variables, sentence in (
            ("test_qwen3_node8", {"NNODES": "two"}, "NNODES (two) must be a whole number from 1 on"),
            ("test_qwen3_node8", {"NODE_RANK": "8"}, "NODE_RANK (8) must be a whole number from 0 to 7"),
            ("test_qwen3", {"GLOBAL_BATCH_SIZE": "0"}, "GLOBAL_BATCH_SIZE (0) must be a whole number from 1 on"),
            ("test_qwen3", {"LAUNCHER": "mpirun"}, "LAUNCHER (mpirun) must be moetron or torchrun"),
            ("test_qwen3", {"LAUNCHER": "torchrun"}, "LAUNCHER (torchrun) is not in PATH")):
        done = dry_run(script, {"NODE_RANK": "0", "PATH": "/usr/bin:/bin", "PROJECT_PATH": "/nowhere", **variables})
        check(done.returncode == 2 and sentence in last_line(done) and len(done.stderr.splitlines()) == 1,
              f"one sentence: {last_line(done)}")
    uneven = {"NODE_RANK": "0", "VPP": "1", "NUM_LAYERS": "32"}
    done = dry_run("test_qwen3_node8_baseline", {**uneven, "HPP": "8 8 8 8"}, "--dry-run")
    check(done.returncode == 2 and last_line(done).endswith("hetero-pipeline-stages (8 8 8 8) means 1 stage a rank, but "
          "num-layers-per-virtual-pipeline-stage (1) means 8"), f"names both: {last_line(done)}")
    done = dry_run("test_qwen3_node8_baseline", {**uneven, "HPP": ""}, "--dry-run")
    check(done.returncode == 0 and "interleaved" in done.stdout, "    and HPP= takes the script's own away")


def test_platforms():
    """Where WORLD_SIZE and RANK count nodes; what speaks for all nodes says the same on each."""
    plain = dry_run("test_qwen3_node8", {}, "--dry-run")
    for variables in ({"WORLD_SIZE": "8", "RANK": "3", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "7000"},
                      {"WORLD_SIZE": "8", "RANK": "0"}, {"SLURM_PROCID": "3", "SLURM_NTASKS": "8"}):
        done = dry_run("test_qwen3_node8", variables, "--dry-run")
        check(done.returncode == 0 and done.stdout == plain.stdout and "64 ranks" in done.stdout, f"a dry run with {variables}")
    done = dry_run("test_qwen3", {"WORLD_SIZE": "1", "RANK": "0"}, "--check-layout")
    check(done.returncode == 0 and "checked     ep 4, pp 2, dp 4 on 8 of 8 ranks" in done.stdout,
          "--check-layout needs neither tokenizer nor data")
    os.makedirs("shared", exist_ok=True)
    shared = {"NODE_RANK": "1", "SHARED_STORAGE": os.path.abspath("shared"), "PROJECT_PATH": os.getcwd()}
    done = dry_run("test_qwen3_node8", {**shared, "SHARE_LIMIT": "1"})
    check(done.returncode == 3 and "waits for node 0" in done.stdout and "within SHARE_LIMIT (1) seconds" in last_line(done),
          f"another node does not wait for ever: {last_line(done)}")
    done = dry_run("test_qwen3_node8", {**shared, "NODE_RANK": "0"})
    check(done.returncode == 3 and "there is no folder /nowhere/datasets to copy" in last_line(done), f"    {last_line(done)}")
    done = dry_run("test_qwen3_node8", {**shared, "PRINT_ONLY": "1"})
    check(f"--data-path {os.path.abspath('shared')}/datasets/" in done.stdout, "    and reads the copy")


# Of a whole model's script on 32 nodes, as the test_ scripts of that size have it.
WHOLE = {"NNODES": "32", "TP": "2", "TPE": "1", "EP": "16", "SCHED": "dualpipev", "TD": "overlap_deepep",
         "GROUP_GEMM_TE": "1", "MLP_RECOMPUTE": "1"}
FULL_SIZE = {"deepseekv3_671b": {**WHOLE, "PP": "16", "CPU_ADAM": "1"}, "qwen3_235b": {**WHOLE, "PP": "8"}}
# The guide's rows on 8 nodes that no script has by default; it ran them on GPUs of 80 GB.
PUBLISHED = {"test_qwen3_node8": {"EP": "8", "NUM_LAYERS": "22", "HPP": "2 3 3 3 2 3 3 3"},
             "test_qwen3_node8_baseline": {"EP": "8", "NUM_LAYERS": "22", "HPP": "5 6 6 5"}}


def dry_run(script, variables, *arguments):
    """In full size, without anything that the script names, and without a launcher."""
    kept = {name: ENVIRONMENT[name] for name in ("PATH", "HOME") if name in ENVIRONMENT}
    return subprocess.run([os.path.join(SCRIPTS, script + ".sh"), *arguments], capture_output=True, text=True,
                          env={**kept, "MOETRON": MOETRON, "WORKSPACE": "/nowhere", **variables}, timeout=HANG)


def test_dry_runs():
    for script in RUNS:
        variables = FULL_SIZE.get(script, {})
        done = dry_run(script, variables, "--dry-run")
        nodes = variables.get("NNODES") or (re.search("node([0-9]+)", script) or [0, "1"])[1]
        most = re.search(r"most on rank [0-9]+: ([0-9.]+) of 80.00 GB", done.stdout)
        check(done.returncode == 0 and f"mesh      {8 * int(nodes)} ranks" in done.stdout and most,
              f"{script} --dry-run: {nodes} nodes, {most and most[1]} of 80 GB")
        if done.returncode != 0:
            print(done.stdout, done.stderr)
    for script, variables in PUBLISHED.items():
        done = dry_run(script, {**variables, "DRY_RUN": "1"})
        check(done.returncode == 0 and "64 ranks" in done.stdout, f"{script} with DRY_RUN=1: the guide's EP8 row fits")
    done = dry_run("deepseekv3_671b", {**FULL_SIZE["deepseekv3_671b"], "TP": "1", "CPU_ADAM": "0"}, "--dry-run")
    check(done.returncode == 2 and re.fullmatch(r"moetron: rank [0-9]+ of the pipeline would hold [0-9.]+ GB of a GPU's "
                                                r"80.00 GB; it fits with --.*", done.stderr.splitlines()[-1]),
          f"what does not fit is refused: {done.stderr.splitlines()[-1]}")
    check("not here  tokenizer-model /nowhere/DeepSeek-V3, data-path /nowhere/" in done.stdout, "    after the report")
    path = os.path.dirname(PYTHON) + os.pathsep + os.environ["PATH"]
    for launcher, started in (("moetron", "launch "), ("torchrun", "torchrun --no-python ")):
        done = dry_run("test_qwen3_node8", {"NODE_RANK": "3", "PRINT_ONLY": "1", "PATH": path, "LAUNCHER": launcher})
        check(done.returncode == 0 and started in done.stdout and "--node_rank 3" in done.stdout,
              f"PRINT_ONLY=1 prints a node's command, by {launcher}")
    done = dry_run("test_qwen3", {}, "--dry")
    check(done.returncode == 2 and "unknown argument --dry; there are --dry-run and --check-layout" in done.stderr, "another argument is refused")


def test_preprocess_data():
    """WuDao's records: title and content joined and cleaned, what has no text left out."""
    pages = [{"id": i, "title": title, "content": content} for i, (title, content) in enumerate((
        ("标题", "正文\u3000\u3000见https://a.cn/x。\r\n\r\n\r\n完"), ("", "只有正文"), ("\u200b", " http://b.cn "),
        ("a", "b")))]
    os.makedirs("wudao")
    for part, records_of in (("part-1", pages[:2]), ("part-2", pages[2:])):
        with open(f"wudao/{part}.json", "w") as file:
            json.dump(records_of, file, ensure_ascii=False)
    with open("cleaned.jsonl", "w") as file:
        for text in ("标题\n正文 见。\n\n完", "只有正文", "a\nb"):
            file.write(json.dumps({"text": text}) + "\n")
    run(["preprocess", "--input", "cleaned.jsonl", "--tokenizer-model", "workspace/DeepSeek-V3", "--append-eod",
         "--output-prefix", "wanted"])
    variables = {"WUDAO_DATA_PATH": "wudao", "OUTPUT_FILE": "made", "TOKENIZER_PATH": "workspace/DeepSeek-V3",
                 "PATCH_TOKENIZER_TYPE": "Qwen3Tokenizer", "EXTRA_VOCAB_SIZE": "293"}
    command = [os.path.join(ROOT, "tools", "preprocess_data", "preprocess_data.sh")]
    done = subprocess.run(command, env={**ENVIRONMENT, **variables, "MOETRON": MOETRON}, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    check(done.returncode == 0 and "3 documents" in done.stdout and "1 documents had no text" in done.stdout,
          "preprocess_data.sh joins, cleans and counts")
    check(all(filecmp.cmp(f"made_text_document.{end}", f"wanted_text_document.{end}", shallow=False)
              for end in ("bin", "idx")), "    and writes what the cleaned text gives")
    done = subprocess.run(command, env={**ENVIRONMENT, "OUTPUT_FILE": "x"}, capture_output=True, text=True)
    check(done.returncode == 2 and "preprocess_data.sh: set WUDAO_DATA_PATH TOKENIZER_PATH" in done.stderr,
          "    names what is missing")


def test_every_variable():
    """Each optional variable with each script, on four ranks."""
    for script in RUNS if IS_LONG else ():
        expert_pipeline = {"PP": 2, "EP": 2, "NUM_LAYERS": 4, "HPP": "1 1 1 1" if "baseline" not in script else "2 2"}
        for name in ("RECOMPUTE", "MOE_LAYER_RECOMPUTE", "MLP_RECOMPUTE", "CPU_ADAM", "DP_OVERLAP", "GROUP_GEMM",
                     "FORCE_DROP_AND_PADDING", "USE_FLASH3"):
            if script in ("deepseekv3_671b", "qwen3_235b"):
                expert_pipeline["HPP"] = "2 2"
            run_script(script, 4, f"long_{script}_{name}", **expert_pipeline, **{name: 1})


if __name__ == "__main__":
    run_tests(test_scripts, test_schedules, test_two_nodes, test_torchrun, test_the_guides_lists, test_missing_variables,
              test_what_is_named_as_an_example_fits, test_wrong_variables, test_platforms, test_dry_runs, test_preprocess_data, test_every_variable)
