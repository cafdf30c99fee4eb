#!/usr/bin/env python3
"""Fine-tuning by `moetron sft` beside TRL's SFTTrainer (pip install trl): the same random model, conversations, batches
and AdamW, by turns in one run. Prints the losses of each step where all conversations are in every step (--agree), else
both speeds in tokens a second, padding not counted.

  sft_speed.py --agree                         fp32, no packing, a tiny model: losses of each step
  sft_speed.py --shape Qwen3-0.6B              this machine's CPU, fp32, no packing
  sft_speed.py --shape Qwen3-0.6B --device cuda --packing --seq-length 8192

--shape: config.json or a folder that has one; --layers and --vocab make it smaller. --tokenizer: a folder with
tokenizer.json (else a tokenizer of bytes is made). TRL runs in this Python, moetron as --moetron says."""
import argparse
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

# Nothing behind the answer's end, for TRL trains all that the template writes there.
TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
LEARNING_RATE = 1e-4
WARM_STEPS = 3  # not timed


def make_tokenizer(folder):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))


def make_model(args, folder):
    """A random model as a Hugging Face folder, with a tokenizer and the template above."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    folder.mkdir(parents=True)
    if args.tokenizer:
        shutil.copy(Path(args.tokenizer) / "tokenizer.json", folder)
    else:
        make_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "chat_template": TEMPLATE}))
    if args.shape:
        config = AutoConfig.from_pretrained(args.shape)
    else:
        from transformers import Qwen3Config
        config = Qwen3Config(vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                             num_attention_heads=4, num_key_value_heads=2, head_dim=16, tie_word_embeddings=False)
    if args.layers:
        config.num_hidden_layers = args.layers
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:args.layers]
    if args.vocab:
        config.vocab_size = args.vocab
    config.eos_token_id = config.bos_token_id = config.pad_token_id = None
    torch.manual_seed(1)
    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    with torch.device(args.device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(folder)


def make_conversations(args, path):
    """Questions and answers of random letters, log-normal lengths around args.mean_length letters or words."""
    draw = random.Random(7)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=4)) for _ in range(500)]
    rows = []
    for _ in range(args.conversations):
        length = draw.lognormvariate(math.log(args.mean_length) - 0.32, 0.8)
        length = int(min(max(length, 8), args.seq_length * 0.6))
        part = lambda share: "".join(draw.choices("abcdefgh ", k=int(length * share))) if not args.tokenizer \
            else " ".join(draw.choices(words, k=max(1, int(length * share / 2))))
        rows.append({"messages": [{"role": "user", "content": part(0.3)}, {"role": "assistant", "content": part(0.7)}]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def run_ours(args, work, turn):
    save = work / f"ours-{turn}"
    shutil.rmtree(save, ignore_errors=True)
    command = [args.moetron, "sft", "--load", str(work / "model"), "--data-path", str(work / "chats.jsonl"), "--save",
               str(save), "--train-iters", str(args.steps), "--seq-length", str(args.seq_length),
               "--micro-batch-size", str(args.micro_batch), "--global-batch-size", str(args.global_batch), "--lr",
               str(LEARNING_RATE), "--lr-decay-style", "constant", "--lr-warmup-fraction", "0", "--adam-beta1", "0.9",
               "--adam-beta2", "0.999", "--adam-eps", "1e-8", "--weight-decay", "0", "--clip-grad", "1", "--eval-fraction", "0",
               "--save-interval", str(args.steps + 1), "--log-interval", "1", "--device", args.device,
               "--dtype", "bf16" if args.device == "cuda" else "fp32", "--packing" if args.packing else "--no-packing",
               "--sample-answers", "0", "--no-save-optim", *args.more]
    done = subprocess.run([word for word in command if word], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"moetron sft ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    rows = [json.loads(line) for line in (save / "metrics.jsonl").read_text().splitlines()]
    if args.keep:
        Path(args.keep).mkdir(parents=True, exist_ok=True)
        shutil.copy(save / "metrics.jsonl", Path(args.keep) / f"metrics-{turn}.jsonl")
    shutil.rmtree(save)
    return {"losses": [row["loss"] for row in rows],
            "rate": statistics.median(row["tokens_per_second"] for row in rows[WARM_STEPS:]) if args.steps > WARM_STEPS else 0}


def run_trl(args, work, compiled):
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Clock(TrainerCallback):
        def __init__(self):
            self.times, self.losses, self.tokens = [], [], []

        def on_step_end(self, *_, **__):
            if args.device == "cuda":
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())

        def on_log(self, _, state, control, logs=None, **__):
            if logs and "loss" in logs:
                self.losses.append(logs["loss"])
                self.tokens.append(logs["num_tokens"])

    rows = [json.loads(line) for line in (work / "chats.jsonl").read_text().splitlines()]
    data = Dataset.from_list([{"prompt": row["messages"][:1], "completion": row["messages"][1:]} for row in rows])
    cuda = args.device == "cuda"
    model = AutoModelForCausalLM.from_pretrained(work / "model", dtype=torch.bfloat16 if cuda else torch.float32,
                                                 attn_implementation="sdpa")
    clock = Clock()
    config = SFTConfig(
        output_dir=str(work / "trl"), max_steps=args.steps, per_device_train_batch_size=args.micro_batch,
        gradient_accumulation_steps=args.global_batch // args.micro_batch, learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant", warmup_steps=0, weight_decay=0, max_grad_norm=1, optim="adamw_torch_fused", bf16=cuda,
        use_cpu=not cuda, gradient_checkpointing=False, logging_steps=1, save_strategy="no", report_to=[],
        packing=args.packing, packing_strategy="wrapped" if args.packing else "bfd", max_length=args.seq_length,
        torch_compile=compiled, disable_tqdm=True, dataloader_num_workers=0, seed=1)
    trainer = SFTTrainer(model=model, args=config, train_dataset=data, callbacks=[clock],
                         processing_class=AutoTokenizer.from_pretrained(work / "model"))
    began = time.perf_counter()
    trainer.train()
    times = [began] + clock.times
    tokens = [0] + clock.tokens
    rates = [(tokens[i] - tokens[i - 1]) / (times[i] - times[i - 1]) for i in range(1, len(clock.tokens) + 1)]
    del trainer, model
    if cuda:
        torch.cuda.empty_cache()
    return {"losses": clock.losses, "rate": statistics.median(rates[WARM_STEPS:]) if args.steps > WARM_STEPS else 0}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moetron", default="build/cpu/moetron")
    parser.add_argument("--shape", default="")
    parser.add_argument("--tokenizer", default="")
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--vocab", type=int, default=0)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--seq-length", type=int, default=512)
    parser.add_argument("--mean-length", type=int, default=600)
    parser.add_argument("--micro-batch", type=int, default=1)
    parser.add_argument("--global-batch", type=int, default=4)
    parser.add_argument("--conversations", type=int, default=2000)
    parser.add_argument("--packing", action="store_true")
    parser.add_argument("--compile", action="store_true", help="a run of TRL with torch.compile, too")
    parser.add_argument("--agree", action="store_true", help="all conversations in every step: compares losses")
    parser.add_argument("--keep", default="", help="a folder for the metrics.jsonl of each of our runs")
    parser.add_argument("--work", default="build/sft_speed")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="the rest goes to moetron sft")
    args = parser.parse_args()
    if args.agree:
        args.conversations, args.global_batch, args.mean_length = 8, 8, min(args.mean_length, 100)
        args.turns = 1
    os.environ["HF_HUB_OFFLINE"] = "1"
    work = Path(args.work)
    shutil.rmtree(work, ignore_errors=True)
    make_model(args, work / "model")
    make_conversations(args, work / "chats.jsonl")
    for turn in range(args.turns):
        ours, theirs = run_ours(args, work, turn), run_trl(args, work, compiled=False)
        if args.agree:
            for step, (a, b) in enumerate(zip(ours["losses"], theirs["losses"]), 1):
                print(f"step {step}: ours {a:.6f} trl {b:.6f} difference {a - b:+.1e}")
            print(f"largest difference {max(abs(a - b) for a, b in zip(ours['losses'], theirs['losses'])):.1e}")
        line = f"turn {turn}: ours {ours['rate']:.0f} tokens/s, trl {theirs['rate']:.0f}, ratio {ours['rate'] / max(theirs['rate'], 1):.2f}"
        if args.compile:
            rate = run_trl(args, work, compiled=True)["rate"]
            line += f"; trl with torch.compile {rate:.0f}, ratio {ours['rate'] / max(rate, 1):.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
