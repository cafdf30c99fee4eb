#!/usr/bin/env python3
"""Compares a program's models with transformers and with an independent float64 program.

    model_oracle.py TOOL [--work DIR] [--aux] [--mtp]

TOOL is called as `TOOL MODEL_DIR INPUT.safetensors OUTPUT.safetensors`. It reads input_ids and labels
(int64 [batch, time]; labels[b][t] is the target of position t, -100 for none) and writes, in fp32:

    logits          [batch, time, vocab]
    loss            []  mean cross-entropy over the positions that have a target
    generate.tokens     where the input holds generate.prompt (int64 [batch, time]): the prompts, each with
                        24 tokens of greedy choice behind it
    grad.<name>         gradient of loss for every stored weight (not the router's correction bias)

With --aux it also writes, for every layer l with a router, aux.sequence.<l> (DeepSeek's aux loss of
each sequence, mean over sequences, coefficient 1) and aux.batch.<l> (experts / (top_k n^2) times the sum
over experts of count and summed probability, over all n tokens). With --mtp it writes mtp_loss as well,
and gradients of loss + 0.3 mtp_loss, for a model that has a multi-token-prediction layer.

Prints a line a model with the worst deviations, and exits with 1 when anything is missing or off.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from safetensors.numpy import load_file, save_file

import closed_form

HERE = os.path.dirname(os.path.abspath(__file__))
# Whoever adds in another order rounds otherwise: every bound is a share of the size of what is added up.
FORWARD_TOLERANCE = 1e-5  # max |difference| over max |reference|
GRADIENT_TOLERANCE = 1e-4  # norm of the difference over the norm of the reference and ...
NOISE = 1e-2  # ... this share of the norm of all gradients, for those whose terms cancel


class Report:
    """The worst deviation of every kind in one model, and what is wrong."""

    def __init__(self, name):
        self.name, self.worst, self.faults = name, {}, []

    def compare(self, kind, what, deviation, tolerance):
        if not deviation <= tolerance:  # also true of nan
            self.faults.append(f"{what} is off by {deviation:.2e} (at most {tolerance:.0e})")
        if kind not in self.worst or not deviation <= self.worst[kind][0]:
            self.worst[kind] = (deviation, what)

    def take(self, tensors, name, shape):
        if name not in tensors:
            self.faults.append(f"{name} is missing")
            return None
        if tensors[name].shape != shape:
            self.faults.append(f"{name} has shape {tensors[name].shape}, not {shape}")
            return None
        return tensors[name].astype(np.float64)

    def print(self):
        numbers = ", ".join(f"{kind} {value:.1e} ({what})" for kind, (value, what) in self.worst.items())
        print(f"{'FAIL' if self.faults else 'PASS'} {self.name}: {numbers or 'nothing compared'}")
        for fault in self.faults[:20]:
            print(f"     {fault}")
        if len(self.faults) > 20:
            print(f"     and {len(self.faults) - 20} more")
        return not self.faults


def relative(got, reference):
    return np.abs(got - reference).max() / max(np.abs(reference).max(), 1e-30)


def norm_of_all(gradients):
    return np.sqrt(sum((value.astype(np.float64)**2).sum() for value in gradients.values()))


def run_tool(tool, folder, inputs, report):
    with tempfile.TemporaryDirectory() as scratch:
        source, target = os.path.join(scratch, "input.safetensors"), os.path.join(scratch, "output.safetensors")
        save_file(inputs, source)
        done = subprocess.run([*tool, folder, source, target], capture_output=True, text=True)
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            report.faults.append(f"the tool ended with {done.returncode}: {lines[-1]}")
            return None
        if not os.path.exists(target):
            report.faults.append("the tool wrote no output")
            return None
        return load_file(target)


def check_fixture(tool, folder):
    """A model that make_models.py wrote: everything against transformers."""
    report = Report(os.path.basename(folder))
    expected = load_file(os.path.join(folder, "expected.safetensors"))
    got = run_tool(tool, folder, {k: expected[k] for k in ("input_ids", "labels", "generate.prompt")}, report)
    if got is None:
        return report.print()
    for name in ("logits", "loss"):
        value = report.take(got, name, expected[name].shape)
        if value is not None:
            report.compare(name, name, relative(value, expected[name].astype(np.float64)), FORWARD_TOLERANCE)
    tokens = report.take(got, "generate.tokens", expected["generate.tokens"].shape)
    if tokens is not None:
        report.compare("greedy tokens", "generate.tokens", (tokens != expected["generate.tokens"]).sum(), 0)
    gradients = {name: value.astype(np.float64) for name, value in expected.items() if name.startswith("grad.")}
    whole = norm_of_all(gradients)
    for name, reference in gradients.items():
        value = report.take(got, name, reference.shape)
        if value is None:
            continue
        size = np.linalg.norm(reference) + NOISE * whole
        report.compare("gradient", name[5:], np.linalg.norm(value - reference) / size, GRADIENT_TOLERANCE)
    return report.print()


def check_golden(tool, name, golden, out, with_aux, with_mtp):
    """A model with closed-form weights: the numbers of tiny_golden.json."""
    report = Report(f"golden {name}")
    folder = closed_form.write(name, golden["config"], out)
    inputs = load_file(os.path.join(folder, "input.safetensors"))
    got = run_tool(tool, folder, inputs, report)
    if got is None:
        return report.print()
    logits = report.take(got, "logits", inputs["input_ids"].shape + (golden["config"]["vocab_size"],))
    loss = report.take(got, "loss", ())
    if loss is not None:
        report.compare("loss", "loss", relative(loss, golden["loss"]), FORWARD_TOLERANCE)
    if logits is not None:
        largest = max(abs(value) for values in golden["logits"].values() for value in values)
        for place, values in golden["logits"].items():
            b, t, v = map(int, place.split(","))
            deviation = np.abs(logits[b, t, v:v + 4] - values).max() / largest
            report.compare("logits", f"logits[{place}...]", deviation, FORWARD_TOLERANCE)
        total = abs((logits**2).sum() - golden["logits_square_sum"]) / golden["logits_square_sum"]
        report.compare("logits", "sum of squared logits", total, FORWARD_TOLERANCE)
    use_mtp = with_mtp and "mtp_loss" in golden
    if use_mtp:
        mtp = report.take(got, "mtp_loss", ())
        if mtp is not None:
            report.compare("mtp loss", "mtp_loss", relative(mtp, golden["mtp_loss"]), FORWARD_TOLERANCE)
    whole = norm_of_all({name: value for name, value in got.items() if name.startswith("grad.")})
    for place, reference in golden["gradients_with_mtp" if use_mtp else "gradients"].items():
        weight, index = place[:-1].split("[")
        if f"grad.{weight}" not in got:
            report.faults.append(f"grad.{weight} is missing")
            continue
        value = float(got[f"grad.{weight}"].reshape(-1)[int(index)])
        # The references are central differences, good to about 1e-8.
        size = abs(reference) + NOISE * whole
        report.compare("gradient", place, abs(value - reference) / size, GRADIENT_TOLERANCE)
    if with_aux:
        for kind in ("sequence", "batch"):
            for layer, reference in golden.get(f"aux_{kind}", {}).items():
                if int(layer) >= golden["config"]["num_hidden_layers"] and not use_mtp:
                    continue
                value = report.take(got, f"aux.{kind}.{layer}", ())
                if value is not None:
                    report.compare("aux", f"aux.{kind}.{layer}", abs(value - reference) / reference, FORWARD_TOLERANCE)
    return report.print()


def main():
    parser = argparse.ArgumentParser(description="Compares a program's models with two independent ones.")
    parser.add_argument("tool", nargs="+", help="the program, with its leading arguments")
    parser.add_argument("--work", help="folder for the models; default: a temporary one")
    parser.add_argument("--aux", action="store_true", help="compare aux losses as well")
    parser.add_argument("--mtp", action="store_true", help="compare multi-token prediction as well")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or scratch
        models = os.path.join(work, "models")
        subprocess.run([sys.executable, os.path.join(HERE, "make_models.py"), models], check=True,
                       stdout=subprocess.DEVNULL)
        good = [check_fixture(args.tool, os.path.join(models, name)) for name in sorted(os.listdir(models))]
        with open(closed_form.GOLDEN) as file:
            golden = json.load(file)
        for name, numbers in golden.items():
            good.append(check_golden(args.tool, name, numbers, os.path.join(work, "golden"), args.aux, args.mtp))
    print(f"{sum(good)} of {len(good)} models agree")
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
