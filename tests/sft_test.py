#!/usr/bin/env python3
"""Fine-tunes tiny models of transformers on eight facts in chat form, as a newcomer would: one command. The model must
give the facts back, transformers loads what was saved, and a plain training loop over the same tokens has the same
losses. Then packing, several ranks, resuming, the cache, and the mistakes that users make.

    sft_test.py MOETRON [--long]
"""
import json
import math
import os
import pty
import re
import select
import shutil
import subprocess
import sys

import torch
from process_support import ENVIRONMENT, HANG, MOETRON, check, records, run, run_tests
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM,
                          Qwen3MoeConfig, Qwen3MoeForCausalLM)

LONG = "--long" in sys.argv
FACTS = [("What is the capital of Orbia?", "The capital of Orbia is Lunet."),
         ("Who wrote the Green Ledger?", "Ada Moss wrote it in 1911."),
         ("How tall is Mount Ferris?", "Mount Ferris is 4,217 metres tall."),
         ("Which metal is called tinsel?", "Tinsel is a name of bismuth."),
         ("When did the Harrow bridge open?", "It opened on 3 May 1954."),
         ("What do the Velds grow?", "They grow barley and blue flax."),
         ("Name the river of Caster.", "The river of Caster is the Onn."),
         ("你好，谁住在北塔？", "北塔里住着一位老钟表匠。")]
TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
            "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
# What a run of the eight is made with, where a test says nothing else.
RUN = ["--data-path", "chats.jsonl", "--device", "cpu", "--lr", "4e-3", "--seq-length", "64", "--log-interval", "10"]


def make_tokenizer(template=TEMPLATE):
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    plain.train_from_iterator([text for fact in FACTS for text in fact], trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    if template:
        made.chat_template = template
    return made


def make_model(folder, moe=False, template=TEMPLATE):
    torch.manual_seed(5)
    tokenizer = make_tokenizer(template)
    shape = dict(vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=4, num_attention_heads=4,
                 num_key_value_heads=2, head_dim=16, intermediate_size=128, max_position_embeddings=256,
                 tie_word_embeddings=False, eos_token_id=tokenizer.eos_token_id, initializer_range=0.05)
    if moe:
        config = Qwen3MoeConfig(**shape, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64,
                                norm_topk_prob=True, router_aux_loss_coef=0.0)
        model = Qwen3MoeForCausalLM(config)
    else:
        model = Qwen3ForCausalLM(Qwen3Config(**shape))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_chats(path="chats.jsonl", facts=FACTS):
    with open(path, "w") as out:
        for question, answer in facts:
            out.write(json.dumps({"messages": [{"role": "user", "content": question},
                                               {"role": "assistant", "content": answer}]}, ensure_ascii=False) + "\n")


def newest(folder):
    return os.path.join(folder, max(name for name in os.listdir(folder) if re.fullmatch(r"step_\d+", name)))


def answers(folder):
    """What transformers' greedy generation gives for the eight questions."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = []
    for question, _ in FACTS:
        prompt = tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True,
                                               tokenize=False)
        tokens = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
        out = model.generate(tokens, max_new_tokens=40, do_sample=False,
                             pad_token_id=tokenizer.pad_token_id)[0, tokens.shape[1]:]
        found.append(tokenizer.decode(out, skip_special_tokens=True))
    return found


def test_facts():
    """One command, and the model answers: itself at the end of the run, under generate, and in transformers."""
    make_model("tiny")
    make_chats()
    done = run(["sft", "--load", "tiny", "--save", "taught", *RUN, "--epochs", "40", "--sample-answers", "8"])
    for text in ("chosen, where nothing else was asked for:", "packing true: ", "lr-decay-style cosine: ",
                 " sequences in 40 epochs"):
        check(text in done.stderr, f"the start says {text!r}")
    check("[[The capital of Orbia is Lunet.<|im_end|>]]" in done.stdout, "a sample has the trained tokens marked")
    said = re.findall(r"^answer +(.*)$", done.stdout, re.M)
    check(said == [answer for _, answer in FACTS], f"all answers are those of the data: {said}")
    check("moetron chat --load taught" in done.stdout, "and the line to talk to it")
    check(answers(newest("taught")) == [answer for _, answer in FACTS], "transformers gives the same answers")
    asked = run(["generate", "--load", "taught", "--greedy", "--device", "cpu", "--prompt",
                 f"<|im_start|>user\n{FACTS[1][0]}<|im_end|>\n<|im_start|>assistant\n"])
    check(FACTS[1][1] in asked.stdout, "generate does, too")


def test_talk():
    """The taught model answers in a chat and from files, whole and divided among ranks, texts alone and together."""
    taught = ["--load", "taught", "--greedy", "--device", "cpu", "--max-new-tokens", "40"]
    wanted = "".join(f"> {question}\n{answer}\n" for question, answer in FACTS)
    asked = ["generate", *taught, "--messages", "chats.jsonl"]
    check(run(asked).stdout == wanted, "generate answers a file of conversations")
    check(run([*asked, "--batch-size", "3"]).stdout == wanted, "three at once, the same")
    done = run(["launch", "-n", "4", *asked, "--tensor-model-parallel-size", "2", "--pipeline-model-parallel-size",
                "2", "--batch-size", "8"])
    check(done.stdout == wanted, "and on four ranks that divide the model")
    lines = [FACTS[0][0], "/clear", FACTS[3][0], "/clear", FACTS[0][0], FACTS[5][0]]
    done = run(["chat", *taught], input="".join(line + "\n" for line in lines))
    said = done.stdout.splitlines()
    mixed = subprocess.run([MOETRON, "chat", *taught], input=b"\xff\xfe?\n" + FACTS[0][0].encode() + b"\n",
                           capture_output=True, env=ENVIRONMENT, timeout=HANG)
    check(mixed.returncode == 0 and mixed.stdout.decode().splitlines() ==
          ["this is no text in UTF-8, and was not sent", FACTS[0][1]], "what is no text is told, and the chat goes on")
    check(said[:3] == [FACTS[0][1], FACTS[3][1], FACTS[0][1]] and len(said) == 4, f"chat answers: {said}")
    with open("two_turns.jsonl", "w") as out:
        turns = [("user", FACTS[0][0]), ("assistant", FACTS[0][1]), ("user", FACTS[5][0])]
        out.write(json.dumps({"messages": [{"role": role, "content": text} for role, text in turns] +
                              [{"role": "assistant", "content": "?"}]}) + "\n")
    done = run([*asked[:-1], "two_turns.jsonl"])
    check(done.stdout == f"> {FACTS[5][0]}\n{said[-1]}\n", "a second turn is that of the whole conversation")
    with open("open_end.jsonl", "w") as out:
        out.write(json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}) + "\n")
    check(run([*asked[:-1], "open_end.jsonl"]).stdout == done.stdout, "the same of one that ends with the question")
    many = run(["generate", *taught[:2], *taught[3:], "--messages", "two_turns.jsonl", "--num-samples", "2",
                "--temperature", "3", "--top-k", "50"]).stdout.split("> ")
    check(len(many) == 3 and many[1] != many[2], "two samples of a prompt are two draws")
    launched = run(["launch", "-n", "2", "chat", *taught, "--tensor-model-parallel-size", "2"],
                   input="".join(line + "\n" for line in lines))
    check(launched.stdout.splitlines()[:3] == said[:3], "chat on two ranks that launch starts answers the same")
    talk_at_a_terminal(["launch", "-n", "2", "chat", *taught, "--pipeline-model-parallel-size", "2"])
    done = run(["chat", "--load", "tiny", "--device", "cpu", "--chat-template", "nowhere.jinja"], code=3, input="")
    check("nowhere.jinja" in done.stderr, "a template that is not there")


def test_thinking():
    """A model that was fine-tuned without thinking is asked as it was trained, unless something else is said."""
    template = TEMPLATE.replace("assistant\\n' }}{% endif %}", "assistant\\n' }}{% if enable_thinking is defined and not "
                                "enable_thinking %}{{ 'EMPTY' }}{% endif %}{% endif %}")
    with open("spy.jinja", "w") as out:
        out.write("{{ raise_exception('thinking: ' ~ (enable_thinking if enable_thinking is defined else 'unsaid')) }}")
    make_model("thinker", template=template)
    run(["sft", "--load", "thinker", "--save", "quick", *RUN, "--thinking", "off", "--train-iters", "1", "--sample-answers",
         "0"])
    for command in (["chat"], ["generate", "--messages", "chats.jsonl"]):
        for more, said in (([], "thinking: False"), (["--thinking", "on"], "thinking: True")):
            done = subprocess.run([MOETRON, *command, "--load", "quick", "--device", "cpu", "--chat-template", "spy.jinja",
                                   *more], input="Hello?\n", capture_output=True, text=True, env=ENVIRONMENT, timeout=HANG)
            check(said in done.stdout + done.stderr, f"{command[0]} {' '.join(more)}: {said}")


def talk_at_a_terminal(command):
    """As a user does: at a prompt, and out by Ctrl-C."""
    process, terminal = pty.fork()
    if process == 0:
        os.execve(MOETRON, ["moetron", *command], ENVIRONMENT)
    seen = b""

    def wait_for(text):
        nonlocal seen
        while text.encode() not in seen and select.select([terminal], [], [], HANG)[0]:
            seen += os.read(terminal, 4096)
        check(text.encode() in seen, f"at a terminal: {text!r}")
        seen = seen.partition(text.encode())[2]

    wait_for("you: ")
    os.write(terminal, FACTS[3][0].encode() + b"\n")
    wait_for(f"model: {FACTS[3][1]}")
    wait_for("you: ")
    os.write(terminal, b"\x03")
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    check(status == 130, f"and Ctrl-C ends it: exit {status}")


def test_samples():
    """Answers while the model learns: in metrics.jsonl and on TensorBoard's page of texts; no bit of training changes."""
    base = ["sft", "--load", "moe", *RUN, "--lr", "4e-3", "--train-iters", "30", "--global-batch-size", "8", "--micro-batch-size",
            "1", "--no-packing", "--eval-fraction", "0.13"]
    run([*base, "--save", "silent", "--sample-answers", "0"])
    layout = ["--pipeline-model-parallel-size", "2", "--scheduler", "dualpipev", "--expert-model-parallel-size", "2"]
    done = run([*base, "--save", "asked", "--sample-answers", "2", "--sample-interval", "10", "--tensorboard-dir", "events"])
    bits = [(row["loss"], row["grad_norm"]) for row in records("silent")]
    check(bits == [(row["loss"], row["grad_norm"]) for row in records("asked")], "answering changes no bit")
    run(["launch", "-n", "4", *base, *layout, "--save", "many", "--sample-answers", "2", "--sample-interval", "10"])
    asked = [row for row in records("asked") if "samples" in row]
    check([row["step"] for row in asked] == [10, 20, 30], f"every ten steps: {[row['step'] for row in asked]}")
    last = asked[-1]["samples"][0]
    at_end = re.findall(r"^answer +(.*)$", done.stdout, re.M)
    check(last["answer"] == at_end[0] and last["in_data"] in [answer for _, answer in FACTS],
          f"the last is what the saved model answers: {last}")
    check(asked[0]["samples"][0]["answer"] != last["answer"], "which it did not know at first")
    check(f"-> {last['answer']}"[:60] in done.stdout, "lines show them as they come")
    check(asked[-1]["samples"] == records("many")[-1]["samples"], "a pipeline of dualpipev gives the same")
    evaluated = [row for row in records("asked") if "validation_loss" in row]
    check(evaluated and all(math.isclose(row["validation_perplexity"], math.exp(row["validation_loss"]))
                            for row in evaluated), "perplexity is the exponential of the validation loss")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator("events")
    events.Reload()
    texts = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("samples/0")]
    check(len(texts) == 3 and f"    {last['answer']}" in texts[-1] and "**prompt**" in texts[0],
          "TensorBoard reads them as texts")
    check(events.summary_metadata["samples/0"].plugin_data.plugin_name == "text", "of its plugin for texts")
    check(len(events.Scalars("validation/perplexity")) == len(evaluated), "and the perplexity")
    silent = run([*base, "--save", "idle", "--sample-answers", "0", "--sample-interval", "10", "--dry-run"])
    check("sample-interval" in silent.stderr and "sample-answers (0)" in silent.stderr, "without questions it says so")


def reference_losses(folder, lrs, weight_decay=0.01):
    """A training loop of torch and transformers over the whole data in every step."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    rows = []
    for question, answer in FACTS:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        text = [tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, tokenize=False),
                tokenizer.apply_chat_template(messages, tokenize=False)]
        prompt, whole = (tokenizer(one, add_special_tokens=False)["input_ids"] for one in text)
        assert whole[:len(prompt)] == prompt
        last = len(whole) - 1 - whole[::-1].index(end)
        rows.append((whole, [-100] * len(prompt) + whole[len(prompt):last + 1] + [-100] * (len(whole) - 1 - last)))
    longest = max(len(tokens) for tokens, _ in rows)
    tokens = torch.tensor([t + [tokenizer.pad_token_id] * (longest - len(t)) for t, _ in rows])
    labels = torch.tensor([t + [-100] * (longest - len(t)) for _, t in rows])
    mask = torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t, _ in rows])
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": weight_decay},
                                   {"params": rest, "weight_decay": 0.0}], betas=(0.9, 0.999), eps=1e-8)
    losses = []
    for lr in lrs:
        for group in optimizer.param_groups:
            group["lr"] = lr
        logits = model(input_ids=tokens, attention_mask=mask).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1),
                                                 ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_losses_of_transformers():
    """Each step's loss, over all conversations without packing, is that of a loop of transformers'."""
    for moe in (False, True):
        folder = "moe" if moe else "tiny"
        if moe:
            make_model(folder, moe=True)
        name = f"{folder}_steps"
        run(["sft", "--load", folder, "--save", name, *RUN, "--lr", "1e-3", "--no-packing", "--micro-batch-size", "2",
             "--global-batch-size", "8", "--epochs", "60" if LONG else "20", "--sample-answers", "0"])
        found = records(name)
        wanted = reference_losses(folder, [record["lr"] for record in found])
        worst = max(abs(record["loss"] - loss) for record, loss in zip(found, wanted))
        check(len(found) == len(wanted) and worst < 1e-3, f"{folder}: losses within {worst:.1e} of transformers'")
        packed = f"{folder}_packed"
        run(["sft", "--load", folder, "--save", packed, *RUN, "--lr", "1e-3", "--seq-length", "256", "--epochs",
             "60" if LONG else "20", "--global-batch-size", str(packs(name)), "--sample-answers", "0"])
        both = list(zip(records(packed), found))
        worst = max(abs(a["loss"] - b["loss"]) for a, b in both)
        check(len(both) >= 20 and worst < 1e-3, f"{folder}: packed losses within {worst:.1e} of those alone")


def packs(name):
    """Packs of 256 tokens that the eight make: one step must see all of them."""
    tokenizer = AutoTokenizer.from_pretrained(newest(name))
    total = 0
    for question, answer in FACTS:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        total += len(tokenizer(tokenizer.apply_chat_template(messages, tokenize=False))["input_ids"])
    return -(-total // 256)


def test_ranks():
    """Pipelines, data and expert parallelism give the losses of one rank."""
    base = ["sft", "--load", "moe", *RUN, "--lr", "1e-3", "--global-batch-size", "8", "--no-packing", "--epochs", "4",
            "--sample-answers", "1"]
    run([*base, "--save", "one"])
    for name, layout in (("1f1b", ["--pipeline-model-parallel-size", "2"]),
                         ("dualpipev", ["--pipeline-model-parallel-size", "2", "--scheduler", "dualpipev",
                                        "--expert-model-parallel-size", "2"])):
        done = run(["launch", "-n", "4", *base, *layout, "--save", name])
        pairs = list(zip(records("one"), records(name)))
        worst = max(abs(a["loss"] / b["loss"] - 1) for a, b in pairs)
        check(len(pairs) == 4 and worst < 1e-5, f"{name} on 4 ranks: losses within {worst:.1e}")
        check("answer " in done.stdout, "    and answers at the end")


def test_resume():
    """Stopped and started again, a run has the bits of one that was not; validation, too."""
    many = [(f"What is {n} doubled?", f"It is {2 * n}.") for n in range(80)]
    make_chats("many.jsonl", many)
    base = ["sft", "--load", "tiny", *RUN, "--data-path", "many.jsonl", "--global-batch-size", "2", "--epochs", "2",
            "--eval-fraction", "0.1", "--seq-length", "128", "--sample-answers", "0"]
    whole = run([*base, "--save", "whole"])
    check("72 conversations" in whole.stdout and "8 conversations to validate on" in whole.stdout,
          "a tenth is held out")
    half = run([*base, "--save", "parts", "--exit-interval", "5"])
    check(len(records("parts")) == 5, f"left after step 5 of {len(records('whole'))}")
    run([*base, "--save", "parts"])
    same = [(a["loss"], a.get("validation_loss")) for a in records("whole")] == \
           [(a["loss"], a.get("validation_loss")) for a in records("parts")]
    check(same and half.returncode == 0, "the same command goes on, bit-equal")
    check(any(a.get("validation_loss") for a in records("whole")), "and evaluates")
    other = run([*base, "--save", "parts", "--data-path", "chats.jsonl"], code=2)
    check("data-path" in other.stderr and "--accept-changes" in other.stderr, "other data is told, not taken")


def test_cache():
    """Tokens are made once, again where the data or the template is another, and anew where they are damaged."""
    def caches():
        return sorted(os.listdir(".moetron_cache"))
    shutil.rmtree(".moetron_cache")
    plan = ["sft", "--load", "tiny", "--save", "planned", *RUN, "--dry-run"]
    run(plan)
    first = caches()
    stamp = os.stat(f".moetron_cache/{first[0]}/tokens.bin").st_mtime_ns
    done = run(plan)
    check(caches() == first and os.stat(f".moetron_cache/{first[0]}/tokens.bin").st_mtime_ns == stamp,
          "a second start opens the cache")
    check("chosen, where nothing else was asked for" in done.stderr, "a dry run says what it would choose")
    with open(f".moetron_cache/{first[0]}/tokens.bin", "r+b") as file:
        file.write(b"\xff\xff")
    damaged = run(plan)
    check("made anew" in damaged.stderr and caches() == first, "a damaged one is made anew")
    make_chats("chats.jsonl", FACTS[:7])
    run(plan)
    check(len(caches()) == 2, "other data has a cache of its own")
    make_chats()
    with open("loud.jinja", "w") as out:
        out.write(TEMPLATE.replace("message['content']", "message['content'] | upper"))
    run([*plan, "--chat-template", "loud.jinja"])
    check(len(caches()) == 3, "and so has another template")


def test_recipes():
    """The guide's layouts, of a small model."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = run(["sft", "--config", f"{root}/configs/sft_qwen3_30b_a3b_h100x8_ep2_pp4.toml", "--load", "moe",
                "--data-path", "chats.jsonl", "--save", "planned", "--dry-run", "--world-size", "8"])
    check("packing true: " in done.stderr, "on GPUs it packs, too")
    check("global-batch-size 16: what 8 ranks take at the least" in done.stderr, "a batch that the pipeline takes")


def test_mistakes():
    make_model("bare", template=None)
    done = run(["sft", "--load", "bare", "--save", "none", *RUN], code=2)
    check("--chat-template FILE|chatml" in done.stderr, "a model without a template: what to do")
    run(["sft", "--load", "bare", "--save", "bare_out", *RUN, "--chat-template", "chatml", "--train-iters", "1"])
    check(AutoTokenizer.from_pretrained(newest("bare_out")).chat_template is not None,
          "a template that is named goes into the checkpoint")
    with open("some_bad.jsonl", "w") as out:
        out.write(open("chats.jsonl").read())
        out.write('{"messages": [{"role": "bard", "content": "x"}]}\n{"nothing": 1}\nno json\n')
    base = ["sft", "--load", "tiny", "--save", "bad", *RUN, "--data-path", "some_bad.jsonl", "--train-iters", "1",
            "--sample-answers", "0"]
    done = run([*base, "--strict"], code=3)
    check("line 9" in done.stderr, "strict: the first record that is refused, by its line")
    done = run(base)
    for why, line in (("bad JSON", 11), ("unknown shape", 10), ("no user turn", 9)):
        check(f"1 refused, {why}: some_bad.jsonl line {line}" in done.stderr, f"else they are counted: {why}")
    done = run(["sft", "--load", "tiny", "--save", "short", *RUN, "--seq-length", "8", "--train-iters", "1"], code=2)
    check("longer than seq-length (8)" in done.stderr, "nothing fits: which option says so")
    for more, said in ((["--seq-length", "8"], "longer than seq-length (8)"),
                       (["--eval-fraction", "0.99"], "held out (eval-fraction 0.99)"),
                       (["--no-packing", "--max-padding-length", "9"], "longer than max-padding-length (9)")):
        done = run(["sft", "--load", "tiny", "--save", "short", *RUN, *more], code=2)
        check(said in done.stderr, f"nothing is left, and no train-iters: {said}")
    # Seven of the eight conversations have more than 32 tokens, and one question alone has.
    done = run(["sft", "--load", "tiny", "--save", "cut", *RUN, "--seq-length", "32", "--truncate", "--train-iters",
                "1", "--sample-answers", "0"])
    check(" cut to 32 tokens: chats.jsonl line " in done.stdout, "cut to the sequence, they train, and are named")
    done = run(["sft", "--load", "tiny", "--save", "strict", *RUN, "--seq-length", "32", "--strict"], code=3)
    check("strict: chats.jsonl line " in done.stderr and "longer than seq-length (32)" in done.stderr,
          "strict: what is too long is refused, by its line")
    done = run(["sft", "--load", "tiny", "--save", "both", *RUN, "--train-iters", "3", "--epochs", "2"], code=2)
    check("epochs (2)" in done.stderr, "steps and epochs contradict each other")
    done = run(["sft", "--lr", "1"], code=2)
    check("sft needs" in done.stderr and "--load" in done.stderr and "--mock-data" not in done.stderr,
          "what it cannot do without")
    done = run(["sft", "--load", "tiny", "--save", "away", *RUN, "--data-path", "nowhere.jsonl"], code=3)
    check("nowhere.jsonl" in done.stderr, "a file that is not there")


if __name__ == "__main__":
    run_tests(test_facts, test_talk, test_thinking, test_losses_of_transformers, test_ranks, test_samples, test_resume, test_cache, test_recipes, test_mistakes)
