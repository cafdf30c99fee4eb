"""Oracle of checkpoint_oracle_test.cpp: transformers and safetensors as the other side.

make DIR           writes tiny models with save_pretrained to DIR/qwen3 (BF16) and DIR/deepseek_v3,
                   the latter also as its state_dict, with stacked experts, to DIR/stacked; beside
                   each a sums.json: {name of the tensor on disk: {"shape", "sum"}}
check SOURCE COPY  loads COPY, a checkpoint of SOURCE's weights, with transformers, and compares its
                   files with what the safetensors library writes
"""

import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers
from safetensors.torch import load_file, save_file


def weighted_sum(tensor):
    values = tensor.double().flatten()
    return (values * (torch.arange(len(values)) % 7 + 1)).sum().item()


def one_by_one(state):
    """The tensors of a state_dict under their names on disk: experts one by one."""
    for name, tensor in state.items():
        if name.endswith(".mlp.experts.gate_up_proj"):
            prefix = name.removesuffix("gate_up_proj")
            for expert, both in enumerate(tensor):
                gate, up = both.chunk(2)
                yield f"{prefix}{expert}.gate_proj.weight", gate
                yield f"{prefix}{expert}.up_proj.weight", up
        elif name.endswith(".mlp.experts.down_proj"):
            prefix = name.removesuffix("down_proj")
            for expert, down in enumerate(tensor):
                yield f"{prefix}{expert}.down_proj.weight", down
        else:
            yield name, tensor


def write_sums(folder, state):
    sums = {n: {"shape": list(t.shape), "sum": weighted_sum(t)} for n, t in one_by_one(state)}
    with open(f"{folder}/sums.json", "w") as file:
        json.dump(sums, file)


def make(folder):
    torch.manual_seed(0)
    common = dict(vocab_size=96, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                  tie_word_embeddings=False)
    qwen = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(
        **common, num_key_value_heads=1, head_dim=8, intermediate_size=24))
    deepseek = transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(
        **common, num_key_value_heads=2, intermediate_size=24, moe_intermediate_size=8,
        n_routed_experts=12, n_shared_experts=1, num_experts_per_tok=2, n_group=1, topk_group=1,
        first_k_dense_replace=1, q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=8,
        qk_rope_head_dim=4, v_head_dim=8))
    for name, model in (("qwen3", qwen.bfloat16()), ("deepseek_v3", deepseek)):
        model.save_pretrained(f"{folder}/{name}")
        write_sums(f"{folder}/{name}", model.state_dict())
    os.makedirs(f"{folder}/stacked")
    state = {name: tensor.contiguous() for name, tensor in deepseek.state_dict().items()}
    assert any(name.endswith("gate_up_proj") for name in state)
    save_file(state, f"{folder}/stacked/model.safetensors")
    write_sums(f"{folder}/stacked", state)


def check(source, copy):
    for name in ("model.safetensors", "state/optimizer.safetensors"):
        save_file(load_file(f"{copy}/{name}"), f"{copy}/again", metadata={"format": "pt"})
        with open(f"{copy}/{name}", "rb") as ours, open(f"{copy}/again", "rb") as again:
            assert ours.read() == again.read(), f"{name} differs from the safetensors library's"
    load = transformers.AutoModelForCausalLM.from_pretrained
    want = load(source, dtype="auto").state_dict()
    model, info = load(copy, dtype="auto", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    got = model.state_dict()
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype and torch.equal(got[name], tensor), name


transformers.utils.logging.disable_progress_bar()
{"make": make, "check": check}[sys.argv[1]](*sys.argv[2:])
