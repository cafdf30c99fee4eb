"""Checks moetron/arch against transformers.

For each family: the config.json that Moetron writes loads as the right class with the same meaning,
a model saved by transformers has the names and shapes of our inventory, and the rotary numbers and
softmax scales are equal. Usage: arch_oracle.py ARCH_TOOL
"""

import json
import os
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import torch  # noqa: E402
from safetensors import safe_open  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402
from transformers.utils import logging  # noqa: E402

COMMON = dict(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
              num_attention_heads=4, max_position_embeddings=256, initializer_range=0.01,
              rms_norm_eps=1e-5, torch_dtype="float32", my_note=[1, {"a": None}])
MLA = dict(kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=12,
           num_key_value_heads=4, n_routed_experts=8, n_shared_experts=2, num_experts_per_tok=3,
           moe_intermediate_size=24, first_k_dense_replace=1)
YARN = dict(type="yarn", factor=40, original_max_position_embeddings=4096, beta_fast=32,
            beta_slow=1, mscale=0.707, mscale_all_dim=0.707)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=8192)

CASES = {
    "v2": dict(model_type="deepseek_v2", architectures=["DeepseekV2ForCausalLM"], q_lora_rank=None,
               topk_method="greedy", rope_scaling=YARN, **MLA),
    "v2_groups": dict(model_type="deepseek_v2", q_lora_rank=20, n_group=4, topk_group=2,
                      topk_method="group_limited_greedy", routed_scaling_factor=16.0, **MLA),
    "v3": dict(model_type="deepseek_v3", q_lora_rank=24, n_group=4, topk_group=2,
               scoring_func="sigmoid", topk_method="noaux_tc", norm_topk_prob=True,
               routed_scaling_factor=2.5, rope_scaling=YARN, num_nextn_predict_layers=1, **MLA),
    "v3_plain": dict(model_type="deepseek_v3", q_lora_rank=None, n_group=1, topk_group=1,
                     rope_theta=20000.0, **MLA),
    "v3_new_spelling": dict(model_type="deepseek_v3", q_lora_rank=24, n_group=4, topk_group=2,
                            rope_parameters=dict(rope_theta=5e4, rope_type="yarn", factor=8.0,
                                                 original_max_position_embeddings=1024), **MLA),
    "qwen3_moe": dict(model_type="qwen3_moe", num_key_value_heads=2, head_dim=16, num_experts=8,
                      num_experts_per_tok=2, moe_intermediate_size=24, norm_topk_prob=True,
                      decoder_sparse_step=2, mlp_only_layers=[], rope_theta=1e6,
                      tie_word_embeddings=True),
    "qwen3_moe_new_spelling": dict(model_type="qwen3_moe", num_key_value_heads=2, head_dim=16,
                                   num_local_experts=8, num_experts_per_tok=2,
                                   moe_intermediate_size=24, mlp_only_layers=[1],
                                   rope_parameters=dict(rope_theta=1e7, rope_type="default")),
    "qwen2_moe": dict(model_type="qwen2_moe", num_key_value_heads=2, num_experts=8, num_experts_per_tok=2,
                      moe_intermediate_size=24, shared_expert_intermediate_size=48, norm_topk_prob=True,
                      mlp_only_layers=[0], rope_theta=1e6),
    "qwen3": dict(model_type="qwen3", num_key_value_heads=2, head_dim=16, rope_theta=1e6,
                  tie_word_embeddings=True,
                  rope_scaling=dict(rope_type="yarn", factor=4.0,
                                    original_max_position_embeddings=32768)),
    "qwen2": dict(model_type="qwen2", num_key_value_heads=2, rope_theta=1e6),
    "llama": dict(model_type="llama", num_key_value_heads=2, rope_theta=5e5, rope_scaling=LLAMA3),
    "llama_linear": dict(model_type="llama", head_dim=16, tie_word_embeddings=True,
                         rope_scaling=dict(type="linear", factor=2.5)),
    "mistral": dict(model_type="mistral", num_key_value_heads=2, head_dim=16, sliding_window=None,
                    rope_theta=1e6),
}

# What may differ between two configs of one meaning.
IGNORED = {"_name_or_path", "architectures", "transformers_version", "my_note", "dtype",
           "bos_token_id", "eos_token_id", "pad_token_id", "max_window_layers", "num_local_experts",
           "moe_layer_freq", "ep_size", "seq_aux", "aux_loss_alpha", "scoring_func", "topk_method",
           "n_group", "topk_group", "norm_topk_prob", "num_mtp_layers", "num_nextn_predict_layers"}


def run_tool(tool, path):
    done = subprocess.run([tool, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def write_config(folder, config):
    path = os.path.join(folder, "config.json")
    with open(path, "w") as file:
        json.dump(config, file)
    return path


def meaning(config):
    """A loaded config without what may differ, and with the rotary numbers by value."""
    values = {k: v for k, v in config.to_dict().items() if k not in IGNORED}
    rope = {k: v for k, v in values.pop("rope_parameters").items() if k != "type" and v is not None}
    rope.setdefault("beta_fast", 32)
    rope.setdefault("beta_slow", 1)
    values["rope"] = rope
    return values


def check_routing(name, config, original):
    """The keys that some families ignore, where the family reads them."""
    keys = {"deepseek_v2": ["topk_method", "n_group", "topk_group"],
            "deepseek_v3": ["n_group", "topk_group", "norm_topk_prob"],
            "qwen3_moe": ["norm_topk_prob", "num_experts"],
            "qwen2_moe": ["norm_topk_prob", "num_experts"]}.get(config.model_type, [])
    for key in keys:
        ours, theirs = getattr(config, key, None), getattr(original, key, None)
        if config.model_type == "deepseek_v2" and original.topk_method == "greedy":
            ours, theirs = ours or 1, theirs or 1
        assert ours == theirs, (name, key, ours, theirs)


def check_rewritten(name, tool, original_path, answer):
    original = AutoConfig.from_pretrained(original_path)
    for kind in ("rewritten", "from_scratch"):
        with tempfile.TemporaryDirectory() as folder:
            path = write_config(folder, answer[kind])
            config = AutoConfig.from_pretrained(folder)
            assert type(config) is type(original), (name, kind, type(config))
            ours, theirs = meaning(config), meaning(original)
            for key in sorted(set(ours) | set(theirs)):
                if kind == "from_scratch" and key not in ours:
                    continue
                assert key not in theirs or ours.get(key) == theirs[key], (
                    name, kind, key, ours.get(key), theirs.get(key))
            check_routing(name, config, original)
            assert str(config.dtype).removeprefix("torch.") == "float32", (name, config.dtype)
            # What we wrote, we read with the same meaning.
            again = run_tool(tool, path)
            for key in ("tensors", "inverse_frequencies", "cos_sin_scale", "softmax_scale",
                        "from_scratch"):
                assert again[key] == answer[key], (name, kind, key)
    assert answer["rewritten"]["my_note"] == COMMON["my_note"], name
    for new_spelling in ("rope_parameters", "dtype", "num_local_experts"):
        assert new_spelling not in answer["rewritten"], (name, new_spelling)


def check_model(name, answer):
    with tempfile.TemporaryDirectory() as folder:
        write_config(folder, answer["from_scratch"])
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
        model.save_pretrained(folder)
        with safe_open(os.path.join(folder, "model.safetensors"), "pt") as file:
            saved = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}
        assert saved == answer["tensors"], (name, set(saved) ^ set(answer["tensors"]))
    rotary = model.model.rotary_emb
    ours = torch.tensor(answer["inverse_frequencies"], dtype=torch.float64)
    error = ((ours - rotary.inv_freq.double()).abs() / rotary.inv_freq.double()).max().item()
    assert ours.shape == rotary.inv_freq.shape and error < 1e-6, (name, error)
    assert abs(answer["cos_sin_scale"] - rotary.attention_scaling) < 1e-6, name
    scaling = model.model.layers[0].self_attn.scaling
    assert abs(answer["softmax_scale"] - scaling) < 1e-6 * scaling, (name, scaling)
    return error


def main(tool):
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = write_config(folder, {**COMMON, **case})
            answer = run_tool(tool, path)
            check_rewritten(name, tool, folder, answer)
            error = check_model(name, answer)
        print(f"{name}: {len(answer['tensors'])} tensors, frequencies within {error:.1e}")


if __name__ == "__main__":
    main(sys.argv[1])
