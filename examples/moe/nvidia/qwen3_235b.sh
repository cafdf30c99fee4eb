#!/bin/bash
# Pre-trains Qwen3-235B-A22B: 94 layers, 128 experts, with the released model's values. What may be set in the
# environment is told in common.sh; besides: NUM_LAYERS 94, NUM_EXPERTS 128, DATA_PATH, TOKENIZER_PATH.
start_example="TP=2 TPE=1 EP=16 PP=8 NNODES=32 NODE_RANK=0 MLP_RECOMPUTE=1"
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

run_pretrain --model-family qwen \
  --use-local-multi-tensor-scale --cross-entropy-loss-fusion \
  --num-experts "${NUM_EXPERTS:-128}" --moe-router-topk 8 --moe-ffn-hidden-size 1536 --moe-aux-loss-coeff 1e-3 \
  --group-query-attention --num-query-groups 4 --num-attention-heads 64 --kv-channels 128 --qk-layernorm \
  --use-mcore-models --disable-bias-linear --patch-tokenizer-type Qwen3Tokenizer \
  --tokenizer-model "${TOKENIZER_PATH:-$WORKSPACE/Qwen3-30B-A3B}" --extra-vocab-size 293 \
  --swiglu --normalization RMSNorm --norm-epsilon 1e-6 --untie-embeddings-and-output-weights \
  --use-rotary-position-embeddings --position-embedding-type rope --rotary-percent 1.0 --rotary-base 1000000 \
  --rotary-emb-use-cache --max-position-embeddings 40960 \
  --num-layers "${NUM_LAYERS:-94}" --hidden-size 4096 --ffn-hidden-size 12288 \
  --no-load-optim --no-load-rng --no-save-optim --no-save-rng \
  --data-path "${DATA_PATH:-$datasets/Qwen3-30B-A3B/qwen3_text_document}"
