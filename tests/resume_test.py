#!/usr/bin/env python3
"""What a run does when it is continued with other options or data than it was begun with, and when its data fails in
the middle: nothing changes without a word, and no work is lost.

    resume_test.py MOETRON
"""
import json
import os
import shutil

from process_support import HANG, MODEL, RUN, Ranks, check, make_data, records, run, run_tests, wait_for_step

SHORT = [*MODEL, *RUN, "--train-iters", "6", "--eval-iters", "0", "--log-interval", "1"]


def listing(folder):
    return sorted((os.path.join(place, name), os.path.getsize(os.path.join(place, name)))
                  for place, _, names in os.walk(folder) for name in names)


def trainer(folder):
    with open(f"{folder}/state/trainer.json") as file:
        return json.load(file)


def continue_run(name, more, code, words):
    """Continues a copy of the run "begun"; nothing of it is touched where that is refused."""
    shutil.copytree("begun", name)
    before = listing(name)
    done = run(["pretrain", *SHORT, *more, "--save", name], code=code)
    missing = [word for word in words if word not in done.stderr]
    said = " ".join(done.stderr.split())[:400]
    check(not missing, f"    {name} says: {said}" + (f" without {missing}" if missing else ""))
    if code != 0:
        check(listing(name) == before, "    and touches nothing")
    return done


def test_changes():
    run(["pretrain", *SHORT, "--save", "begun"])
    check(trainer("begun/step_0000006")["samples"] == {"train": [48], "validation": [0], "begin": 0},
          "the checkpoint notes for how many samples its order was made")
    row = "1234"
    longer = ["--train-iters", "9"]
    continue_run("seed", [*longer, "--seed", "5"], 2,
                 ["seed", row, "train-iters", "--accept-changes seed", "step 6"])
    continue_run("seed_named", [*longer, "--seed", "5", "--accept-changes", "seed"], 0,
                 ["another order of samples begins with step 7"])
    continue_run("several", [*longer, "--seed", "5", "--adam-beta1", "0.8", "--accept-changes", "seed"], 2,
                 ["adam-beta1", "0.9", "0.8", "--accept-changes adam-beta1"])
    continue_run("all", [*longer, "--seed", "5", "--seq-length", "16", "--accept-changes"], 0, ["seq-length"])
    continue_run("nobody", [*longer, "--accept-changes", "sead"], 2, ["sead", "seed"])
    shutil.copytree("data", "moved")
    continue_run("moved_data", [*longer, "--data-path", "moved/pages_text_document"], 0, ["moved/pages"])
    with open("moved/pages_text_document.bin", "r+b") as file:
        file.seek(200)
        file.write(b"x\0y\0")
    continue_run("other_data", [*longer, "--data-path", "moved/pages_text_document"], 2,
                 ["data-path", "120 documents", "--accept-changes data-path"])
    batch = [*longer, "--global-batch-size", "4"]
    continue_run("batch_refused", batch, 2, ["global-batch-size", "8", "4"])
    continue_run("batch", [*batch, "--accept-changes", "global-batch-size"], 0, ["global-batch-size"])
    check([r["consumed_samples"] for r in records("batch")][5:] == [48, 52, 56, 60], "    at the sample reached")


def test_longer():
    """The rate of a decay that follows train-iters changes; the samples come as one run would have them, as long as
    the first index lasts."""
    done = continue_run("longer", ["--train-iters", "12"], 0,
                        ["learning rate of step 7", "ends with train-iters, now 12", "made for 48, and 96",
                         "no sample repeats"])
    check("global-batch-size" not in done.stderr, "    and of nothing else")
    check(trainer("longer/step_0000012")["samples"]["train"] == [48, 96], "    and notes both counts")
    done = run(["pretrain", *SHORT, "--train-iters", "12", "--save", "longer"])
    check("changed" not in done.stderr, "the same command again has changed nothing")


def test_schedules():
    """Other learning rates than before: refused, those of the options, or those of the checkpoint."""
    longer, other = ["--train-iters", "9"], ["--lr", "1e-4", "--min-lr", "1e-5", "--weight-decay", "0.3"]
    both = ["--override-opt_param-scheduler", "--use-checkpoint-opt_param-scheduler"]
    continue_run("schedule_refused", [*longer, *other], 2, ["--accept-changes", "lr,min-lr,weight-decay"])
    continue_run("schedule_both", [*longer, *both], 2, ["override-opt-param-scheduler", "give one of them"])
    # Each beside what says the same in other words.
    for name, more, same in (("overridden", [*other, both[0]], [*other, "--accept-changes", "lr,min-lr,weight-decay"]),
                             ("kept", [*other, both[1]], ["--lr-decay-iters", "6", "--accept-changes", "lr-decay-iters"])):
        for folder, words in ((name, more), (f"{name}_as", same)):
            continue_run(folder, [*longer, *words], 0, [])
        told = [[(record["step"], record["lr"], record["loss"], record["grad_norm"]) for record in records(folder)]
                for folder in (name, f"{name}_as")]
        check(told[0] == told[1] and len(told[0]) == 9, f"    {name} as {' '.join(same)}: {told[0][6:]}")
    run(["pretrain", *SHORT, "--train-iters", "10", *other, both[1], "--save", "kept"])
    rates = [record["lr"] for record in records("kept")]
    check(len(rates) == 10 and rates[6:] == [1e-4] * 4, f"    and so does the next: {rates}")


def test_failing_data():
    """The data is overwritten while the run reads it: it saves, then ends, on all ranks together."""
    for size in (1, 2):
        name = f"failing_{size}"
        shutil.copytree("data", f"{name}_data")
        command = ["pretrain", *MODEL, *RUN, "--train-iters", "100000", "--eval-iters", "0", "--save", name,
                   "--data-path", f"{name}_data/pages_text_document"]
        with Ranks(command, f"{name}_log", size) as ranks:
            wait_for_step(name, 4, ranks.processes[0])
            path = f"{name}_data/pages_text_document.bin"
            with open(path, "r+b") as file:
                file.write(b"\x2c\x01" * (os.path.getsize(path) // 2))
            codes = ranks.codes(HANG)
        text = ranks.errors()
        steps = sorted(entry for entry in os.listdir(name) if entry.startswith("step_"))
        check(set(codes.values()) == {3}, f"data that fails ends {size} ranks with 3: {codes}")
        check("token 300" in text and text.count("moetron: ") == 1, f"    in one message: {text[-400:]}")
        check(steps == [f"step_{records(name)[-1]['step']:07d}"], f"    after a save of the last step: {steps}")


def test_known_before():
    shutil.copytree("data", "bad")
    with open("bad/pages_text_document.bin", "r+b") as file:
        file.seek(-40, os.SEEK_END)
        file.write(b"\x2c\x01")
    cached = ["pretrain", *SHORT, "--data-cache-path", "bad_cache"]
    done = run([*cached, "--data-path", "bad/pages_text_document", "--split", "1", "--save", "late"], code=3)
    named = "token 300" in done.stderr and "bad/pages_text_document.bin" in done.stderr
    check(named and sorted(os.listdir("late")) == [".lock", "metrics.jsonl"],
          f"a token outside the vocabulary is found before the first step: {done.stderr.strip()[-200:]}")
    run([*cached, "--save", "cached"])
    check(any(name.endswith("checked_tokens.json") for name in os.listdir("bad_cache")),
          "    and what is sound is noted")
    two = ["--data-path", "data/pages_text_document", "moved/pages_text_document", "--seq-length", "128"]
    run(["pretrain", *SHORT, *two, "--train-iters", "120", "--eval-iters", "9", "--eval-interval", "100",
         "--save", "two"])
    check(len(records("two")) == 120, "a blend without weights begins its data again")


if __name__ == "__main__":
    run_tests(make_data, test_changes, test_longer, test_schedules, test_failing_data, test_known_before)
