"""Checks that moetron/arch reads every spelling of config.json as transformers does, or refuses it.

Every key that a family's class knows is given as it is, left out, set to null and moved between its
old and new spellings. Where transformers takes the file, Moetron gives the same model (tensors,
rotary numbers, softmax scale and the keys that the arithmetic reads) or refuses it; where
transformers does not take it, neither does Moetron. Usage: config_variants_oracle.py ARCH_TOOL
"""

import copy
import json
import os
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import torch  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402
from transformers.utils import logging  # noqa: E402

COMMON = dict(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
              num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=256,
              initializer_range=0.01, rms_norm_eps=1e-5, tie_word_embeddings=False,
              hidden_act="silu", attention_bias=False, attention_dropout=0.0, dtype="float32",
              bos_token_id=1, eos_token_id=2)
MLA = dict(kv_lora_rank=16, q_lora_rank=20, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=12,
           n_routed_experts=8, n_shared_experts=2, num_experts_per_tok=3, moe_intermediate_size=24,
           first_k_dense_replace=1, n_group=4, topk_group=2, norm_topk_prob=False,
           routed_scaling_factor=1.5)
FAMILIES = {
    "llama": dict(head_dim=8, mlp_bias=False),
    "mistral": dict(head_dim=8, sliding_window=None),
    "qwen2": dict(use_sliding_window=False),
    "qwen3": dict(head_dim=16, use_sliding_window=False),
    "qwen3_moe": dict(head_dim=16, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=24,
                      norm_topk_prob=True, decoder_sparse_step=2, mlp_only_layers=[0],
                      use_sliding_window=False),
    "qwen2_moe": dict(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=24,
                      shared_expert_intermediate_size=48, norm_topk_prob=True, decoder_sparse_step=2,
                      mlp_only_layers=[0], use_sliding_window=False),
    "deepseek_v2": dict(MLA, topk_method="group_limited_greedy"),
    "deepseek_v3": dict(MLA, norm_topk_prob=True, rope_interleave=True),
}
THETA = dict(rope_type="default", rope_theta=5e5)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64, beta_fast=32,
            beta_slow=1, mscale=0.7, mscale_all_dim=1.2, attention_factor=1.3, truncate=True,
            rope_theta=5e5)
LINEAR = dict(rope_type="linear", factor=2.5, rope_theta=5e5)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64, rope_theta=5e5)
# What the arithmetic of a family reads; None and 0 are the same "no" to it.
READ = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "max_position_embeddings", "rms_norm_eps",
        "initializer_range", "tie_word_embeddings"]
READ_BY = {
    "qwen3_moe": ["num_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob",
                  "decoder_sparse_step", "mlp_only_layers"],
    "qwen2_moe": ["num_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob",
                  "decoder_sparse_step", "mlp_only_layers", "shared_expert_intermediate_size"],
    "deepseek_v2": ["num_experts_per_tok", "routed_scaling_factor", "topk_method", "n_group",
                    "topk_group"],
    "deepseek_v3": ["num_experts_per_tok", "routed_scaling_factor", "n_group", "topk_group",
                    "norm_topk_prob", "rope_interleave"],
}


def without(values, *keys):
    return {key: value for key, value in values.items() if key not in keys}


def rope_variants():
    """(name, keys of config.json)"""
    old = dict(without(YARN, "rope_type", "rope_theta"), type="yarn")
    yield "no rope", {}
    yield "theta outside", dict(rope_theta=1e6)
    for empty in (None, {}):
        yield f"scaling {empty} alone", dict(rope_scaling=empty)
        yield f"scaling {empty}, theta", dict(rope_scaling=empty, rope_theta=1e6)
        yield f"scaling {empty}, parameters", dict(rope_scaling=empty, rope_parameters=THETA)
        yield f"parameters {empty}, scaling", dict(rope_scaling=YARN, rope_parameters=empty)
        yield f"parameters {empty}, theta", dict(rope_parameters=empty, rope_theta=1e6)
        yield f"parameters {empty} alone", dict(rope_parameters=empty)
    yield "theta null", dict(rope_theta=None)
    yield "theta null inside", dict(rope_parameters=dict(THETA, rope_theta=None))
    yield "theta null outside", dict(rope_parameters=THETA, rope_theta=None)
    yield "theta differs", dict(rope_parameters=THETA, rope_theta=1e6)
    yield "both", dict(rope_parameters=THETA, rope_scaling=YARN)
    yield "both, theta in one", dict(rope_parameters=THETA, rope_scaling=without(YARN, "rope_theta"))
    yield "old yarn", dict(rope_scaling=old, rope_theta=1e6)
    yield "types differ", dict(rope_parameters=dict(YARN, type="linear"))
    for name, rope in (("yarn", YARN), ("linear", LINEAR), ("llama3", LLAMA3), ("theta", THETA)):
        yield name, dict(rope_parameters=rope)
        yield name + " as scaling", dict(rope_scaling=rope)
        for key in rope:
            yield f"{name} without {key}", dict(rope_parameters=without(rope, key))
            yield f"{name} {key} null", dict(rope_parameters=dict(rope, **{key: None}))
            if key not in ("rope_type", "truncate"):
                yield f"{name} {key} 0", dict(rope_parameters=dict(rope, **{key: 0}))
    yield "nested", dict(rope_parameters=dict(full_attention=THETA))
    yield "nested, layer types", dict(rope_parameters=dict(full_attention=THETA),
                                      layer_types=["full_attention"] * 2)
    for factor in (1.0, 0.5, None):
        yield f"partial {factor}", dict(partial_rotary_factor=factor)
        yield f"partial {factor} inside", dict(
            rope_parameters=dict(THETA, partial_rotary_factor=factor))


def variants(family, base):
    """(name, config.json)"""
    yield "as it is", base
    for key in base:
        if key == "model_type":
            continue
        yield f"{key} absent", without(base, key)
        yield f"{key} null", dict(base, **{key: None})
    for name, rope in rope_variants():
        yield name, dict(base, **copy.deepcopy(rope))
    yield "torch_dtype", dict(without(base, "dtype"), torch_dtype="bfloat16")
    yield "both dtypes", dict(base, torch_dtype="bfloat16")
    for other in ("num_local_experts", "num_experts", "n_routed_experts"):
        key = "num_experts" if family in ("qwen3_moe", "qwen2_moe") else "n_routed_experts"
        if key in base and other != key:
            yield f"{other} instead", dict(without(base, key), **{other: 8})
            yield f"{other} 4 too", dict(base, **{other: 4})
    if family == "deepseek_v3":
        yield "not interleaved", dict(base, rope_interleave=False)
        yield "one group", dict(base, n_group=1, topk_group=1)
    if family == "deepseek_v2":
        yield "greedy", dict(base, topk_method="greedy")
        yield "norm_topk_prob", dict(base, norm_topk_prob=True)


def rotary(config, model):
    rotary_embedding = model.model.rotary_emb
    return (rotary_embedding.inv_freq.double().tolist(), rotary_embedding.attention_scaling,
            model.model.layers[0].self_attn.scaling)


def transformers_model(folder):
    """The config and the model, or the reason why there is none."""
    try:
        config = AutoConfig.from_pretrained(folder)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            model(torch.tensor([[3, 4, 5]]))
        return config, model, None
    except Exception as error:  # pylint: disable=broad-except
        return None, None, f"{type(error).__name__}: {str(error)[:100]!r}"


def close(ours, theirs):
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(close(a, b) for a, b in zip(ours, theirs))
    if isinstance(theirs, float):
        return abs(ours - theirs) <= 2e-6 * abs(theirs)
    return ours == theirs or (not ours and not theirs)


def difference(config, model, answer):
    """What of our answer differs from transformers' model, or None."""
    shapes = {k: list(v.shape) for k, v in model.state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight")
    ours = {k: v for k, v in answer["tensors"].items() if ".mlp.experts." not in k}
    theirs = {k: v for k, v in shapes.items() if ".mlp.experts." not in k}
    if ours != theirs:
        wrong = [k for k in ours | theirs if ours.get(k) != theirs.get(k)]
        return f"tensors {wrong[:3]}"
    frequencies, cos_sin, softmax = rotary(config, model)
    for name, value in (("inverse_frequencies", frequencies), ("cos_sin_scale", cos_sin),
                        ("softmax_scale", softmax)):
        if not close(answer[name], value):
            return f"{name} {answer[name]} for {value}"
    scratch = answer["from_scratch"]
    for key in READ + READ_BY.get(config.model_type, []):
        theirs = getattr(config, key, None)
        if key in ("n_group", "topk_group") and getattr(config, "topk_method", "") == "greedy":
            continue
        if key == "num_key_value_heads" and hasattr(config, "kv_lora_rank"):
            continue  # every head has a key of its own there, whatever the key says
        if not close(scratch[key], theirs):
            return f"{key} {scratch[key]} for {theirs}"
    dtype = str(config.dtype or "float32").removeprefix("torch.")
    return None if scratch["torch_dtype"] == dtype else f"dtype {scratch['torch_dtype']}, {dtype}"


def check_variant(tool, folder, values):
    """A sentence on what is wrong, or None; and whether both took the file."""
    path = os.path.join(folder, "config.json")
    with open(path, "w") as file:
        json.dump(values, file)
    done = subprocess.run([tool, path], capture_output=True, text=True, check=False)
    config, model, reason = transformers_model(folder)
    if done.returncode == 3:
        return None, False
    if done.returncode != 0:
        return f"exit {done.returncode}: {done.stderr}", False
    if config is None:
        return f"taken, but transformers says {reason}", False
    return difference(config, model, json.loads(done.stdout)), True


def main(tool):
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    failures = taken = tried = 0
    with tempfile.TemporaryDirectory() as folder:
        for family, keys in FAMILIES.items():
            base = dict(COMMON, **keys, model_type=family)
            for name, values in variants(family, base):
                problem, both = check_variant(tool, folder, values)
                tried, taken = tried + 1, taken + both
                if problem:
                    failures += 1
                    print(f"{family}, {name}: {problem}")
                # A reader that refused all would be equal to any other.
                if name in ("as it is", "theta", "yarn", "theta outside"):
                    assert problem or both, (family, name, "refused")
    print(f"{tried} config.json, {taken} of them taken, {failures} differ from transformers")
    return failures != 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
