#!/usr/bin/env python3
"""Receipts of bits (--hash-steps) and the check of a layout (--check-layout), as users meet them; numpy is the oracle
for what a hash is.

    receipts_test.py MOETRON
"""
import glob
import json
import os

import numpy as np
from process_support import MODEL, RUN, TORCHRUN, check, make_data, records, run, run_tests
from safetensors import safe_open

SHORT = [*MODEL, *RUN, "--train-iters", "6", "--eval-iters", "0"]
HASHED = [*SHORT, "--hash-steps", "2"]


def element_hashes(bits):
    """The share of each element in its tensor's hash: SplitMix64 of place and bits."""
    with np.errstate(over="ignore"):
        z = np.arange(1, bits.size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + bits.astype(np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def hash_of(bits):
    return f"{int(element_hashes(bits).sum(dtype=np.uint64)):016x}"


def trained_tensors(folder):
    """What a checkpoint holds of each parameter: its master where there is one."""
    tensors = {}
    for prefix, pattern in (("", "model*.safetensors"), ("master.", "state/*.safetensors")):
        for path in glob.glob(os.path.join(folder, pattern)):
            with safe_open(path, "pt") as file:
                for name in file.keys():
                    if name.startswith(prefix) and not name.startswith("exp_avg"):
                        tensors[name.removeprefix("master.")] = file.get_tensor(name).float().numpy()
    return tensors


def check_receipt(folder, step):
    record = records(folder)[step - 1]
    receipt = record["receipt"]
    tensors = trained_tensors(f"{folder}/step_{step:07d}")
    wanted = {name: hash_of(tensor.reshape(-1).view(np.uint32)) for name, tensor in tensors.items()}
    check(dict(receipt["parameters"]) == wanted and len(wanted) > 30,
          f"{folder}: numpy finds the {len(wanted)} hashes of the parameters in the checkpoint")
    losses = np.array([record["loss"], record.get("aux_loss", 0.0)])
    check(receipt["loss"] == hash_of(losses.view(np.uint64)), "    that of the loss")
    every = [receipt["loss"], *(h for _, h in receipt["gradients"]), *(h for _, h in receipt["parameters"])]
    check(receipt["total"] == hash_of(np.array([int(h, 16) for h in every], np.uint64)), "    and the total of all")


def test_hashes():
    run(["pretrain", *HASHED, "--save", "one"])
    check([("receipt" in r) for r in records("one")] == [False, True] * 3, "every second step has a receipt")
    check_receipt("one", 6)
    masters = [*HASHED, "--dtype", "bf16", "--hash-steps", "6"]
    run(["pretrain", *masters, "--save", "masters"])
    check_receipt("masters", 6)
    run(["pretrain", *masters, "--save", "hybrid", "--optimizer", "hybridadam", "--use-distributed-optimizer"],
        launcher=TORCHRUN)
    check_receipt("hybrid", 6)
    done = run(["pretrain", *SHORT, "--hash-steps", "2", "--exit-interval", "1"])
    check("no records are written without save or metrics" in done.stderr, "without a place for it nothing is hashed")


def test_resumed():
    run(["pretrain", *HASHED, "--save", "parts", "--exit-interval", "3"])
    run(["pretrain", *HASHED, "--save", "parts"])
    done = run(["compare-loss", "one", "parts", "--tolerance", "0"])
    check("same bits through step 6, in 3 steps" in done.stdout, f"a run that went on has the receipts: {done.stdout}")
    check([r.get("receipt") for r in records("parts")] == [r.get("receipt") for r in records("one")], "    all of them")


def test_layouts():
    for scheduler in ("1f1b", "dualpipev"):
        pipeline = ["--pipeline-model-parallel-size", "4" if scheduler == "1f1b" else "1", "--scheduler", scheduler]
        layers = ["--hetero-pipeline-stages", "1", "1", "1", "0"] if scheduler == "1f1b" else []
        launcher = TORCHRUN if scheduler == "1f1b" else []
        run(["pretrain", *HASHED, *pipeline, *layers, "--save", scheduler], launcher=launcher)
        done = run(["compare-loss", "one", scheduler, "--tolerance", "0"])
        check("same bits through step 6" in done.stdout, f"{scheduler} has one rank's receipts")


def test_differences():
    run(["pretrain", *HASHED, "--adam-beta2", "0.99", "--save", "other"])
    done = run(["compare-loss", "one", "other", "--tolerance", "1"])
    check("first difference at step 2: parameter " in done.stdout or "first difference at step 2: loss" in done.stdout,
          f"names step and tensor: {done.stdout}")
    lines = open("one/metrics.jsonl").read().splitlines()
    last = json.loads(lines[5])
    pair = last["receipt"]["gradients"][7]
    flipped = pair[1].translate(str.maketrans("0123456789abcdef", "123456789abcdef0"))
    os.makedirs("flipped")
    with open("flipped/metrics.jsonl", "w") as file:
        file.write("\n".join([*lines[:5], json.dumps(last).replace(pair[1], flipped), ""]))
    done = run(["compare-loss", "one", "flipped"], code=3)
    check("flipped/metrics.jsonl:6" in done.stderr and "total" in done.stderr,
          "a receipt with another total is damaged")
    pair[1] = flipped
    hashes = [last["receipt"]["loss"], *(h for kind in ("gradients", "parameters") for _, h in last["receipt"][kind])]
    last["receipt"]["total"] = hash_of(np.array([int(h, 16) for h in hashes], np.uint64))
    with open("flipped/metrics.jsonl", "w") as file:
        file.write("\n".join([*lines[:5], json.dumps(last), ""]))
    done = run(["compare-loss", "one", "flipped"])
    wanted = f"same bits through step 4; first difference at step 6: gradient of {pair[0]}\n"
    check(wanted in done.stdout, f"one gradient: {done.stdout}")
    run(["compare-loss", "one", "flipped", "--tolerance", "0"], code=1)
    done = run(["compare-loss", "one", "flipped", "--json"])
    check(json.loads(done.stdout)["bits"]["first_difference"] == {"step": 6, "what": f"gradient of {pair[0]}"},
          "    to machines, too")
    run(["pretrain", *SHORT, "--save", "plain"])
    done = run(["compare-loss", "one", "plain", "--tolerance", "0"])
    check("not compared: one has hashes, but plain was written without hash-steps" in done.stdout,
          "says what is missing")
    done = run(["compare-loss", "plain", "plain"])
    check("bits" not in done.stdout, "without hashes nothing is said of them")


def test_check_layout():
    layout = ["--tensor-model-parallel-size", "2", "--expert-model-parallel-size", "4",
              "--pipeline-model-parallel-size", "2", "--scheduler", "zb-h1", "--use-distributed-optimizer",
              "--data-path", "absent", "--check-layout"]
    done = run(["pretrain", *SHORT, *layout, "--world-size", "8"])
    check(done.stdout.startswith("checked     tp 2, ep 4, pp 2, dp 2 on 8 of 8 ranks\n"), f"checks: {done.stdout}")
    check("bits        the same as without a pipeline" in done.stdout, "    and compares the bits")
    done = run(["pretrain", *SHORT, "--data-path", "absent", "--check-layout"], launcher=TORCHRUN)
    check(done.stdout.count("checked     dp 4 on 4 of 4 ranks") == 1, "under a launcher rank 0 checks for all")
    done = run(["pretrain", *SHORT, "--expert-model-parallel-size", "3", "--check-layout", "--world-size", "3"], code=2)
    check("num-experts (8) must be a multiple of expert-model-parallel-size (3)" in done.stderr,
          "refuses what a run refuses")


if __name__ == "__main__":
    run_tests(make_data, test_hashes, test_resumed, test_layouts, test_differences, test_check_layout)
