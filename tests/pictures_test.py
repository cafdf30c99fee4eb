#!/usr/bin/env python3
"""The pictures of runs: a profile beside its simulation, a run that was resumed, and the scripts of tools/plot_scripts.

    pictures_test.py MOETRON
"""
import json
import os
import re
import subprocess

from process_support import ENVIRONMENT, HANG, MODEL, MOETRON, RUN, check, make_data, records, run, run_tests

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHORT = [*MODEL, *RUN, "--eval-iters", "0", "--lr-decay-iters", "50"]
PNG = b"\x89PNG"


def head(path):
    with open(path, "rb") as file:
        return file.read(4)


def script(name, *arguments, code=0, **variables):
    done = subprocess.run([f"{ROOT}/tools/plot_scripts/{name}", *arguments], capture_output=True, text=True,
                          timeout=HANG, env={**ENVIRONMENT, "MOETRON": MOETRON, **variables})
    check(done.returncode == code, f"{name} {' '.join(arguments)}: {code} {done.stderr.strip()[-300:]}")
    return done


def test_profile():
    done = run(["launch", "-n", "2", "pretrain", *SHORT, "--train-iters", "3", "--save", "profiled",
                "--pipeline-model-parallel-size", "2", "--scheduler", "dualpipev", "--num-layers", "4",
                "--profile", "--profile-step-start", "3", "--profile-step-end", "4", "--profile-format", "png"])
    check(head("profiled/profile/step_3.png") == PNG, "the picture is the PNG that was asked for")
    said = re.search(r"^profile   profiled/profile/step_3.png and .json; simulated from its own mean times: [\d.]+ ms "
                     r"instead of [\d.]+ ms; largest gap: .* on rank [01] took [\d.]+ ms longer", done.stdout, re.M)
    check(said, "a line names the largest gap")
    with open("profiled/profile/step_3.json") as file:
        events = json.load(file)["traceEvents"]
    tracks = {event["args"]["name"]: event["tid"] for event in events if event["name"] == "thread_name"}
    steps = [[event["name"] for event in events if event["ph"] == "X" and event["tid"] == tracks[name]
              and event["pid"] == 1] for name in ("steps", "steps, simulated")]
    check(steps[0] and steps[0] == steps[1], "the trace has the real steps and the same simulated")


def test_resume():
    run(["pretrain", *SHORT, "--train-iters", "6", "--save", "resumed", "--exit-interval", "2"])
    run(["pretrain", *SHORT, "--train-iters", "6", "--save", "resumed"])
    check([r.get("resume_repeats") for r in records("resumed")] == [None, None, 0, None, None, None],
          "the first record behind a resume says so")
    run(["plot", "resumed", "--picture", "resumed.svg"])
    with open("resumed.svg") as file:
        check(">resumed<" in file.read(), "and the picture shows it")


def test_scripts():
    script("plot_throughput.sh", code=2)
    script("plot_throughput.sh", "guide")
    check(head("guide/tokens_per_second.png") == PNG and head("guide/tflops_per_second.png") == PNG,
          "the guide's table is drawn where no run is named")
    script("plot_throughput.sh", "own", "resumed", "profiled", LABELS="one two", ENDING="svg")
    with open("own/tokens_per_second.svg") as file:
        text = file.read()
    check(">one<" in text and ">two<" in text, "runs are drawn under their labels")
    script("plot_loss.sh", "resumed", "profiled", "loss.svg")  # other losses: they are drawn all the same
    with open("loss.svg") as file:
        text = file.read()
    check(">1f1b<" in text and ">dualpipev<" in text and "relative difference" in text, "two losses and their difference")
    script("plot_loss.sh", "resumed", "absent", "loss.svg", code=3)


if __name__ == "__main__":
    run_tests(make_data, test_profile, test_resume, test_scripts)
