#!/usr/bin/env python3
"""As megatron_oracle.py, with Megatron-core 0.8, which the guide's files of Qwen2 and Llama are of.

    megatron_core08_oracle.py MOETRON

scripts/setup_core08.sh puts it into .venv-core08, apart from the core of today. It was made for GPUs, Apex and older
torch: what it asks them for is answered here. Its own CPU path has no RMSNorm but Apex's, so torch's takes that place;
it knows no scaling of Llama 3, so Llama comes without.
"""
import contextlib
import copy
import dataclasses
import os
import sys
import tempfile
import types
import warnings

CORE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".venv-core08")
sys.path.insert(0, CORE)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")
import packaging.version

sys.modules["pkg_resources"] = types.SimpleNamespace(packaging=packaging)  # which setuptools no longer has
import torch
import torch.nn.functional as F

import make_models
import megatron_oracle
from megatron_oracle import GQA, Layout, rope

MODELS = {
    "qwen2": make_models.Qwen2Config(**(GQA | dict(tie_word_embeddings=True)), rope_parameters=rope(1e6)),
    "qwen2_untied": make_models.Qwen2Config(**GQA, rope_parameters=rope(1e6)),
    "llama": make_models.LlamaConfig(**GQA, rms_norm_eps=1e-5, rope_parameters=rope(500000.0)),
}
CASES = [("qwen2", Layout()), ("qwen2", Layout(tp=2)), ("qwen2", Layout(pp=2)), ("qwen2_untied", Layout(tp=2, pp=2)),
         ("llama", Layout()), ("llama", Layout(tp=2, pp=2, chunks=2))]


class RootMeanSquareNorm(torch.nn.RMSNorm):
    def __init__(self, config, hidden_size, eps=1e-5, **_):
        super().__init__(hidden_size, eps)


def start_core08(rank, layout, port):
    import megatron.core
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel import random as megatron_random
    from megatron.core.transformer import transformer_block
    if not megatron.core.__version__.startswith("0.8."):
        raise RuntimeError(f"Megatron-core {megatron.core.__version__} is not 0.8")
    transformer_block.LayerNormImpl = RootMeanSquareNorm
    torch.cuda.current_device = lambda: torch.device("cpu")
    torch.Tensor.cuda = lambda self, *_, **__: self
    megatron_random.CudaRNGStatesTracker.fork = lambda self, name=None: contextlib.nullcontext()
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://localhost:{port}", rank=rank,
                                         world_size=layout.world)
    parallel_state.initialize_model_parallel(
        layout.tp, layout.pp, virtual_pipeline_model_parallel_size=layout.chunks if layout.chunks > 1 else None)


def core08_chunk(args, layout, chunk):
    from megatron.core import parallel_state
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.transformer.transformer_config import TransformerConfig
    if layout.chunks > 1:
        parallel_state.set_virtual_pipeline_model_parallel_rank(chunk)
    fields = {field.name for field in dataclasses.fields(TransformerConfig)} - {"bf16", "fp16"}
    given = {name: value for name, value in vars(args).items() if name in fields and value is not None}
    config = TransformerConfig(
        **given, layernorm_epsilon=args.norm_epsilon, gated_linear_unit=args.swiglu, activation_func=F.silu,
        pipeline_dtype=args.params_dtype, use_cpu_initialization=True, perform_initialization=False,
        attention_softmax_in_fp32=True, bias_activation_fusion=False, masked_softmax_fusion=False,
        gradient_accumulation_fusion=False, bias_dropout_fusion=False, persist_layer_norm=False)
    spec = get_gpt_layer_local_spec(qk_layernorm=args.qk_layernorm)
    spec.submodules.input_layernorm = spec.submodules.pre_mlp_layernorm = RootMeanSquareNorm
    rank = parallel_state.get_pipeline_model_parallel_rank()
    return GPTModel(
        config, spec, vocab_size=args.padded_vocab_size, max_sequence_length=args.max_position_embeddings,
        pre_process=rank == 0 and chunk == 0, post_process=rank == layout.pp - 1 and chunk == layout.chunks - 1,
        parallel_output=False, share_embeddings_and_output_weights=not args.untie_embeddings_and_output_weights,
        position_embedding_type=args.position_embedding_type, rotary_base=args.rotary_base,
        rotary_percent=args.rotary_percent).eval()


def on_rank(*arguments):
    megatron_oracle.start_megatron, megatron_oracle.megatron_chunk = start_core08, core08_chunk
    megatron_oracle.on_rank(*arguments)


def main():
    make_models.MODELS.update(copy.deepcopy(MODELS))
    port = 20000 + (os.getpid() + 5000) % 20000
    for name, layout in CASES:
        with tempfile.TemporaryDirectory() as folder:
            port += 1
            megatron_oracle.check(sys.argv[1], name, layout, folder, port, on_rank)


if __name__ == "__main__":
    main()
