#!/usr/bin/env python3
"""Walks through moetron as its users do: preprocess, pretrain on one rank and under torchrun, stop, resume,
generate; transformers is the oracle for what comes out. Then the mistakes that users make.

    e2e_test.py MOETRON MODEL_TOOL
"""
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
from process_support import (ENVIRONMENT, HANG, MODEL, MOETRON, RUN, TORCHRUN, check, make_data, records, run,
                             run_tests, wait_for_step)
from safetensors.numpy import load_file, save_file

MODEL_TOOL = os.path.abspath(sys.argv[2])


def test_training():
    make_data()
    run(["pretrain", *MODEL, *RUN, "--save", "one"])
    run(["pretrain", *MODEL, *RUN, "--save", "four"], launcher=TORCHRUN)
    one, four = records("one"), records("four")
    check(len(one) == len(four) == 50, "50 steps on one rank and on four")
    worst = max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(one, four))
    check(worst < 1e-6, f"four gloo ranks give the losses of one (worst relative difference {worst:.1e})")
    check(one[-1]["loss"] < 0.8 * one[0]["loss"], f"it learns: {one[0]['loss']:.3f} to {one[-1]['loss']:.3f}")
    check(os.path.exists("one/loss.png"), "a loss picture")


def test_stopping():
    """Stopped by the file under torchrun, by SIGTERM without: the same command gives the same losses."""
    command = [*TORCHRUN, MOETRON, "pretrain", *MODEL, *RUN, "--save", "parts"]
    first = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    wait_for_step("parts", 8, first)
    open("parts/stop", "w").close()
    check(first.wait(HANG) == 0, "SAVE/stop under torchrun ends well")
    stopped_at = len(records("parts"))
    check(8 <= stopped_at < 50, f"stopped at step {stopped_at}")
    run(["pretrain", *MODEL, *RUN, "--save", "parts"], launcher=TORCHRUN)
    check([r["loss"] for r in records("parts")] == [r["loss"] for r in records("four")],
          "resumed losses are bit-equal to the uninterrupted run's")

    second = subprocess.Popen([MOETRON, "pretrain", *MODEL, *RUN, "--save", "alone"], env=ENVIRONMENT,
                              stdout=subprocess.DEVNULL)
    wait_for_step("alone", 5, second)
    second.send_signal(signal.SIGTERM)
    check(second.wait(HANG) == 75, "SIGTERM saves and exits 75")
    run(["pretrain", *MODEL, *RUN, "--save", "alone"])
    check([r["loss"] for r in records("alone")] == [r["loss"] for r in records("one")],
          "and the same command goes on, bit-equal")

    third = subprocess.Popen([MOETRON, "pretrain", *MODEL, *RUN, "--save", "usr1"], env=ENVIRONMENT,
                             stdout=subprocess.DEVNULL)
    wait_for_step("usr1", 3, third)
    third.send_signal(signal.SIGUSR1)
    check(third.wait(HANG) == 75, "SIGUSR1 saves and exits 75")
    done = run(["pretrain", *MODEL, *RUN, "--save", "one"])
    check("nothing is left to do" in done.stdout, "a finished run says so")


def test_optimizer_left_out():
    """The guide's scripts save no optimizer: such a run must still continue, and say what that means."""
    short = [*MODEL, *RUN, "--train-iters", "6", "--no-save-optim", "--save", "bare"]
    run(["pretrain", *short, "--exit-interval", "3"])
    done = run(["pretrain", *short])
    check("the optimizer begins anew (no-save-optim)" in done.stderr, "    says that the optimizer begins anew")
    check([r["step"] for r in records("bare")] == list(range(1, 7)), "and continues to step 6")
    steps = [r["loss"] for r in records("bare")]
    check(abs(steps[-1] - records("one")[5]["loss"]) < 0.2, "with sane updates")


def test_made_up_data():
    """Random tokens instead of files, counted in samples; a limit of time; norms and zeros that are only looked at."""
    counted = [*RUN, "--mock-data", "--train-samples", "40", "--lr-warmup-samples", "12", "--eval-iters", "1",
               "--log-params-norm", "--log-num-zeros-in-grad"]
    for name in ("--data-path", "--train-iters", "--lr-warmup-iters", "--split"):
        at = counted.index(name)
        del counted[at:at + 2]
    run(["pretrain", *MODEL, *counted, "--save", "mock"])
    run(["pretrain", *MODEL, *counted, "--save", "mock4", "--use-distributed-optimizer"], launcher=TORCHRUN)
    one, four = records("mock"), records("mock4")
    check([r["step"] for r in one] == [1, 2, 3, 4, 5], "40 samples in batches of 8 are 5 steps")
    check(max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(one, four)) < 1e-6, "four ranks draw the tokens of one")
    check(abs(one[0]["loss"] - np.log(257)) < 0.3, f"nothing can be foretold: {one[0]['loss']:.3f}")
    check(max(abs(a["params_norm"] / b["params_norm"] - 1) for a, b in zip(one, four)) < 1e-6,
          "the norm of the parameters is the same")
    weights = load_file("mock/step_0000005/model.safetensors")
    trained = [w for name, w in weights.items() if not name.endswith("e_score_correction_bias")]
    norm = np.sqrt(sum(np.square(w.astype(np.float64)).sum() for w in trained))
    check(abs(one[-1]["params_norm"] / norm - 1) < 1e-6, f"and that of what was saved: {norm:.4f}")
    check([r["num_zeros_in_grad"] for r in one] == [r["num_zeros_in_grad"] for r in four] and
          all(0 < r["num_zeros_in_grad"] < sum(w.size for w in trained) for r in one),
          f"as many zeros in the gradients: {one[0]['num_zeros_in_grad']}")
    check(abs(one[1]["lr"] / (2e-3 * 8 / 12) - 1) < 1e-12, "the warm-up is counted in samples")
    late = ["pretrain", *MODEL, *counted, "--save", "late"]
    done = run([*late, "--exit-duration-in-mins", "1e-6"], launcher=TORCHRUN)
    check("exit-duration-in-mins: left after step 1" in done.stdout and len(records("late")) == 1,
          "left when the time was up")
    run(late)
    check(max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(one, records("late"))) < 1e-6, "and continued")
    run(["pretrain", *MODEL, *counted, "--load", "mock", "--finetune", "--save", "tuned", "--exit-interval", "1"])
    tuned = records("tuned")
    check([r["step"] for r in tuned] == [1] and tuned[0]["lr"] == one[0]["lr"] and tuned[0]["loss"] != one[0]["loss"],
          "with --finetune a run's weights begin at step 1 again")


def test_damaged_checkpoint():
    shutil.copytree("bare", "damaged")
    newest = "damaged/step_0000006/model.safetensors"
    with open(newest, "r+b") as file:
        file.seek(2000)
        file.write(b"\xff\xff\xff")
    done = run(["pretrain", *MODEL, *RUN, "--train-iters", "6", "--no-save-optim", "--save", "damaged"])
    check("step_0000006/model.safetensors" in done.stderr and "continues at step 3" in done.stderr,
          "a damaged checkpoint is named and passed over")


def test_failing_ranks():
    """Mistakes under torchrun: one rank speaks, in one block or one sentence, without a stack trace of ours."""
    for more, names in ((["--load", "text"], ["load", "text"]), (["--save", "/proc/x"], ["/proc/x"]),
                        (["--global-batch-size", "6"], ["global-batch-size", "6"]),
                        (["--globl-batch-size", "6"], ["unknown option --globl-batch-size"]),
                        (["--lr", "$((1 + RANK))e-4"], ["lr must be the same on all ranks", "0.0001", "0.0002"])):
        # By a shell, so that an option may depend on the rank.
        program = ["bash", "-c", " ".join([MOETRON, "pretrain", *MODEL, *RUN, *more])]
        done = subprocess.run([*TORCHRUN, *program], capture_output=True, text=True, env=ENVIRONMENT, timeout=HANG)
        ours = [line for line in done.stderr.splitlines() if line.startswith("moetron: ") or "  cause " in line]
        spoken = sum(line.startswith("moetron: ") for line in ours)
        check(done.returncode != 0 and spoken == 1 and all(n in " ".join(ours) for n in names),
              f"four ranks, one message: {ours}")
        check("frame #" not in done.stderr, "    without a stack trace")
        last = done.stderr.rstrip().splitlines()[-2]
        check(all(n in last for n in names), f"    which torchrun repeats as its last words: {last}")


def test_transformers():
    import torch
    import transformers
    folder = "one/step_0000050"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    ids = torch.randint(0, 256, (2, 24), generator=torch.Generator().manual_seed(3))
    save_file({"input_ids": ids.numpy(), "labels": np.zeros((2, 24), np.int64)}, "input.safetensors")
    subprocess.run([MODEL_TOOL, folder, "input.safetensors", "output.safetensors"], check=True)
    with torch.no_grad():
        theirs = model(ids).logits.numpy()
    ours = load_file("output.safetensors")["logits"]
    worst = np.abs(ours - theirs).max() / np.abs(theirs).max()
    check(worst < 1e-5, f"transformers gives the checkpoint's logits (worst relative difference {worst:.1e})")

    prompt = "the router sends"
    done = run(["generate", "--load", "one", "--tokenizer", "bytes", "--prompt", prompt, "--greedy",
                "--max-new-tokens", "24"])
    given = torch.tensor([list(prompt.encode())])
    with torch.no_grad():
        new = model.generate(given, max_new_tokens=24, do_sample=False, eos_token_id=256, pad_token_id=0)
    theirs = bytes(t for t in new[0, given.shape[1]:].tolist() if t < 256).decode(errors="replace")
    check(done.stdout == prompt + theirs + "\n", f"greedy text equals transformers': {theirs!r}")


def test_mistakes():
    """Each: arguments, exit code, what the one sentence must name."""
    with open("data/pages_text_document.idx", "rb") as file:
        index = file.read()
    os.makedirs("cut")
    shutil.copy("data/pages_text_document.idx", "cut/tail.idx")
    with open("cut/tail.bin", "wb") as file, open("data/pages_text_document.bin", "rb") as whole:
        file.write(whole.read()[:-100])
    shutil.copy("data/pages_text_document.bin", "cut/short.bin")
    with open("cut/short.idx", "wb") as file:
        file.write(index[:-5])
    with open("bad.jsonl", "w") as file:
        file.write('{"text": "fine"}\n{"text": "no end\n{"text": "fine"}\n')
    shutil.copytree("one/step_0000050", "broken", ignore=shutil.ignore_patterns("manifest.json"))
    with open("broken/config.json") as file:
        config = json.load(file)
    del config["hidden_size"]
    with open("broken/config.json", "w") as file:
        json.dump(config, file)
    shutil.copytree("one/step_0000050", "contradiction", ignore=shutil.ignore_patterns("manifest.json"))
    config["hidden_size"] = 48
    config["num_experts_per_tok"] = 9
    with open("contradiction/config.json", "w") as file:
        json.dump(config, file)

    def pretrain(*more):
        return ["pretrain", *MODEL, *RUN, *more]
    cases = [
        (["pretrian"], 2, ["pretrain"]),
        (pretrain("--hiden-size", "3"), 2, ["hiden-size", "hidden-size"]),
        (pretrain("--global-batch-size", "7", "--micro-batch-size", "2"), 2, ["global-batch-size", "7", "2"]),
        (pretrain("--data-path", "absent"), 3, ["absent"]),
        (pretrain("--data-path", "cut/short"), 3, ["cut/short.idx"]),
        (pretrain("--data-path", "cut/tail"), 3, ["cut/tail.bin"]),
        (pretrain("--tokenizer-model", "text"), 2, ["tokenizer", "bytes", "text"]),
        (pretrain("--lr-warmup-iters", "50"), 2, ["lr-warmup-iters", "50"]),
        (["generate", "--prompt", "x"], 2, ["load"]),
        (["generate", "--load", "one", "--tokenizer", "bytes", "--prompt", "x", "--prompt-file", "y"], 2, ["prompt-file"]),
        (["preprocess", "--input", "text", "--output-prefix", "out"], 2, ["tokenizer-model"]),
        (pretrain("--vocab-size", "100"), 2, ["257", "100"]),
        (pretrain("--load", "broken"), 3, ["hidden_size"]),
        (pretrain("--load", "contradiction"), 3, ["num_experts_per_tok", "9", "8"]),
        (pretrain("--load", "text"), 3, ["text"]),
        (pretrain("--tensor-model-parallel-size", "2"), 2, ["tensor-model-parallel-size"]),
        (pretrain("--scheduler", "zigzag"), 2, ["zigzag", "dualpipev"]),
        (pretrain("--seq-length", "100000"), 2, ["seq-length", "100000", "256"]),
        (pretrain("--lr", "fast"), 2, ["lr", "fast"]),
        (["preprocess", "--input", "bad.jsonl", "--tokenizer", "bytes", "--output-prefix", "out"], 3, ["bad.jsonl", "2"]),
        (["preprocess", "--input", "absent.txt", "--tokenizer", "bytes", "--output-prefix", "out"], 3, ["absent.txt"]),
        (["preprocess", "--input", "text", "--tokenizer-model", "text", "--output-prefix", "out"], 3, ["text"]),
        (["generate", "--load", "one", "--tokenizer", "bytes", "--prompt", "x", "--max-new-tokens", "1000"], 2,
         ["max-new-tokens", "1000", "256"]),
        # What lies there is no file, or cannot be looked at.
        (["generate", "--load", "loop", "--prompt", "x"], 3, ["loop", "symbolic links"]),
        (["preprocess", "--input", "n" * 300, "--tokenizer", "bytes", "--output-prefix", "out"], 3, ["too long"]),
        (["preprocess", "--input", "pipe", "--tokenizer", "bytes", "--output-prefix", "out"], 3, ["pipe"]),
        (pretrain("--data-path", "loop"), 3, ["loop"]),
        (pretrain("--config", "pipe"), 3, ["pipe", "regular file"]),
        (pretrain("--vocab-size", "1000000000"), 2, ["vocab-size", "1000000000"]),
        (["preprocess", "--input", "mistakes.json.txt", "--tokenizer", "bytes", "--output-prefix", "out"], 3,
         ["mistakes.json.txt", "--format"]),
    ]
    os.symlink("loop", "loop")
    os.mkfifo("pipe")
    with open("mistakes.json.txt", "w") as file:
        file.write('{"text": "a"}\n{"text": "b"}\n')
    def listing():
        return sorted(os.path.join(place, name) for place, _, names in os.walk(".") for name in names)
    before = listing()
    for arguments, code, names in cases:
        done = run(arguments, code=code)
        missing = [name for name in names if name not in done.stderr]
        check(not missing, f"    says: {done.stderr.strip()[-160:]}" + (f" (without {missing})" if missing else ""))
    done = run(pretrain("--tensor-model-parallel-size", "2", "--min-lr", "1", "--split", "0,1,0"), code=2)
    last = done.stderr.rstrip().splitlines()[-3:]
    check(all(name in line for name, line in zip(("tensor-model-parallel-size (2)", "min-lr (1)", "split (0"), last)),
          f"three mistakes are the last three lines: {last}")
    check(listing() == before, "nothing was written half")
    done = run(["preprocess", "--input", "bad.jsonl", "--tokenizer", "bytes", "--output-prefix", "skipped",
                "--skip-bad-lines"])
    check("1 bad lines were skipped" in done.stdout, "    and counts it")
    check(run(["--version"]).stdout.startswith("moetron "), "    says which program it is")


if __name__ == "__main__":
    run_tests(test_training, test_stopping, test_optimizer_left_out, test_made_up_data, test_damaged_checkpoint, test_failing_ranks,
              test_transformers, test_mistakes)
