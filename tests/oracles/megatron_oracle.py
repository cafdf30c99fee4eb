#!/usr/bin/env python3
"""Compares `moetron convert` with Megatron-core (megatron-core of scripts/requirements.txt), on the CPU.

    megatron_oracle.py MOETRON [--all]

For tiny models of every family that Megatron-core can build:
  - what Moetron writes loads into Megatron's model with strict=True, which demands every name and shape. The
    model is made from the arguments in the file, as --use-checkpoint-args makes it, and its logits are those
    of transformers;
  - what Megatron's model saves, Moetron makes the Hugging Face directory again that transformers wrote, bit
    for bit;
  - the same on several processes, with tensor, expert and pipeline parallelism and virtual stages: every rank
    loads its file, the tensor-parallel ranks compute the logits, and what the ranks save is read.
Megatron's names with TransformerEngine need a GPU, so they are not here but in megatron_test.cpp.
"""
import argparse
import contextlib
import copy
import dataclasses
import os
import subprocess
import sys
import tempfile
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import make_models

TOLERANCE = 1e-5  # of logits, max |difference| over max |logit|
TIME = 16
# Four layers, so that two ranks have two stages each.
FOUR = dict(num_hidden_layers=4)
GQA, MLA = make_models.GQA | FOUR, make_models.MLA | FOUR
rope, yarn = make_models.rope, make_models.yarn
# Megatron's group-limited routing takes top_k / group_topk experts of a group for its score, and its Llama-3
# scaling has 8192 built in.
MODELS = {
    "deepseek_v3": make_models.DeepseekV3Config(
        **MLA, q_lora_rank=20, n_shared_experts=1, num_experts_per_tok=4, n_group=4, topk_group=2,
        norm_topk_prob=True, routed_scaling_factor=2.5, num_nextn_predict_layers=0, rope_parameters=yarn(1.0)),
    "deepseek_v3_plain": make_models.DeepseekV3Config(
        **MLA, q_lora_rank=None, n_shared_experts=1, num_experts_per_tok=4, n_group=1, topk_group=1,
        norm_topk_prob=True, routed_scaling_factor=1.0, num_nextn_predict_layers=0, rope_parameters=rope(1e4)),
    "deepseek_v3_mtp": make_models.DeepseekV3Config(
        **MLA, q_lora_rank=20, n_shared_experts=1, num_experts_per_tok=4, n_group=1, topk_group=1,
        norm_topk_prob=True, routed_scaling_factor=1.0, num_nextn_predict_layers=1, rope_parameters=rope(1e4)),
    "qwen3_moe": make_models.Qwen3MoeConfig(
        **GQA, head_dim=24, moe_intermediate_size=32, num_experts=8, num_experts_per_tok=2, norm_topk_prob=True,
        rope_parameters=rope(1e6)),
    "qwen3_moe_sparse": make_models.Qwen3MoeConfig(
        **GQA, head_dim=16, moe_intermediate_size=32, num_experts=8, num_experts_per_tok=3,
        norm_topk_prob=False, decoder_sparse_step=2, mlp_only_layers=[1], rope_parameters=rope(1e6)),
    "qwen3": make_models.Qwen3Config(**(GQA | dict(tie_word_embeddings=True)), head_dim=24,
                                     rope_parameters=rope(1e6)),
    "qwen2": make_models.Qwen2Config(**(GQA | dict(tie_word_embeddings=True)), rope_parameters=rope(1e6)),
    "llama": make_models.LlamaConfig(
        **(GQA | dict(max_position_embeddings=16384)), rms_norm_eps=1e-5,
        rope_parameters=rope(500000.0, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                             original_max_position_embeddings=8192)),
}


@dataclasses.dataclass
class Layout:
    tp: int = 1
    ep: int = 1
    pp: int = 1
    chunks: int = 1

    @property
    def world(self):
        return self.pp * max(self.tp, self.ep)

    def options(self):
        virtual = ["--num-virtual-stages-per-pipeline-rank", str(self.chunks)] if self.chunks > 1 else []
        return ["--target-tensor-parallel-size", str(self.tp), "--target-expert-parallel-size", str(self.ep),
                "--target-pipeline-parallel-size", str(self.pp), *virtual]


LAYOUTS = {
    "llama": [Layout(tp=2), Layout(tp=2, pp=2, chunks=2)],
    "qwen2": [Layout(tp=2), Layout(pp=2)],
    "qwen3_moe": [Layout(tp=2, ep=2, pp=2)],
    "deepseek_v3": [Layout(tp=2, ep=2, pp=2, chunks=2)],
    "deepseek_v3_mtp": [Layout(tp=2, ep=2, pp=2)],
}


# Of these, alone and in one layout each; --all takes the others, too.
QUICK = ("deepseek_v3", "qwen3_moe", "qwen2", "llama")


def fail(reason):
    print(f"FAIL {reason}")
    sys.exit(1)


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        fail(f"{' '.join(map(str, command))}: {done.stderr}")


class LatentAttention(torch.nn.Module):
    """Attention with values of another width: Megatron's own on CPUs has none."""

    def __init__(self, softmax_scale=None, **_):
        super().__init__()
        self.scale = softmax_scale

    def forward(self, query, key, value, attention_mask, **_):
        query, key, value = (x.permute(1, 2, 0, 3) for x in (query, key, value))  # [batch, heads, time, dim]
        scores = (query @ key.transpose(-1, -2) * self.scale).masked_fill(attention_mask, -torch.inf)
        return (scores.softmax(-1) @ value).permute(2, 0, 1, 3).flatten(2)  # [time, batch, heads * dim]


def start_megatron(rank, layout, port):
    """Megatron-core without GPUs: what it asks CUDA for is answered here."""
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel import random as megatron_random
    from megatron.core.transformer import multi_latent_attention
    from megatron.core.transformer.moe import moe_utils
    torch.cuda.current_device = lambda: torch.device("cpu")
    torch.Tensor.cuda = lambda self, *_, **__: self
    megatron_random.CudaRNGStatesTracker.fork = lambda self, name=None: contextlib.nullcontext()
    moe_utils.te_general_gemm = None
    multi_latent_attention.TELinear = type("TELinear", (), {})
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://localhost:{port}", rank=rank,
                                         world_size=layout.world)
    parallel_state.initialize_model_parallel(
        layout.tp, layout.pp, virtual_pipeline_model_parallel_size=layout.chunks if layout.chunks > 1 else None,
        expert_model_parallel_size=layout.ep, expert_tensor_parallel_size=1)


def megatron_config(args):
    """As Megatron's core_transformer_config_from_args: fields by the arguments' names, some under others."""
    from megatron.core.transformer.transformer_config import MLATransformerConfig, TransformerConfig
    kind = MLATransformerConfig if getattr(args, "multi_latent_attention", False) else TransformerConfig
    fields = {field.name for field in dataclasses.fields(kind)} - {"bf16", "fp16"}
    given = {name: value for name, value in vars(args).items()
             if name in fields and (value is not None or name == "q_lora_rank")}
    return kind(**given, layernorm_epsilon=args.norm_epsilon, num_moe_experts=getattr(args, "num_experts", None),
                gated_linear_unit=args.swiglu, activation_func=F.silu, pipeline_dtype=args.params_dtype,
                moe_token_dispatcher_type="allgather", moe_router_dtype="fp32", use_cpu_initialization=True,
                perform_initialization=False, attention_softmax_in_fp32=True, bias_activation_fusion=False,
                masked_softmax_fusion=False, gradient_accumulation_fusion=False, bias_dropout_fusion=False,
                persist_layer_norm=False)


def megatron_chunk(args, layout, chunk):
    from megatron.core import parallel_state
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import (get_gpt_decoder_block_spec, get_gpt_layer_local_spec,
                                                          get_gpt_mtp_block_spec)
    config = megatron_config(args)
    stage = chunk if layout.chunks > 1 else None
    if config.num_moe_experts:
        spec = get_gpt_decoder_block_spec(config, use_transformer_engine=False, normalization="RMSNorm",
                                          vp_stage=stage)
        layers = spec.layer_specs
    else:
        spec = get_gpt_layer_local_spec(normalization="RMSNorm", qk_layernorm=args.qk_layernorm)
        layers = [spec]
    if config.multi_latent_attention:
        for layer in layers:
            layer.submodules.self_attention.submodules.core_attention = LatentAttention
    rank = parallel_state.get_pipeline_model_parallel_rank()
    is_last = rank == layout.pp - 1 and chunk == layout.chunks - 1
    mtp = get_gpt_mtp_block_spec(config, spec, use_transformer_engine=False, vp_stage=stage) \
        if config.mtp_num_layers and is_last else None
    return GPTModel(
        config, spec, vocab_size=args.padded_vocab_size, max_sequence_length=args.max_position_embeddings,
        pre_process=rank == 0 and chunk == 0, post_process=is_last, mtp_block_spec=mtp, parallel_output=False,
        share_embeddings_and_output_weights=not args.untie_embeddings_and_output_weights,
        position_embedding_type=args.position_embedding_type, rotary_base=args.rotary_base,
        rotary_percent=args.rotary_percent, rope_scaling=getattr(args, "use_rope_scaling", False),
        rope_scaling_factor=getattr(args, "rope_scaling_factor", 8.0), vp_stage=stage).eval()


def add_mtp_layer(folder, config):
    """transformers has no layer of multi-token prediction: one more decoder layer, and what joins it to the model."""
    path = os.path.join(folder, "model.safetensors")
    tensors = load_file(path)
    last, added = f"model.layers.{config.num_hidden_layers - 1}.", f"model.layers.{config.num_hidden_layers}."
    generator = torch.Generator().manual_seed(2)
    random = lambda *shape: torch.rand(shape, generator=generator) - 0.5
    tensors.update({added + name[len(last):]: random(*tensor.shape) for name, tensor in tensors.items()
                    if name.startswith(last)})
    hidden = config.hidden_size
    tensors.update({added + "embed_tokens.weight": tensors["model.embed_tokens.weight"].clone(),
                    added + "shared_head.head.weight": tensors["lm_head.weight"].clone(),
                    added + "enorm.weight": random(hidden), added + "hnorm.weight": random(hidden),
                    added + "shared_head.norm.weight": random(hidden),
                    added + "eh_proj.weight": random(hidden, 2 * hidden)})
    save_file(tensors, path, metadata={"format": "pt"})


def on_rank(rank, layout, port, folder, saved, ids, expected):
    """Loads this rank's file into Megatron's model, compares logits where the model is whole, saves again."""
    from megatron.core import parallel_state
    start_megatron(rank, layout, port)
    name = f"mp_rank_{parallel_state.get_tensor_model_parallel_rank():02d}"
    if layout.pp > 1:
        name += f"_{parallel_state.get_pipeline_model_parallel_rank():03d}"
    if layout.ep > 1:
        name += f"_{parallel_state.get_expert_model_parallel_rank():03d}"
    file = torch.load(os.path.join(folder, "release", name, "model_optim_rng.pt"), weights_only=False, mmap=True)
    args = file["args"]
    keys = ["model"] if layout.chunks == 1 else [f"model{chunk}" for chunk in range(layout.chunks)]
    again = {"args": args, "checkpoint_version": 3.0, "iteration": 12}
    for chunk, key in enumerate(keys):
        model = megatron_chunk(args, layout, chunk)
        model.load_state_dict(file[key], strict=True)
        again[key] = model.state_dict_for_save_checkpoint()
    if layout.pp == 1 and layout.chunks == 1 and not args.mtp_num_layers:  # whose forward needs labels
        positions = torch.arange(TIME).expand(ids.shape)
        mask = torch.triu(torch.ones(1, 1, TIME, TIME, dtype=torch.bool), 1)
        with torch.no_grad():
            logits = model(ids, positions, mask)[..., :expected.shape[-1]]
        error = ((logits - expected).abs().max() / expected.abs().max()).item()
        if not error < TOLERANCE:
            raise RuntimeError(f"logits differ by {error:.1e}")
    place = os.path.join(saved, "iter_0000012", name)
    os.makedirs(place, exist_ok=True)
    torch.save(again, os.path.join(place, "model_optim_rng.pt"))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def check_same_bits(first, second):
    first, second = load_file(first), load_file(second)
    if first.keys() != second.keys():
        fail(f"{second}: other tensors: {sorted(first.keys() ^ second.keys())[:3]}")
    for name, tensor in first.items():
        if tensor.dtype != second[name].dtype or not torch.equal(tensor, second[name]):
            fail(f"{name} came back with other bits")


def check(moetron, name, layout, folder, port, worker=on_rank):
    original = os.path.join(folder, "hf")
    if not os.path.exists(original):
        model = make_models.build(name, 0)
        model.save_pretrained(original)
        if getattr(model.config, "num_nextn_predict_layers", 0):
            add_mtp_layer(original, model.config)
        ids = torch.randint(0, make_models.VOCAB, (2, TIME), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            torch.save((ids, model(input_ids=ids, use_cache=False).logits), os.path.join(folder, "expected.pt"))
    ids, expected = torch.load(os.path.join(folder, "expected.pt"))
    label = "_".join(f"{key}{value}" for key, value in vars(layout).items())
    written, saved, back = (os.path.join(folder, label + end) for end in ("_mg", "_core", "_hf"))
    run(moetron, "convert", "--load", original, "--save", written, "--to", "megatron", "--transformer-impl", "local",
        "--make-vocab-size-divisible-by", "24", *layout.options())
    os.makedirs(saved)
    torch.multiprocessing.spawn(worker, (layout, port, written, saved, ids, expected), nprocs=layout.world)
    with open(os.path.join(saved, "latest_checkpointed_iteration.txt"), "w") as latest:
        latest.write("12")
    run(moetron, "convert", "--load", saved, "--save", back, "--from", "megatron", "--to", "hf", "--model-files",
        original)
    check_same_bits(os.path.join(original, "model.safetensors"), os.path.join(back, "model.safetensors"))
    print(f"PASS {name} {vars(layout)}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("moetron")
    parser.add_argument("--only", help="this model alone")
    parser.add_argument("--all", action="store_true", help="all models and layouts, in three minutes")
    arguments = parser.parse_args()
    make_models.MODELS.update(copy.deepcopy(MODELS))
    port = 20000 + os.getpid() % 20000
    for name in MODELS:
        is_wanted = arguments.only == name if arguments.only else arguments.all or name in QUICK
        if not is_wanted:
            continue
        layouts = LAYOUTS.get(name, [])
        with tempfile.TemporaryDirectory() as folder:
            for layout in [Layout(), *(layouts if arguments.all or arguments.only else layouts[:1])]:
                port += 1
                check(arguments.moetron, name, layout, folder, port)


if __name__ == "__main__":
    main()
