#!/usr/bin/env python3
"""Lets Megatron-core save in its sharded format (dist_checkpointing, torch_dist), and reads that with
`moetron convert --from torch-dist`.

    megatron_dist_oracle.py MOETRON [--only MODEL | --all]

A tiny model that transformers wrote goes into Megatron's model through files that Moetron wrote, is saved by
Megatron on one process or several (tensor, expert and pipeline parallelism, virtual stages), with the layers of one
kind as one tensor, each by itself, or every expert by itself with gate and up apart; and must become the same Hugging
Face directory again, bit for bit. With a bit of it flipped, every command refuses it or has the same bits. The same of the experts of Megatron's former GroupedMLP, experts.weight1 and
weight2: its own loader fills them from the sharded files, and what it saves in files of ranks is read.
"""
import argparse
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")
import torch
import transformers
from safetensors import safe_open
from torch.distributed.checkpoint import FileSystemReader
from transformers import AutoModelForCausalLM

import make_models
import megatron_oracle
from megatron_oracle import MODELS, Layout, check_same_bits, fail, megatron_chunk, run, start_megatron

STACKED, NUMBERED, APART = None, {"non_homogeneous_layers": True}, {"singleton_local_shards": True}
# A tensor that only such files have.
PROOFS = [(STACKED, "decoder.layers.self_attention.linear_proj.weight"),
          (NUMBERED, "decoder.layers.0.self_attention.linear_proj.weight"),
          (APART, "decoder.layers.0.mlp.linear_fc1.weight_w"), (APART, "decoder.layers.1.mlp.experts.experts.0.linear_fc1.weight_w")]
CASES = [
    ("qwen2", Layout(), STACKED),
    ("llama", Layout(tp=2), STACKED),
    ("llama", Layout(tp=2, pp=2, chunks=2), STACKED),
    ("llama", Layout(), NUMBERED),
    ("qwen3_moe", Layout(tp=2, ep=2), STACKED),
    ("qwen3_moe", Layout(pp=2), APART),
    ("deepseek_v3", Layout(tp=2, ep=2, pp=2), NUMBERED),
    ("deepseek_v3_mtp", Layout(), APART),
]
# GroupedMLP has no way to divide the width of experts here: experts are divided among ranks alone.
LEGACY = [("qwen3_moe", Layout(), STACKED), ("deepseek_v3", Layout(ep=2), NUMBERED)]
# Of these, which say most; --all takes the others, too.
QUICK = (("qwen3_moe", STACKED), ("qwen3_moe", APART), ("deepseek_v3", NUMBERED), ("qwen2", STACKED))


def all_alike(args):
    """One number for the layers that have experts, as Megatron's users give it: only then are layers one tensor."""
    if getattr(args, "moe_layer_freq", None) and len(set(args.moe_layer_freq)) == 1:
        args.moe_layer_freq = 1


def rank_name(layout):
    from megatron.core import parallel_state
    name = f"mp_rank_{parallel_state.get_tensor_model_parallel_rank():02d}"
    if layout.pp > 1:
        name += f"_{parallel_state.get_pipeline_model_parallel_rank():03d}"
    if layout.ep > 1:
        name += f"_{parallel_state.get_expert_model_parallel_rank():03d}"
    return name


def on_rank(rank, layout, port, written, saved, metadata, legacy):
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing.mapping import ShardedTensor
    start_megatron(rank, layout, port)
    torch.cuda.synchronize = lambda *_: None
    file = torch.load(os.path.join(written, "release", rank_name(layout), "model_optim_rng.pt"), weights_only=False)
    args = file["args"]
    all_alike(args)
    keys = ["model"] if layout.chunks == 1 else [f"model{chunk}" for chunk in range(layout.chunks)]
    state = {"args": args, "checkpoint_version": 3.0, "iteration": 12}
    for chunk, key in enumerate(keys):
        model = megatron_chunk(args, layout, chunk)
        model.load_state_dict(file[key], strict=True)
        state[key] = model.sharded_state_dict(metadata=copy.copy(metadata))
    if rank == 0:
        state["optimizer"] = {"x": ShardedTensor.from_rank_offsets("optimizer.state.exp_avg.x", torch.ones(3))}
    iteration = os.path.join(saved, "iter_0000012")
    os.makedirs(iteration, exist_ok=True)
    torch.distributed.barrier()
    dist_checkpointing.save(state, iteration, ("torch_dist", 1), validate_access_integrity=False)
    if legacy:
        save_legacy(layout, args, iteration, legacy)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def save_legacy(layout, args, iteration, legacy):
    """Megatron's GroupedMLP, filled by Megatron, in files of ranks."""
    from megatron.core import dist_checkpointing
    from megatron.core.transformer.moe import grouped_gemm_util
    grouped_gemm_util.assert_grouped_gemm_is_available = lambda: None
    args.moe_grouped_gemm = args.moe_use_legacy_grouped_gemm = True
    model = megatron_chunk(args, layout, 0)
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))
    loaded = dist_checkpointing.load({"model": model.sharded_state_dict()}, iteration)
    model.load_state_dict(loaded["model"], strict=True)
    state = model.state_dict_for_save_checkpoint()
    if not any(name.endswith("experts.weight1") for name in state):
        raise RuntimeError("Megatron made no experts.weight1")
    place = os.path.join(legacy, "iter_0000012", rank_name(layout))
    os.makedirs(place, exist_ok=True)
    torch.save({"args": args, "checkpoint_version": 3.0, "iteration": 12, "model": state},
               os.path.join(place, "model_optim_rng.pt"))


def note_latest(folder):
    with open(os.path.join(folder, "latest_checkpointed_iteration.txt"), "w") as latest:
        latest.write("12")


def check_told(original, told, ids):
    """What Megatron's own arguments tell of the model is the model to transformers."""
    with torch.no_grad():
        logits = [AutoModelForCausalLM.from_pretrained(folder, dtype="auto")(input_ids=ids, use_cache=False).logits
                  for folder in (original, told)]
    if not torch.equal(*logits):
        fail(f"{told}: the config.json from Megatron's arguments is another model's")


def convert(moetron, load, save, kind, original=None):
    model_files = ["--model-files", original] if original else []
    run(moetron, "convert", "--load", load, "--save", save, "--from", kind, "--to", "hf", "--verify", *model_files)


def train(load, save):
    """A command of one step that begins with these weights."""
    return ["pretrain", "--mock-data", "--load", load, "--save", save, "--seq-length", "16", "--micro-batch-size", "1",
            "--global-batch-size", "1", "--train-iters", "1", "--lr", "1e-3", "--eval-iters", "0", "--fp32"]


def loss_of(moetron, load, save):
    run(moetron, *train(load, save))
    with open(os.path.join(save, "metrics.jsonl")) as lines:
        return json.loads(lines.readline())["loss"]


def flip(path, place, bit):
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


def check_damage(moetron, load, weights):
    """A flipped bit of a weight is told by every command that loads; of one anywhere, the result is right or none."""
    refused = os.path.join(os.path.dirname(load), "refused")
    into_hf = ["convert", "--load", load, "--save", refused, "--to", "hf"]
    files = sorted(os.path.join(folder, name) for folder, _, names in os.walk(load) for name in names
                   if name.endswith((".distcp", ".metadata", ".pt")))
    with safe_open(weights, "pt") as tensors:
        norm = tensors.get_tensor("model.norm.weight").contiguous().view(torch.uint8).numpy().tobytes()
    file, place = next((file, open(file, "rb").read().find(norm)) for file in files if norm in open(file, "rb").read())
    told = f"{file} is damaged in decoder.final_layernorm.weight: CRC-32 "
    flip(file, place, 0)
    for command in (into_hf, train(load, refused + "_run"), ["generate", "--load", load, "--prompt", "a", "--tokenizer", "bytes"]):
        done = subprocess.run([moetron, *command], capture_output=True, text=True)
        if done.returncode != 3 or told not in done.stderr:
            fail(f"{command[0]} ends with {done.returncode} where a weight is damaged: {done.stderr[-300:]}")
    done = subprocess.run([moetron, *into_hf, "--no-verify"], capture_output=True, text=True)
    if done.returncode != 0 or "no-verify: the blocks of" not in done.stdout + done.stderr:
        fail(f"--no-verify ends with {done.returncode}: {done.stderr[-300:]}")
    flip(file, place, 0)
    rng = random.Random(1)
    for _ in range(16):
        file = rng.choice(files)
        place, bit = rng.randrange(os.path.getsize(file)), rng.randrange(8)
        shutil.rmtree(refused, ignore_errors=True)
        flip(file, place, bit)
        done = subprocess.run([moetron, *into_hf], capture_output=True, text=True)
        flip(file, place, bit)
        if done.returncode == 0:
            check_same_bits(weights, os.path.join(refused, "model.safetensors"))
        elif done.returncode != 3 or load not in done.stderr:
            fail(f"bit {bit} of byte {place} of {file} flipped: exit code {done.returncode}, {done.stderr[-300:]}")
    shutil.rmtree(refused, ignore_errors=True)


def check(moetron, name, layout, metadata, legacy, port):
    with tempfile.TemporaryDirectory() as folder:
        place = lambda kind: os.path.join(folder, kind)
        original, ids = place("hf"), torch.arange(24).reshape(2, 12)
        model = make_models.build(name, 0)
        model.save_pretrained(original)
        if getattr(model.config, "num_nextn_predict_layers", 0):
            megatron_oracle.add_mtp_layer(original, model.config)
        run(moetron, "convert", "--load", original, "--save", place("mg"), "--to", "megatron", "--transformer-impl",
            "local", "--make-vocab-size-divisible-by", "24", *layout.options())
        os.makedirs(place("saved"))
        torch.multiprocessing.spawn(
            on_rank, (layout, port, place("mg"), place("saved"), metadata, place("legacy") if legacy else None),
            nprocs=layout.world)
        note_latest(place("saved"))
        saved = FileSystemReader(os.path.join(place("saved"), "iter_0000012")).read_metadata().state_dict_metadata
        if not any(kind == metadata and name in saved for kind, name in PROOFS):
            fail(f"Megatron saved {name} otherwise than {metadata or 'stacked'}")
        weights = os.path.join(original, "model.safetensors")
        convert(moetron, place("saved"), place("back"), "torch-dist", original)
        check_same_bits(weights, os.path.join(place("back"), "model.safetensors"))
        convert(moetron, os.path.join(place("saved"), "iter_0000012"), place("told"), "torch-dist")
        check_same_bits(weights, os.path.join(place("told"), "model.safetensors"))
        check_told(original, place("told"), ids)
        losses = [loss_of(moetron, load, place(save))
                  for load, save in ((original, "run"), (place("saved"), "run_from_megatron"))]
        if losses[0] != losses[1]:
            fail(f"training from Megatron's files begins with another loss: {losses}")
        if name == "qwen3_moe" and metadata is STACKED and not legacy:
            check_damage(moetron, place("saved"), weights)
            check_damage(moetron, place("mg"), weights)
        if legacy:
            note_latest(place("legacy"))
            convert(moetron, place("legacy"), place("legacy_hf"), "megatron", original)
            check_same_bits(weights, os.path.join(place("legacy_hf"), "model.safetensors"))
    print(f"PASS {name} {vars(layout)} {metadata or 'stacked'}{' legacy' if legacy else ''}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("moetron")
    parser.add_argument("--only", help="this model alone")
    parser.add_argument("--all", action="store_true", help="all cases, in three minutes")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    make_models.MODELS.update(copy.deepcopy(MODELS))
    port = 20000 + (os.getpid() + 10000) % 20000
    cases = [(*case, False) for case in CASES] + [(*case, True) for case in LEGACY]
    for name, layout, metadata, legacy in cases:
        if arguments.only == name if arguments.only else arguments.all or (name, metadata) in QUICK:
            port += 1
            check(arguments.moetron, name, layout, metadata, legacy, port)


if __name__ == "__main__":
    main()
