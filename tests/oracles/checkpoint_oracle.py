#!/usr/bin/env python3
"""Loads a model directory that Moetron wrote with transformers, as a user would.

    checkpoint_oracle.py DIR [--logits FILE] [--tolerance X] [--prompt TEXT]

Every weight must load: none missing, none unknown, none of another shape. FILE is a safetensors file with
input_ids (int64 [batch, time]) and the fp32 logits that Moetron computed for them; transformers must agree
within the tolerance (max |difference| over max |logit|). --prompt continues a text, which needs a tokenizer
in DIR. Prints one line that begins with PASS or FAIL, and exits with 1 on FAIL.
"""
import argparse
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers
from safetensors.torch import load_file


def fail(reason):
    print(f"FAIL {reason}")
    sys.exit(1)


def load(folder):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True)
    # transformers has no multi-token-prediction layer; its weights are stored after the last layer's.
    beyond = f"model.layers.{model.config.num_hidden_layers}."
    for kind, words in (("missing_keys", "are missing"), ("unexpected_keys", "are unknown to transformers"),
                        ("mismatched_keys", "have another shape")):
        names = sorted(n for n in map(str, info[kind]) if not n.startswith(beyond))
        if names:
            fail(f"{folder}: {len(names)} weights {words}, first {names[0]}")
    return model.eval()


def check_logits(model, path, tolerance):
    given = load_file(path)
    with torch.no_grad():
        logits = model(input_ids=given["input_ids"], use_cache=False).logits
    if logits.shape != given["logits"].shape:
        fail(f"logits of shape {list(given['logits'].shape)}, transformers has {list(logits.shape)}")
    deviation = ((logits - given["logits"].float()).abs().max() / logits.abs().max()).item()
    if not deviation <= tolerance:
        fail(f"logits differ by {deviation:.1e} (at most {tolerance:.0e})")
    return f", logits agree to {deviation:.1e}"


def continue_text(model, folder, prompt):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    if tokenizer.decode(ids[0]) != prompt:
        fail(f"{folder}: the tokenizer does not give back {prompt!r}")
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=32, do_sample=False,
                            pad_token_id=tokenizer.eos_token_id or 0)
    return f", continues {prompt!r} with {tokenizer.decode(output[0, ids.shape[1]:])!r}"


def main():
    parser = argparse.ArgumentParser(description="Loads a model directory with transformers and checks it.")
    parser.add_argument("folder")
    parser.add_argument("--logits", help="safetensors file with input_ids and logits")
    parser.add_argument("--tolerance", type=float, default=1e-5)
    parser.add_argument("--prompt", help="text to continue")
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    model = load(args.folder)
    found = ""
    if args.logits:
        found += check_logits(model, args.logits, args.tolerance)
    if args.prompt:
        found += continue_text(model, args.folder, args.prompt)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"PASS {type(model).__name__} of transformers {transformers.__version__} loads {args.folder}: "
          f"{parameters:,} parameters{found}")


if __name__ == "__main__":
    main()
