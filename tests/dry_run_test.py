#!/usr/bin/env python3
"""moetron pretrain --dry-run as its users start it: recipes, what is missing on this machine, what does not fit, and
the size of a checkpoint against one that was saved.

    dry_run_test.py MOETRON
"""
import glob
import json
import os
import re
import shlex
import struct
import subprocess

from process_support import ENVIRONMENT, HANG, MODEL, MOETRON, RUN, check, make_data, records, run, run_tests

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SMALL = [*MODEL, *RUN]
FIGURES = {"memory": r"most on rank \d+: ([\d.]+) of [\d.]+ GB", "step": r"step +([\d.e-]+) s",
           "tokens": r"speed +([\d.]+) tokens/s/GPU", "TFLOP": r"([\d.]+) TFLOP/s/GPU"}


def figures(text):
    found = {name: re.search(pattern, text) for name, pattern in FIGURES.items()}
    return {name: float(match[1]) for name, match in found.items() if match}


def test_recipes():
    """Each names the command of its dry run, and what it prints."""
    others = {f"{ROOT}/configs/demo_cpu.toml", *glob.glob(f"{ROOT}/configs/sft_*.toml")}  # without a model
    recipes = sorted(set(glob.glob(f"{ROOT}/configs/*.toml")) - others)
    check(len(recipes) >= 8, f"{len(recipes)} recipes")
    for recipe in recipes:
        name = os.path.basename(recipe)
        with open(recipe) as file:
            comment = "".join(line[1:] for line in file.read().split("\n\n")[0].splitlines(True))
        command = re.search(r"^ +moetron (pretrain .*--dry-run.*)$", comment, re.M)
        done = subprocess.run([MOETRON, *shlex.split(command[1])], capture_output=True, text=True, env=ENVIRONMENT,
                              cwd=ROOT, timeout=HANG)
        if done.returncode != 0:
            print(done.stdout, done.stderr)
        told, printed = figures(comment), figures(done.stdout)
        same = len(told) == len(FIGURES) and all(abs(told[x] - printed[x]) <= 0.01 * printed[x] for x in told)
        check(done.returncode == 0 and same, f"{name}: its comment has {told}, the dry run prints {printed}")


def test_tiny_recipes_train():
    """On this machine's cores, as their comments say: two steps."""
    make_data()
    for recipe in sorted(glob.glob(f"{ROOT}/configs/tiny_*.toml")):
        name = os.path.basename(recipe)[:-5]
        run(["pretrain", "--config", recipe, "--data-path", "data/pages_text_document", "--train-iters", "2",
             "--lr-decay-iters", "300", "--eval-iters", "0", "--save", name])
        check(len(records(name)) == 2 and os.path.exists(f"{name}/step_0000002/config.json"), f"{name} trains and saves")


def test_what_is_missing_is_said():
    done = run(["pretrain", "--dry-run", *SMALL, "--load", "no/model"])
    check(done.stdout.startswith("not here  load no/model, data-path data/pages_text_document\ndry run   as on "),
          "what is not on this machine is said in one line")
    check(not os.path.exists("no"), "    and nothing is made")
    for command in (["sft", "--save", "s"], ["pretrain", *RUN]):
        told = run([*command, "--dry-run", "--load", "no/model", "--data-path", "x"], code=3)
        check("load (no/model) is not here: without its config.json" in told.stderr, f"    {command[0]}: nor is the shape")
    words = [word for word in SMALL if word not in ("--tokenizer", "bytes")]
    done = run(["pretrain", "--dry-run", *words, "--tokenizer-model", "nowhere"])
    check("tokenizer-model nowhere" in done.stdout and "released one of 128815 tokens" in done.stdout,
          "    and what its tokenizer is taken for")
    check("vocabulary 128815" in done.stdout, "    which is the model's vocabulary")
    words = SMALL[:SMALL.index("--data-path")] + SMALL[SMALL.index("--data-path") + 2:]
    done = run(["pretrain", "--dry-run", *words, "--mock-data"])
    check(done.stdout.startswith("dry run   as on "), "    random tokens are not missed")


def test_the_number_of_ranks():
    check("1 rank:" in run(["pretrain", "--dry-run", *SMALL]).stdout, "without a launcher it is one rank")
    check("8 ranks:" in run(["pretrain", "--dry-run", "--world-size", "8", *SMALL]).stdout, "--world-size says more")
    for rank, speaks in ((0, True), (1, False)):
        launcher = {"RANK": str(rank), "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
        done = subprocess.run([MOETRON, "pretrain", "--dry-run", *SMALL], capture_output=True, text=True,
                              env={**ENVIRONMENT, **launcher}, timeout=HANG)
        check(done.returncode == 0 and ("4 ranks:" in done.stdout) == speaks and bool(done.stdout) == speaks,
              f"under a launcher rank {rank} {'speaks' if speaks else 'is silent'}")
    done = subprocess.run([MOETRON, "pretrain", "--dry-run", "--world-size", "8", *SMALL], capture_output=True, text=True,
                          env={**ENVIRONMENT, "RANK": "3", "WORLD_SIZE": "4"}, timeout=HANG)
    check(done.returncode == 0 and "8 ranks:" in done.stdout, "where RANK counts nodes, a plan for --world-size speaks")


def test_refusals_are_those_of_a_start():
    for words, sentence in ((["--expert-model-parallel-size", "3"], "num-experts (8)"), (["--lr", "1e-5"], "min-lr (0.0001)"),
                            (["--seq-length", "4096"], "max-position-embeddings (256)")):
        planned = run(["pretrain", "--dry-run", "--world-size", "3", *SMALL, "--global-batch-size", "9", *words], code=2)
        check(sentence in planned.stderr and "dry run" not in planned.stdout, f"refuses {' '.join(words)}")
    planned = run(["pretrain", "--check-layout", "--world-size", "3", *SMALL, "--global-batch-size", "9",
                   "--expert-model-parallel-size", "3"], code=2)
    check("num-experts (8)" in planned.stderr and "checked" not in planned.stdout, "    and so does --check-layout")
    in_fp8 = ["--dry-run", *SMALL, "--bf16", "--fp8-format", "hybrid"]
    planned = run(["pretrain", *in_fp8], code=2)
    check("fp8-format (hybrid) works on CPUs alone" in planned.stderr, "    what a GPU refuses, a plan for one does")
    run(["pretrain", *in_fp8, "--device", "cpu"])
    planned = run(["pretrain", *in_fp8, "--fp8-format", "e4m3"], code=2)
    check("needs sizes that are multiples of 16; model.layers.0." in planned.stderr, "    of sizes, too")
    run(["pretrain", "--dry-run", *SMALL, "--hardware", "missing.toml"], code=3)


def test_what_does_not_fit():
    with open(f"{ROOT}/configs/hardware/h100-ib400.toml") as file:
        text = file.read()
    with open("small.toml", "w") as file:
        file.write(text.replace("memory = 80e9", "memory = 1.9e9"))
    large = ["pretrain", "--dry-run", "--hardware", "small.toml", *SMALL, "--bf16", "--hidden-size", "1024",
             "--world-size", "8", "--micro-batch-size", "8", "--global-batch-size", "64"]
    done = run([*large, "--seq-length", "256"], code=2)
    words = re.fullmatch(r"moetron: rank 0 of the pipeline would hold ([\d.]+) GB of a GPU's 1.90 GB; it fits with "
                         r"(--[^(]*) \(([\d.]+) GB\)\n", done.stderr[done.stderr.rindex("moetron: "):])
    check(words is not None, f"the last sentence: {done.stderr.splitlines()[-1]}")
    check(done.stdout.startswith("dry run   as on ") and "(small.toml)" in done.stdout, "    behind the whole report")
    if words:
        done = run([*large, "--seq-length", "256", *words[2].split()])
        check(f": {words[3]} of 1.90 GB" in done.stdout, "    and what it names fits, in as much")


def test_a_calibrated_machine():
    """This one, of which a dry run, a simulation and a search then know the rates."""
    recipe = f"{ROOT}/configs/tiny_qwen3_moe_cpu_try.toml"
    quick = ["plan", "--calibrate", "--device", "cpu", "--calibrate-seconds", "0.005"]
    done = run([*quick, "--name", "My machine"])
    check(done.stdout.startswith("written: my-machine.toml, of My machine"), "calibrates a machine with a name")
    with open("mine.jsonl", "w") as out:
        out.write("mine")
    for out, said in (("mine.jsonl", "calibrate did not write it"), (".", "is a folder")):
        refused = run([*quick, "--out", out], code=2)
        check(said in refused.stderr and "calibrate: " not in refused.stderr, f"--out {out}: {said}, before any work")
    check(open("mine.jsonl").read() == "mine", "what is there stays")
    check("one line" in run([*quick, "--name", "two\nlines"], code=2).stderr, "a name is one line")
    run(["launch", "-n", "2", *quick, "--num-threads", "1", "--out", "two.toml"])
    overheads = {"dispatch_overhead", "tensor_overhead", "allgather", "allgather_fused", "alltoall", "deepep"}
    for file, not_measured in (("my-machine.toml", 6), ("two.toml", 1)):
        with open(file) as lines:
            text = lines.read()
        numbers = dict(re.findall(r"^(\w+) = ([\d.e+-]+)$", text, re.M))
        zero = [name for name, value in numbers.items() if float(value) <= 0 and name not in overheads]
        named = overheads if file == "two.toml" else {"dispatch_overhead", "tensor_overhead"}
        check(numbers.keys() & overheads == named, f"{file} has the overheads {sorted(named)}")
        check(len(numbers) >= 17 and not zero, f"{file}: every rate is above 0, but {zero}")
        # A number stands behind its comment, which says so where it was not measured.
        check(len(re.findall(r"^# (?:seconds; )?not measured", text, re.M)) == not_measured,
              f"    and all but {not_measured} comments say how it was measured")
        for words in (["pretrain", "--dry-run", "--config", recipe, "--world-size", "2"],
                      ["simulate", "--cost", "model", "--config", recipe, "--world-size", "2"]):
            planned = run([*words, "--hardware", file]).stdout
            told = figures(planned).get("step") or re.search(r"([\d.e-]+) s", planned)
            check(told is not None, f"    {words[0]} takes it, and tells the time of a step: {told}")
        found = run(["plan", "--config", recipe, "--world-size", "2", "--hardware", file]).stdout
        check(" fit, " in found, "    and so does a search")


def tensor_bytes(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return sum(t["data_offsets"][1] - t["data_offsets"][0] for name, t in header.items() if name != "__metadata__")


def test_the_size_of_a_checkpoint():
    """To the byte."""
    for words in (["--bf16"], ["--fp32"], ["--bf16", "--no-save-optim"]):
        name = "run" + "".join(words)
        arguments = [*SMALL, *words, "--train-iters", "1", "--lr-warmup-iters", "0", "--lr-decay-iters", "2",
                     "--eval-iters", "0", "--save", name]
        planned = run(["pretrain", "--dry-run", *arguments]).stdout
        run(["pretrain", *arguments])
        folder = f"{name}/step_0000001"
        weights = sum(tensor_bytes(path) for path in glob.glob(f"{folder}/*.safetensors"))
        optimizer = tensor_bytes(f"{folder}/state/optimizer.safetensors")
        told = re.search(r"^save +([\d,]+) bytes of weights, ([\d,]+) of optimizer states", planned, re.M)
        sizes = [int(number.replace(",", "")) for number in told.groups()]
        check(sizes == [weights, optimizer], f"{' '.join(words)}: a save of {weights} + {optimizer} bytes, as told")
        resumed = run(["pretrain", "--dry-run", *SMALL, *words, "--save", name]).stdout
        check("dry run" in resumed and "load" not in resumed, "    whose config.json a dry run of its resume reads")


def test_megatron_folders():
    """Without a config.json their own arguments tell the model: whoever plans says of them what they say of the model."""
    model = "run--bf16/step_0000001"
    run(["convert", "--load", model, "--save", "megatron", "--to", "megatron"])
    os.remove("megatron/config.json")
    plain = "--seq-length 32 --micro-batch-size 1 --world-size 2 --pipeline-model-parallel-size 2".split()
    batch = ["--global-batch-size", "8"]
    ours = ["--train-iters", "50", "--lr", "2e-3", "--mock-data"]
    megatron = ["pretrain_gpt.py", *plain[:4], *plain[6:], *batch, *ours, "--use-checkpoint-args", "--bf16", "--norm-epsilon", "1e-6"]
    for words in (["pretrain", "--dry-run", *plain, *batch, *ours], ["plan", *plain[:2], *plain[4:6], *batch, "--json"],
                  ["simulate", "--cost", "model", "--hardware", f"{ROOT}/configs/hardware/h200.toml", *plain,
                   "--num-micro-batches", "8"],
                  ["explain", "--json", "--world-size", "2", "--", *megatron]):
        told = [json.loads(done) if "--json" in words else done
                for done in (run([*words, "--load", load]).stdout for load in (model, "megatron"))]
        if words[0] == "explain":
            for explanation in told:
                del explanation["same"], explanation["other"], explanation["command"]  # which name the folder
            check(told[0]["step_time"] > 0, "    with a time of a step")
        check(told[0] == told[1], f"    {words[0]} says the same of Megatron's files without a config.json")
    megatron.remove("--use-checkpoint-args")
    done = run(["explain", "--world-size", "2", "--", "moetron", "pretrain", *megatron[1:], "--num-layers", "9",
                "--load", "megatron"], code=2)
    check("num-layers (9) contradicts the model that is loaded" in " ".join(done.stdout.split()),
          "explain tells where options are not those of the files")
    wrong = ["--num-layers", "9", "--hidden-size", "32", "--num-experts", "4", "--load", "megatron"]
    train = ["pretrain", *plain[:4], *batch, *ours, "--fp32", "--train-iters", "1", "--eval-iters", "0", "--lr-warmup-iters", "0"]
    run([*train, *wrong, "--save", "overruled"], code=2)
    done = run([*train, *wrong, "--save", "overruled", "--use-checkpoint-args"])
    check("use-checkpoint-args: the model that is loaded counts, num-layers 3 (not 9), hidden-size 48 (not 32), "
          "num-experts 8 (not 4)" in done.stderr, "    and with --use-checkpoint-args a run takes the model of the files")
    run([*train, "--load", model, "--save", "as_it_is", "--finetune"])
    check([r["loss"] for r in records("overruled")] == [r["loss"] for r in records("as_it_is")], "    as it is")


if __name__ == "__main__":
    run_tests(test_recipes, test_what_is_missing_is_said, test_tiny_recipes_train, test_the_number_of_ranks,
              test_refusals_are_those_of_a_start, test_what_does_not_fit, test_the_size_of_a_checkpoint,
              test_megatron_folders, test_a_calibrated_machine)
