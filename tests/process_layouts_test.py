#!/usr/bin/env python3
"""Trains one model in several parallel layouts, ranks as processes over gloo: losses, gradient norms and the saved
model equal those of one process; a run continues in another layout; a layout that does not fit is refused.

    process_layouts_test.py MOETRON
"""
import filecmp
import shutil

import numpy as np
from process_support import HANG, MODEL, RUN, TORCHRUN, Ranks, check, make_data, records, run, run_tests
from safetensors.numpy import load_file

STEPS = 20
SHORT = [*RUN, "--train-iters", str(STEPS), "--eval-interval", "10"]
QWEN = """--model-family qwen --num-layers 2 --hidden-size 48 --ffn-hidden-size 96 --num-attention-heads 4
  --group-query-attention --num-query-groups 2 --kv-channels 16 --qk-layernorm --max-position-embeddings 256
  --num-experts 8 --moe-router-topk 2 --moe-ffn-hidden-size 24 --moe-router-score-function softmax
  --moe-router-load-balancing-type aux_loss --moe-aux-loss-coeff 0.01 --untie-embeddings-and-output-weights
  --tokenizer bytes""".split()


def layout(tp, ep, tpe, *more):
    return ["--tensor-model-parallel-size", str(tp), "--expert-model-parallel-size", str(ep),
            "--tensor-model-parallel-for-expert", str(tpe), *" ".join(more).split()]


# All three kinds of placement, with stages of one and of two ranks, and a stage without layers.
PIPELINES = {
    "pp4_1f1b": ["--pipeline-model-parallel-size", "4", "--hetero-pipeline-stages", *"1 1 1 0".split()],
    "pp2_1f1b": layout(1, 2, 1, "--pipeline-model-parallel-size 2 --scheduler 1f1b --use-distributed-optimizer"),
    "pp2_dualpipev": layout(1, 2, 1, "--pipeline-model-parallel-size 2 --scheduler dualpipev",
                            "--virtual-hetero-pipeline-stages 1 1 0 1 --use-distributed-optimizer",
                            "--overlap-grad-reduce --overlap-param-gather --moe-layer-recompute"),
    "pp2_interleaved": layout(2, 1, 1, "--pipeline-model-parallel-size 2 --scheduler 1f1b",
                              "--virtual-hetero-pipeline-stages 1 0 1 1 --moe-token-dispatcher-type alltoall"),
}

# Each with another dispatcher, optimizer, recompute and latent attention.
LAYOUTS = {
    "tp2_ep2": layout(2, 2, 1, "--moe-token-dispatcher-type alltoall --mla-fuse-qkv --use-distributed-optimizer",
                      "--overlap-grad-reduce --overlap-param-gather"),
    "tp2_ep4": layout(2, 4, 1, "--moe-token-dispatcher-type deepep --recompute-granularity full",
                      "--recompute-method uniform --recompute-num-layers 1"),
    "tp4_ep2_tpe2": layout(4, 2, 2, "--moe-token-dispatcher-type allgather_fused --moe-layer-recompute",
                           "--mla-replicate-l1"),
    "ep2_tpe2": layout(1, 2, 2, "--moe-token-dispatcher-type allgather --mlp-recompute --moe-grouped-gemm"),
}


def compare_runs(folder, reference, what):
    """Every step of both, and the model at the end."""
    ours, theirs = records(folder), records(reference)
    steps = [record["step"] for record in ours]
    check(steps == list(range(1, STEPS + 1)), f"{what}: has every step once, 1 to {steps[-1]}")

    def worst(field):
        return max(abs(a[field] / b[field] - 1) for a, b in zip(ours, theirs) if field in b)
    for field, bound in (("loss", 1e-6), ("grad_norm", 1e-5), ("validation_loss", 1e-6)):
        check(worst(field) < bound, f"{what}: {field} as on one rank (worst relative difference {worst(field):.1e})")
    if "aux_loss" in theirs[0]:
        check(worst("aux_loss") < 1e-5, f"{what}: aux_loss as on one rank ({worst('aux_loss'):.1e})")
    loads = [[layer["load"] for layer in r["router_balance"]["layers"]] for r in (ours[-1], theirs[-1])]
    check(np.allclose(*loads, rtol=0, atol=1e-6), f"{what}: the experts' loads as on one rank")
    mine, one = (load_file(f"{f}/step_{STEPS:07}/model.safetensors") for f in (folder, reference))
    check(mine.keys() == one.keys() and all(mine[name].shape == one[name].shape for name in one),
          f"{what}: the same {len(one)} tensors are saved")
    distance = {name: np.linalg.norm(mine[name] - one[name]) / max(np.linalg.norm(one[name]), 1e-30) for name in one}
    name = max(distance, key=distance.get)
    check(distance[name] < 1e-5, f"{what}: the model as on one rank ({name} differs most, {distance[name]:.1e})")


def compare_bits(folder, reference, what):
    for field in ("loss", "aux_loss", "grad_norm", "validation_loss"):
        ours, theirs = ([r.get(field) for r in records(f)] for f in (folder, reference))
        check(len(ours) == STEPS and ours == theirs, f"{what}: bit-equal ({field})")
    for file in ("model.safetensors", "state/optimizer.safetensors"):
        ends = [f"{f}/step_{STEPS:07}/{file}" for f in (folder, reference)]
        check(filecmp.cmp(*ends, shallow=False), f"{what}: ends with the same bytes in {file}")


def train(save, options, model=MODEL, more=(), torchrun=False):
    """Four ranks; torchrun takes seconds to start them, `moetron launch` none."""
    command = ["pretrain", *model, *SHORT, "--save", save, *more, *options]
    return run(command, launcher=TORCHRUN) if torchrun else run(["launch", "-n", "4", *command])


def test_layouts():
    make_data()
    run(["pretrain", *MODEL, *SHORT, "--save", "one"])
    check(records("one")[-1]["loss"] < 0.9 * records("one")[0]["loss"], "it learns")
    for name, options in LAYOUTS.items():
        done = train(name, options, torchrun=name == "tp2_ep2")
        compare_runs(name, "one", name)
        if name != "tp2_ep2":
            continue
        for line in ("4 ranks: PP 1 x DP 2 x TP 2; experts PP 1 x EDP 2 x EP 2 x TPE 1",
                     "groups: TP 0-1 2-3; DP 0,2 1,3; stage 0-3; EP 0-1 2-3; EP x TPE 0-1 2-3; EDP 0,2 1,3"):
            check(done.stdout.count(line) == 1, f"prints once: {line}")


def test_resuming():
    """The first half in one layout; the second in the same, and in another."""
    half = ["--exit-interval", str(STEPS // 2)]
    first, other = LAYOUTS["tp2_ep2"], LAYOUTS["tp4_ep2_tpe2"]
    train("same", first, more=half)
    check(len(records("same")) == STEPS // 2, "left half way")
    shutil.copytree("same", "across")
    train("same", first, more=half)
    compare_bits("same", "tp2_ep2", "the same layout continues")
    done = train("across", other, more=half)
    check("continues at step 10" in done.stderr, "another layout continues at step 10")
    compare_runs("across", "one", "tp2_ep2, then tp4_ep2_tpe2")


def test_pipelines():
    """Every schedule ends with the bits of the same layout without it, from wherever it goes on."""
    for name, options in PIPELINES.items():
        train(name, options)
        compare_runs(name, "one", name)
    run(["pretrain", *MODEL, *SHORT, "--save", "one_thread", "--num-threads", "1"])  # as each of four ranks has
    compare_bits("pp4_1f1b", "one_thread", "pp4_1f1b as one rank")
    compare_bits("pp2_dualpipev", "pp2_1f1b", "dualpipev as 1f1b")
    half = ["--exit-interval", str(STEPS // 2)]
    train("turned", PIPELINES["pp2_1f1b"], more=half)
    train("turned", PIPELINES["pp2_dualpipev"], more=half)
    compare_bits("turned", "pp2_1f1b", "1f1b, then dualpipev")


def test_qwen():
    """More tensor-parallel ranks than key and value heads, and an aux loss."""
    run(["pretrain", *QWEN, *SHORT, "--save", "qwen"])
    train("qwen_tp4_ep4", layout(4, 4, 1, "--moe-token-dispatcher-type deepep --use-distributed-optimizer"), QWEN)
    compare_runs("qwen_tp4_ep4", "qwen", "qwen, tp4_ep4")


def test_misfits():
    """Four ranks that do not divide the model, or are not divided: one sentence, exit code 2 of each."""
    cases = [(layout(1, 8, 1), ["number of ranks (4)", "expert-model-parallel-size (8)"]),
             (layout(4, 1, 1, "--num-attention-heads 6"),
              ["tensor-model-parallel-size (4)", "num-attention-heads (6)"])]
    for number, (options, names) in enumerate(cases):
        with Ranks(["pretrain", *MODEL, *SHORT, "--save", "misfit", *options], f"misfit_{number}") as ranks:
            codes = ranks.codes(HANG)
            check(codes == {rank: 2 for rank in range(4)}, f"each rank exits with 2: {codes}")
            said = ranks.errors().strip()
            check(all(name in said for name in names) and said.count("moetron: ") == 1, f"    says once: {said}")


if __name__ == "__main__":
    run_tests(test_layouts, test_resuming, test_pipelines, test_qwen, test_misfits)
