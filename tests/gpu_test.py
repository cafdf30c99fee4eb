#!/usr/bin/env python3
"""Trains on one GPU, alone and as 2 and 4 ranks that share it over gloo, and over NCCL where there are as many GPUs,
against the same training on the CPU: in fp32 to rounding, in bf16 to what bf16 can hold. Needs a build with CUDA;
without a GPU it says so and ends well.

    gpu_test.py MOETRON [tuning | training]

Then fine-tuning, packed and not, of low-rank updates and of preferences; and a model taught on the GPU answers there. A
word behind the program runs one of the two alone.
"""
import re
import subprocess
import sys

from process_support import MODEL, PYTHON, RUN, check, make_data, records, run, run_tests

STEPS = 20
SHORT = [*RUN, "--train-iters", str(STEPS), "--eval-interval", "10"]
BF16 = [option for option in SHORT if option != "--fp32"] + ["--bf16"]
# Ranks, options. Together: every dispatcher, both product kinds, recomputation, the divided optimizer, pipelines.
LAYOUTS = [
    (2, "--tensor-model-parallel-size 2 --expert-model-parallel-size 2 --moe-token-dispatcher-type alltoall "
        "--moe-grouped-gemm"),
    (2, "--expert-model-parallel-size 2 --moe-token-dispatcher-type allgather_fused --use-distributed-optimizer"),
    (4, "--tensor-model-parallel-size 2 --expert-model-parallel-size 4 --moe-token-dispatcher-type deepep "
        "--moe-grouped-gemm --moe-layer-recompute"),
    (4, "--tensor-model-parallel-size 4 --expert-model-parallel-size 2 --tensor-model-parallel-for-expert 2 "
        "--moe-token-dispatcher-type allgather --use-distributed-optimizer --overlap-grad-reduce"),
    (2, "--expert-model-parallel-size 2 --moe-token-dispatcher-type alltoall --peer-copies"),
    (2, "--pipeline-model-parallel-size 2 --scheduler 1f1b"),
    (2, "--pipeline-model-parallel-size 2 --scheduler dualpipev --virtual-hetero-pipeline-stages 1 1 1 0"),
    (4, "--pipeline-model-parallel-size 2 --expert-model-parallel-size 2 --micro-batch-size 1 --scheduler dualpipev "
        "--virtual-hetero-pipeline-stages 1 1 1 0 --moe-token-dispatcher-type alltoall --use-distributed-optimizer "
        "--overlap-grad-reduce --overlap-param-gather"),
]


def torchrun(ranks):
    return [PYTHON, "-m", "torch.distributed.run", "--standalone", "--no-python", "--nproc_per_node", str(ranks)]


def worst(folder, reference, field="loss"):
    ours, theirs = records(folder), records(reference)
    check(len(ours) == len(theirs) == STEPS, f"{folder}: {STEPS} steps")
    return max(abs(a[field] / b[field] - 1) for a, b in zip(ours, theirs))


def test_gpu(num_gpus):
    make_data()
    run(["pretrain", *MODEL, *SHORT, "--device", "cpu", "--save", "cpu"])
    run(["pretrain", *MODEL, *SHORT, "--device", "cuda", "--save", "one"])
    check(worst("one", "cpu") < 1e-4, f"one rank, fp32: the CPU's losses (worst relative difference {worst('one', 'cpu'):.1e})")
    run(["pretrain", *MODEL, *BF16, "--device", "cpu", "--save", "cpu_bf16"])
    rounding = worst("cpu_bf16", "cpu")
    run(["pretrain", *MODEL, *BF16, "--device", "cuda", "--save", "one_bf16"])
    check(worst("one_bf16", "cpu") < max(0.01, 2 * rounding),
          f"one rank, bf16: the CPU's losses ({worst('one_bf16', 'cpu'):.1e})")
    for number, (ranks, options) in enumerate(LAYOUTS):
        for backend in ("gloo", "nccl") if ranks <= num_gpus else ("gloo",):
            layout = [*options.split(), "--device", "cuda", "--distributed-backend", backend]
            for precision, arguments, bound in (("fp32", SHORT, 1e-4), ("bf16", BF16, max(0.01, 2 * rounding))):
                folder = f"{backend}_{precision}_{number}"
                run(["pretrain", *MODEL, *arguments, *layout, "--save", folder], launcher=torchrun(ranks))
                difference = worst(folder, "cpu")
                check(difference < bound, f"{ranks} ranks, {backend}, {precision}: the CPU's losses "
                      f"({difference:.1e}, of {bound:.1e}): {options}")
    print(f"bf16 on the CPU differs from fp32 there by {rounding:.1e}")


def test_tuning(num_gpus):
    from dpo_test import make_pairs
    from sft_test import FACTS, make_chats, make_model
    make_model("tiny")
    make_model("moe", moe=True)
    make_chats()
    make_pairs()
    base = ["sft", "--data-path", "chats.jsonl", "--lr", "4e-3", "--seq-length", "64", "--train-iters", str(STEPS),
            "--global-batch-size", "4", "--sample-answers", "0", "--fp32", "--log-interval", "10"]
    pairs = ["sft", "--objective", "dpo", "--data-path", "pairs.jsonl", "--seq-length", "128", "--micro-batch-size", "4",
             "--global-batch-size", "16", "--train-iters", str(STEPS), "--lr", "1e-4", "--sample-answers", "0", "--fp32"]
    for name, command in (("packed", [*base, "--load", "moe"]), ("padded", [*base, "--load", "tiny", "--no-packing"]),
                          ("updates", [*base, "--load", "moe", "--lora-rank", "4"]),
                          ("preferences", [*pairs, "--load", "tiny"])):
        for device in ("cpu", "cuda"):
            run([*command, "--device", device, "--save", f"{name}_{device}"])
        difference = worst(f"{name}_cuda", f"{name}_cpu")
        check(difference < 1e-3, f"{name}, fp32: the CPU's losses ({difference:.1e})")
    wanted = [answer for _, answer in FACTS]
    done = run(["sft", "--load", "tiny", "--save", "taught", "--data-path", "chats.jsonl", "--lr", "4e-3", "--seq-length",
                "64", "--epochs", "60", "--sample-answers", "8", "--sample-interval", "30", "--log-interval", "10"])
    check("bf16" in done.stdout + done.stderr, "in bf16 unless something else is asked for")
    check(re.findall(r"^answer +(.*)$", done.stdout, re.M) == wanted, "taught in bf16, packed: it answers at the end")
    check(any("samples" in row for row in records("taught")), "and while it learns")
    asked = "".join(f"> {question}\n{answer}\n" for question, answer in FACTS)
    check(run(["generate", "--load", "taught", "--greedy", "--messages", "chats.jsonl"]).stdout == asked,
          "so does generate")
    lines = "".join(question + "\n/clear\n" for question, _ in FACTS)
    layout = ["launch", "-n", "2"] if num_gpus > 1 else []
    divided = ["--tensor-model-parallel-size", "2"] if layout else []
    for command in (["chat"], [*layout, "chat", *divided]):
        said = run([*command, "--load", "taught", "--greedy"], input=lines).stdout.splitlines()
        check(said == wanted, f"{' '.join(command)}: {said}")


if __name__ == "__main__":
    listed = subprocess.run("nvidia-smi -L", shell=True, capture_output=True, text=True).stdout
    gpus = [line for line in listed.splitlines() if line.startswith("GPU ")]
    print(f"{len(gpus)} GPUs", *gpus, sep="\n")
    if not gpus:
        print("skipped: no GPU here")
    else:
        tests = {"training": lambda: test_gpu(len(gpus)), "tuning": lambda: test_tuning(len(gpus))}
        run_tests(*(test for word, test in tests.items() if sys.argv[2:] in ([], [word])))
