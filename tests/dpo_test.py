#!/usr/bin/env python3
"""Preference tuning (sft --objective dpo) of tiny models on pairs of answers: the model learns to prefer the chosen
ones; each step's loss and rewards, and the first step's gradients, are those of DPO's published formula in PyTorch over
transformers' model (and PEFT's, for low-rank updates); then ranks, resuming, the reference's file, and mistakes.

    dpo_test.py MOETRON
"""
import glob
import json
import os
import shutil

import torch
import torch.nn.functional as F
from peft import PeftModel
from process_support import check, records, run, run_tests
from safetensors.torch import load_file
from sft_test import FACTS, make_chats, make_model, newest
from transformers import AutoModelForCausalLM, AutoTokenizer

BETA, SMOOTHING = 0.4, 0.1
# Every step sees all pairs, so that their order does not matter.
RUN = ["sft", "--objective", "dpo", "--data-path", "pairs.jsonl", "--device", "cpu", "--seq-length", "128",
       "--micro-batch-size", "4", "--global-batch-size", "16", "--sample-answers", "0", "--dpo-beta", str(BETA)]
STEPS = ["--train-iters", "5", "--lr", "1e-3", "--dpo-label-smoothing", str(SMOOTHING)]


def make_pairs(path="pairs.jsonl", facts=FACTS):
    """Each fact, and what another one says instead; half of them as whole conversations of two turns."""
    with open(path, "w") as out:
        for i, (question, answer) in enumerate(facts):
            wrong = facts[(i + 1) % len(facts)][1]
            if i % 2 == 0:
                record = {"prompt": question, "chosen": answer, "rejected": wrong}
            else:
                before = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Good day."},
                          {"role": "user", "content": question}]
                record = {"chosen": before + [{"role": "assistant", "content": answer}],
                          "rejected": before + [{"role": "assistant", "content": wrong}]}
            out.write(json.dumps(record, ensure_ascii=False) + "\n")


def rows(tokenizer, path="pairs.jsonl"):
    """(tokens, labels) of every chosen and rejected answer in turn: only the last turn has labels."""
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    found = []
    for line in open(path):
        record = json.loads(line)
        for side in ("chosen", "rejected"):
            messages = record[side]
            if isinstance(messages, str):
                messages = [{"role": "user", "content": record["prompt"]}, {"role": "assistant", "content": messages}]
            text = [tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False),
                    tokenizer.apply_chat_template(messages, tokenize=False)]
            prompt, whole = (tokenizer(one, add_special_tokens=False)["input_ids"] for one in text)
            assert whole[:len(prompt)] == prompt
            last = len(whole) - 1 - whole[::-1].index(end)
            found.append((whole, [-100] * len(prompt) + whole[len(prompt):last + 1] + [-100] * (len(whole) - 1 - last)))
    return found


class Oracle:
    """Rafailov et al. 2023, equation 7, with the label smoothing of conservative DPO (Mitchell 2023)."""

    def __init__(self, model, reference, tokenizer):
        data = rows(tokenizer)
        longest = max(len(tokens) for tokens, _ in data)
        self.tokens = torch.tensor([t + [0] * (longest - len(t)) for t, _ in data])
        self.labels = torch.tensor([t + [-100] * (longest - len(t)) for _, t in data])
        self.mask = torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t, _ in data])
        self.model = model
        with torch.no_grad():
            self.reference = self.log_probabilities(reference)

    def log_probabilities(self, model):
        logits = model(input_ids=self.tokens, attention_mask=self.mask).logits[:, :-1].float()
        losses = F.cross_entropy(logits.transpose(1, 2), self.labels[:, 1:], ignore_index=-100, reduction="none")
        return -losses.sum(1)

    def loss(self):
        rewards = BETA * (self.log_probabilities(self.model) - self.reference)
        chosen, rejected = rewards[0::2], rewards[1::2]
        margin = chosen - rejected
        loss = (-F.logsigmoid(margin) * (1 - SMOOTHING) - F.logsigmoid(-margin) * SMOOTHING).mean()
        return loss, {"chosen": chosen.mean().item(), "rejected": rejected.mean().item(),
                      "accuracies": (chosen > rejected).float().mean().item(), "margins": margin.mean().item()}

    def gradients(self):
        self.loss()[0].backward()
        return {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}

    def train(self, lrs, weight_decay=0.01):
        trained = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW([{"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
                                       {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0}])
        found = []
        for lr in lrs:
            for group in optimizer.param_groups:
                group["lr"] = lr
            loss, rewards = self.loss()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            found.append((loss.item(), rewards))
        return found


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def compare_steps(found, wanted, what):
    worst = max(abs(record["loss"] - loss) for record, (loss, _) in zip(found, wanted))
    rewards = max(abs(record["rewards"][key] - theirs[key]) for record, (_, theirs) in list(zip(found, wanted))[1:]
                  for key in theirs)
    check(len(found) == len(wanted) and worst < 1e-4, f"{what}: losses within {worst:.1e} of transformers'")
    check(rewards < 1e-3, f"{what}: rewards within {rewards:.1e}")
    check(found[0]["rewards"]["margins"] == 0, f"{what}: the first step's margins are zero")
    check(wanted[-1][0] < wanted[0][0] - 0.01, f"{what}: and it learns")


def test_preferring():
    """One command, and every chosen answer is preferred to the rejected one, whose margin grows."""
    make_model("tiny")
    make_pairs()
    done = run([*RUN, "--load", "tiny", "--save", "taught", "--epochs", "20", "--lr", "2e-3", "--log-interval", "5"])
    for text in ("packing false: each answer of a pair has a sequence of its own", "train-iters 20: "):
        check(text in done.stderr, f"the start says {text!r}")
    for text in ("8 pairs of pairs.jsonl in 16 sequences an epoch", "reference tiny, for 16 answers, 16 computed",
                 "chosen    <|im_start|>user", "[[The capital of Orbia is Lunet.<|im_end|>]]", "rejected  ",
                 "16 sequences of 128 tokens: 8 pairs"):
        check(text in done.stdout, f"and {text!r}")
    check("[[Good day." not in done.stdout, "what both sides begin with is not trained")
    found = records("taught")
    margins = [record["rewards"]["margins"] for record in found]
    check(found[-1]["rewards"]["accuracies"] == 1.0 and found[-1]["loss"] < 0.1, f"all are preferred: {found[-1]}")
    check(margins[-1] > margins[5] > margins[1] > margins[0] == 0, f"the margin grows to {margins[-1]:.3g}")
    check("accuracy" in done.stdout and "margin" in done.stdout, "the steps' lines have margin and accuracy")
    model, tokenizer = load(newest("taught")), AutoTokenizer.from_pretrained("tiny")
    oracle = Oracle(model, load("tiny"), tokenizer)
    with torch.no_grad():
        check(oracle.loss()[1]["accuracies"] == 1.0, "transformers' model of what was saved prefers them, too")


def test_losses_of_transformers():
    """Each step's loss and rewards, and the first step's gradients."""
    for moe in (False, True):
        name = "moe" if moe else "tiny"
        if moe:
            make_model(name, moe=True)
        tokenizer = AutoTokenizer.from_pretrained(name)
        save = f"{name}_steps"
        run([*RUN, *STEPS, "--load", name, "--save", save])
        found = records(save)
        compare_steps(found, Oracle(load(name), load(name), tokenizer).train([r["lr"] for r in found]), name)
        run([*RUN, *STEPS, "--load", name, "--save", f"{name}_first", "--train-iters", "1", "--clip-grad", "0"])
        state = load_file(glob.glob(f"{newest(f'{name}_first')}/state/optimizer*.safetensors")[0])
        ours = {key.removeprefix("exp_avg."): 10 * value for key, value in state.items() if key.startswith("exp_avg.")}
        theirs = Oracle(load(name), load(name), tokenizer).gradients()
        compare_gradients(ours, theirs, name)


def one_by_one(gradients):
    """Experts, which transformers stacks, under the names that checkpoints have."""
    found = {}
    for name, gradient in gradients.items():
        before, _, kind = name.partition(".experts.")
        for i, one in enumerate(gradient if kind else []):
            parts = zip(("gate_proj", "up_proj"), one.chunk(2)) if kind == "gate_up_proj" else [("down_proj", one)]
            found.update({f"{before}.experts.{i}.{part}.weight": value for part, value in parts})
        if not kind:
            found[name] = gradient
    return found


def compare_gradients(ours, theirs, what):
    """Adam's first moment is a tenth of the gradient."""
    theirs = one_by_one(theirs)
    check(sorted(ours) == sorted(theirs), f"{what}: {len(theirs)} tensors have gradients")
    total = sum(g.norm() ** 2 for g in theirs.values()) ** 0.5
    worst = max(float((ours[name] - wanted).norm() / total) for name, wanted in theirs.items() if name in ours)
    check(total > 0.1 and worst < 1e-5, f"{what}: first gradients within {worst:.1e} of the norm of all")


def test_low_rank_updates():
    """The model without updates is the reference; a fresh adapter changes nothing yet."""
    lora = ["--lora-rank", "4", "--lora-alpha", "8", "--load", "tiny"]
    run([*RUN, *STEPS, *lora, "--save", "fresh", "--lr", "1e-30", "--train-iters", "1"])
    run([*RUN, *STEPS, *lora, "--save", "lora"])
    found = records("lora")
    model = PeftModel.from_pretrained(load("tiny"), newest("fresh"), is_trainable=True)
    wanted = Oracle(model, load("tiny"), AutoTokenizer.from_pretrained("tiny")).train([r["lr"] for r in found])
    compare_steps(found, wanted, "updates")
    made = run([*RUN, *STEPS, "--lora-rank", "4", "--lora-alpha", "8", "--load", newest("lora"), "--save", "further"])
    check("computed in" in made.stdout and records("further")[0]["rewards"]["margins"] == 0,
          "an adapter that is loaded is part of its reference")


def test_ranks():
    base = [*RUN, *STEPS, "--load", "moe", "--micro-batch-size", "2"]
    run([*base, "--save", "one"])
    for name, size, layout in (("two", 2, ["--tensor-model-parallel-size", "2"]),
                               ("dualpipev", 4, ["--pipeline-model-parallel-size", "2", "--scheduler", "dualpipev",
                                                 "--expert-model-parallel-size", "2"])):
        shutil.rmtree(".moetron_cache")
        run(["launch", "-n", str(size), *base, *layout, "--save", name])
        pairs = list(zip(records("one"), records(name)))
        worst = max(abs(a["loss"] / b["loss"] - 1) for a, b in pairs)
        rewards = max(abs(a["rewards"]["margins"] - b["rewards"]["margins"]) for a, b in pairs)
        check(len(pairs) == 5 and worst < 1e-5 and rewards < 1e-4,
              f"{name}: losses within {worst:.1e}, margins within {rewards:.1e} of one rank's")


def numbers(folder):
    return [(r["loss"], r["rewards"], r.get("validation_loss"), r.get("validation_rewards")) for r in records(folder)]


def test_resume():
    """The bits of a run that was not stopped, with the reference's file and without it."""
    many = [(f"What is {n} doubled?", f"It is {2 * n}.") for n in range(20)]
    make_pairs("many.jsonl", many)
    base = [*RUN, "--data-path", "many.jsonl", "--global-batch-size", "8", "--eval-fraction", "0.2", "--lr", "1e-3",
            "--epochs", "2", "--eval-interval", "2", "--load"]
    for kind, start in (("whole", ["tiny"]), ("updates", ["tiny", "--lora-rank", "4"])):
        done = run([*base, *start, "--save", kind])
        check("16 pairs of many.jsonl in 32 sequences" in done.stdout and "4 pairs to validate on" in done.stdout,
              f"{kind}: a fifth is held out")
        run([*base, *start, "--save", f"{kind}_parts", "--exit-interval", "3"])
        check(len(records(f"{kind}_parts")) == 3, f"{kind}: left after step 3 of {len(records(kind))}")
        shutil.copytree(f"{kind}_parts", f"{kind}_gone")
        done = run([*base, *start, "--save", f"{kind}_parts"])
        check(", from " in done.stdout, f"{kind}: the reference's answers are those of the file")
        check(numbers(f"{kind}_parts") == numbers(kind), f"{kind}: the same command goes on, bit-equal")
        for file in glob.glob(".moetron_cache/reference-*"):
            os.remove(file)
        done = run([*base, *start, "--save", f"{kind}_gone"])
        check("computed in" in done.stdout and numbers(f"{kind}_gone") == numbers(kind),
              f"{kind}: and without the file")
    evaluated = [r["validation_rewards"]["accuracies"] for r in records("whole") if "validation_loss" in r]
    check(len(evaluated) >= 2 and all(0 <= a <= 1 for a in evaluated), f"validation has an accuracy: {evaluated}")
    other = run([*base, "moe", "--save", "whole_parts", "--epochs", "3", "--accept-changes"], code=2)
    check("load (moe)" in other.stderr and "tiny" in other.stderr, "another reference is told, not taken")
    run([*base, "tiny", "--save", "cut", "--exit-interval", "1"])
    for file in glob.glob(".moetron_cache/reference-*"):
        with open(file, "r+b") as out:
            out.write(b"{]")
    done = run([*base, "tiny", "--save", "cut", "--exit-interval", "1"])
    check("made anew" in done.stderr and "computed in" in done.stdout, "a damaged file is made anew")
    for file in glob.glob(".moetron_cache/reference-*"):
        os.remove(file)
    shutil.move("tiny", "away")
    done = run([*base, "tiny", "--save", "cut"], code=3)
    check("load: tiny is gone" in done.stderr, "neither file nor model: what is missing is said")
    shutil.move("away", "tiny")


def test_mistakes():
    base = [*RUN, "--load", "tiny", "--save", "bad", "--train-iters", "1"]
    for more, words in ((["--packing"], "packing (true): objective (dpo)"),
                        (["--truncate"], "truncate (true): objective (dpo)"),
                        (["--micro-batch-size", "3"], "micro-batch-size (3) counts sequences"),
                        (["--global-batch-size", "15"], "global-batch-size (15) counts sequences"),
                        (["--dpo-beta", "0"], "dpo-beta"), (["--dpo-label-smoothing", "0.5"], "dpo-label-smoothing"),
                        (["--objective", "ppo"], "objective"), (["--seq-length", "8"], "longer than seq-length (8)")):
        done = run([*base, *more], code=2)
        check(words in done.stderr and "terminate" not in done.stderr, f"{' '.join(more)}: {words}")
    make_chats()
    done = run([*base, "--data-path", "chats.jsonl"], code=3)
    check("holds no pair" in done.stderr and "objective (dpo) needs chosen and rejected" in done.stderr,
          "data without pairs")
    with open("mixed.jsonl", "w") as out:
        out.write(open("pairs.jsonl").read() + open("chats.jsonl").readline())
        out.write(json.dumps({"prompt": "Who?", "chosen": "I.", "rejected": "no " * 200}) + "\n")
    done = run([*base, "--data-path", "mixed.jsonl", "--strict"], code=3)
    check("line 9" in done.stderr and "chosen and rejected" in done.stderr, "strict: a record that is no pair")
    done = run([*base, "--data-path", "mixed.jsonl"])
    check("8 pairs of mixed.jsonl" in done.stdout and "1 left out, longer than 128 tokens: mixed.jsonl line 10"
          in done.stdout, "a pair of which one side is too long is left out, both sides")
    done = run(["sft", "--data-path", "pairs.jsonl", "--load", "tiny", "--save", "plain", "--device", "cpu",
                "--train-iters", "1", "--dpo-beta", "0.3", "--sample-answers", "0"])
    check("dpo-beta" in done.stderr and "of objective dpo alone" in done.stderr, "options of dpo without it")


if __name__ == "__main__":
    run_tests(test_preferring, test_losses_of_transformers, test_low_rank_updates, test_ranks, test_resume,
              test_mistakes)
