#!/usr/bin/env python3
"""Builds tiny random models of every family with transformers, and what they compute.

    make_models.py OUT [NAME ...]

Writes OUT/NAME/ as a Hugging Face directory (config.json, model.safetensors) and, beside them,
OUT/NAME/expected.safetensors:

    input_ids          int64 [2, 16]
    labels             int64 [2, 16]   labels[b][t] is the target of position t (already shifted);
                                       -100 marks a position without a target
    logits             fp32  [2, 16, vocab]
    loss               fp32  []        mean cross-entropy over the positions that have a target
    grad.<name>        fp32            gradient of loss, one for every stored weight, under its stored name
    generate.prompt    int64 [2, 8]
    generate.tokens    int64 [2, 32]   the prompt and 24 greedy tokens; no token ends the text

Everything is computed on the CPU in fp32 with eager attention. Each model's weights are drawn with
enough spread that routing is decided by a clear margin, and the margin is tested: routing and greedy
tokens must survive a relative perturbation of all weights that is far above fp32 rounding.
"""
import argparse
import json
import os
import shutil
import sys
import tempfile
import zlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from transformers import (DeepseekV2Config, DeepseekV3Config, LlamaConfig, MistralConfig, Qwen2Config,
                          Qwen2MoeConfig, Qwen3Config, Qwen3MoeConfig)

VOCAB, HIDDEN, LAYERS, HEADS = 128, 64, 3, 4
COMMON = dict(vocab_size=VOCAB, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
              max_position_embeddings=512, bos_token_id=0, eos_token_id=None, initializer_range=0.02,
              tie_word_embeddings=False)
MLA = dict(COMMON | dict(max_position_embeddings=163840), num_key_value_heads=HEADS, kv_lora_rank=24, qk_nope_head_dim=16, qk_rope_head_dim=8,
           v_head_dim=12, intermediate_size=96, moe_intermediate_size=32, n_routed_experts=8,
           first_k_dense_replace=1)
GQA = dict(COMMON, num_key_value_heads=2, intermediate_size=96)


def rope(theta, **scaling):
    return {"rope_theta": theta, "rope_type": "default", **scaling}


def yarn(mscale):
    """The scaling of the DeepSeek releases; mscale also changes the softmax scale."""
    return rope(10000.0, rope_type="yarn", factor=40.0, beta_fast=32, beta_slow=1, mscale=mscale,
                mscale_all_dim=mscale, original_max_position_embeddings=4096)


# norm_topk_prob stays False for deepseek_v2: transformers ignores it there, and so do the released
# models, which all set it to False. n_group and topk_group of 1 equal no groups at all.
# num_nextn_predict_layers is 0 because transformers computes no training loss for such layers.
MODELS = {
    "deepseek_v2": DeepseekV2Config(
        **MLA, q_lora_rank=None, n_shared_experts=2, num_experts_per_tok=3, topk_method="greedy",
        n_group=1, topk_group=1, norm_topk_prob=False, routed_scaling_factor=1.0,
        rope_parameters=yarn(0.707)),
    "deepseek_v2_groups": DeepseekV2Config(
        **MLA, q_lora_rank=20, n_shared_experts=1, num_experts_per_tok=3,
        topk_method="group_limited_greedy", n_group=4, topk_group=2, norm_topk_prob=False,
        routed_scaling_factor=16.0, rope_parameters=yarn(1.0)),
    "deepseek_v3": DeepseekV3Config(
        **MLA, q_lora_rank=20, n_shared_experts=1, num_experts_per_tok=3, n_group=4, topk_group=2,
        norm_topk_prob=True, routed_scaling_factor=2.5, num_nextn_predict_layers=0,
        rope_parameters=yarn(1.0)),
    "deepseek_v3_plain": DeepseekV3Config(
        **MLA, q_lora_rank=None, n_shared_experts=1, num_experts_per_tok=4, n_group=1, topk_group=1,
        norm_topk_prob=True, routed_scaling_factor=1.0, num_nextn_predict_layers=0,
        rope_parameters=rope(10000.0)),
    # Values wider than queries and keys, and odd widths.
    "deepseek_v3_wide_values": DeepseekV3Config(
        **(MLA | dict(qk_nope_head_dim=9, qk_rope_head_dim=6, v_head_dim=21, kv_lora_rank=23,
                      intermediate_size=95, moe_intermediate_size=31)),
        q_lora_rank=19, n_shared_experts=1, num_experts_per_tok=3, n_group=4, topk_group=2,
        norm_topk_prob=True, routed_scaling_factor=2.5, num_nextn_predict_layers=0,
        rope_parameters=yarn(1.0)),
    # A family of experts without a layer that has some.
    "deepseek_v3_dense": DeepseekV3Config(
        **(MLA | dict(first_k_dense_replace=LAYERS)), q_lora_rank=20, n_shared_experts=1,
        num_experts_per_tok=3, n_group=4, topk_group=2, norm_topk_prob=True,
        routed_scaling_factor=2.5, num_nextn_predict_layers=0, rope_parameters=rope(10000.0)),
    "qwen3_moe": Qwen3MoeConfig(
        **GQA, head_dim=24, moe_intermediate_size=32, num_experts=8, num_experts_per_tok=2,
        norm_topk_prob=True, rope_parameters=rope(1e6)),
    "qwen3_moe_sparse": Qwen3MoeConfig(
        **(GQA | dict(num_hidden_layers=4)), head_dim=16, moe_intermediate_size=32, num_experts=8,
        num_experts_per_tok=3, norm_topk_prob=False, decoder_sparse_step=2, mlp_only_layers=[1],
        rope_parameters=rope(1e6)),
    "qwen2_moe": Qwen2MoeConfig(
        **GQA, moe_intermediate_size=24, shared_expert_intermediate_size=48, num_experts=8, num_experts_per_tok=3,
        norm_topk_prob=False, decoder_sparse_step=1, mlp_only_layers=[1], rope_parameters=rope(1e6)),
    "qwen3": Qwen3Config(**(GQA | dict(tie_word_embeddings=True)), head_dim=24,
                         rope_parameters=rope(1e6)),
    "qwen2": Qwen2Config(**(GQA | dict(tie_word_embeddings=True)), rope_parameters=rope(1e6)),
    "llama": LlamaConfig(**GQA, rms_norm_eps=1e-5,
                         rope_parameters=rope(500000.0, rope_type="llama3", factor=8.0,
                                              low_freq_factor=1.0, high_freq_factor=4.0,
                                              original_max_position_embeddings=64)),
    "mistral": MistralConfig(**GQA, head_dim=24, sliding_window=None, rope_parameters=rope(1e6)),
}

# Models whose config.json gets the spelling of the releases instead of that of transformers 5.
RELEASE_SPELLING = ("deepseek_v2_groups", "deepseek_v3_plain", "qwen3_moe", "llama")


def build(name, seed):
    """A model whose weights depend on (name, seed, tensor name) only."""
    config = MODELS[name]
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", experts_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        for tensor_name, tensor in list(model.named_parameters()) + list(model.named_buffers()):
            if "rotary_emb" in tensor_name:
                continue
            generator = torch.Generator().manual_seed(zlib.crc32(f"{name}/{tensor_name}/{seed}".encode()))
            noise = torch.rand(tensor.shape, generator=generator) * 2 - 1
            if tensor_name.endswith("bias"):
                tensor.copy_(0.1 * noise)
            elif tensor.dim() == 1:
                tensor.copy_(1 + 0.1 * noise)
            else:
                tensor.copy_(0.25 * noise)
    return model.eval()


def routing_of(model, input_ids):
    """The experts chosen by every router, ascending per token, and the logits."""
    chosen = []

    def keep(module, inputs, output):
        chosen.append(output[2].sort(dim=-1).values)

    hooks = [m.register_forward_hook(keep) for m in model.modules()
             if type(m).__name__.lower().endswith("topkrouter")]
    with torch.no_grad():
        logits = model(input_ids=input_ids, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    return chosen, logits


def generate(model, prompt, num_new):
    """Greedy tokens without a cache: nothing here but the model's forward."""
    tokens = prompt
    for _ in range(num_new):
        with torch.no_grad():
            logits = model(input_ids=tokens, use_cache=False).logits[:, -1]
        tokens = torch.cat([tokens, logits.argmax(dim=-1, keepdim=True)], dim=1)
    return tokens


def is_robust(model, input_ids, tokens):
    """Whether routing and greedy tokens stay when every weight moves by 1e-5 of its size."""
    batches = [input_ids, tokens]
    before = [routing_of(model, batch) for batch in batches]
    saved = {k: v.clone() for k, v in model.state_dict().items()}
    num_prompt = 8
    good = True
    for trial in range(3):
        generator = torch.Generator().manual_seed(trial)
        with torch.no_grad():
            for tensor in model.parameters():
                tensor.mul_(1 + 1e-5 * torch.randn(tensor.shape, generator=generator))
        for batch, (chosen, logits) in zip(batches, before):
            now, now_logits = routing_of(model, batch)
            good &= all(torch.equal(a, b) for a, b in zip(chosen, now))
            if batch is tokens:
                picked = slice(num_prompt - 1, -1)
                good &= torch.equal(logits[:, picked].argmax(-1), now_logits[:, picked].argmax(-1))
        model.load_state_dict(saved)
    return good


def stored_gradients(model):
    """Gradients under the names and shapes of the stored weights.

    transformers keeps the experts of a layer fused in memory and splits them when it saves. Putting
    the gradients where the weights were and saving them makes it do the same split here.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tensors = load_file(os.path.join(folder, "model.safetensors"))
    return {f"grad.{k}": v.clone() for k, v in tensors.items() if not k.endswith("e_score_correction_bias")}


def write_release_spelling(path):
    """rope_theta, rope_scaling and torch_dtype instead of rope_parameters and dtype."""
    with open(path) as file:
        config = json.load(file)
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    config["rope_scaling"] = None if parameters["rope_type"] == "default" else parameters
    if config["model_type"].startswith("deepseek") and config["rope_scaling"]:
        config["rope_scaling"]["type"] = config["rope_scaling"].pop("rope_type")
    config["torch_dtype"] = config.pop("dtype")
    with open(path, "w") as file:
        json.dump(config, file, indent=2)


def make(name, out):
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    input_ids = torch.randint(VOCAB, (2, 16), generator=generator)
    labels = torch.randint(VOCAB, (2, 16), generator=generator)
    labels[0, :3] = -100
    labels[1, 7] = labels[1, 15] = -100
    prompt = torch.randint(VOCAB, (2, 8), generator=generator)
    for seed in range(20):
        model = build(name, seed)
        tokens = generate(model, prompt, 24)
        if is_robust(model, input_ids, tokens):
            break
    else:
        sys.exit(f"{name}: no seed gives routing with a clear margin")
    folder = os.path.join(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    if name in RELEASE_SPELLING:
        write_release_spelling(os.path.join(folder, "config.json"))
    logits = model(input_ids=input_ids, use_cache=False).logits
    reloaded = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", experts_implementation="eager")
    if not torch.equal(reloaded(input_ids=input_ids).logits, logits):
        sys.exit(f"{name}: the stored model does not compute what the model in memory does")
    loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100)
    loss.backward()
    expected = {"input_ids": input_ids, "labels": labels, "logits": logits.detach().contiguous(),
                "loss": loss.detach(), "generate.prompt": prompt, "generate.tokens": tokens}
    cached = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                            max_new_tokens=24, eos_token_id=None, pad_token_id=0)
    if not torch.equal(cached, tokens):
        sys.exit(f"{name}: greedy tokens with and without a cache differ")
    expected |= stored_gradients(model)
    save_file(expected, os.path.join(folder, "expected.safetensors"))
    print(f"{name}: loss {loss.item():.6f}, {len(expected) - 6} weights, seed {seed}")


def main():
    parser = argparse.ArgumentParser(description="Writes tiny models and what transformers computes with them.")
    parser.add_argument("out")
    parser.add_argument("names", nargs="*", default=[], help=f"of {', '.join(MODELS)}; default: all")
    args = parser.parse_args()
    unknown = set(args.names) - set(MODELS)
    if unknown:
        parser.error(f"no model named {', '.join(sorted(unknown))}")
    torch.set_num_threads(2)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for name in args.names or MODELS:
        make(name, args.out)


if __name__ == "__main__":
    main()
