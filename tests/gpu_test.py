#!/usr/bin/env python3
"""Trains on one GPU, alone and as 2 and 4 ranks that share it over gloo, and over NCCL where there are as many GPUs,
against the same training on the CPU: in fp32 to rounding, in bf16 to what bf16 can hold. Needs a build with CUDA;
without a GPU it says so and ends well.

    gpu_test.py MOETRON
"""
import subprocess

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


if __name__ == "__main__":
    listed = subprocess.run("nvidia-smi -L", shell=True, capture_output=True, text=True).stdout
    gpus = [line for line in listed.splitlines() if line.startswith("GPU ")]
    print(f"{len(gpus)} GPUs", *gpus, sep="\n")
    if not gpus:
        print("skipped: no GPU here")
    else:
        run_tests(lambda: test_gpu(len(gpus)))
