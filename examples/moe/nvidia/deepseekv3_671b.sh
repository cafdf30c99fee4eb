#!/bin/bash
# Pre-trains DeepSeek-V3: 61 layers, 256 experts. What may be set in the environment is told in common.sh; besides:
# NUM_LAYERS 61, NUM_EXPERTS 256, FIRST_K_DENSE_REPLACE 3, DATA_PATH, TOKENIZER_PATH.
start_example="TP=2 TPE=1 EP=16 PP=16 NNODES=32 NODE_RANK=0 CPU_ADAM=1 MLP_RECOMPUTE=1"
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

run_pretrain --model-family deepseek \
  --mla-replicate-l1 --no-bias-swiglu-fusion \
  --num-experts "${NUM_EXPERTS:-256}" --moe-router-topk 8 --moe-ffn-hidden-size 2048 \
  --enable-shared-expert --num-shared-experts 1 --first-k-dense-replace "${FIRST_K_DENSE_REPLACE:-3}" \
  --moe-router-deepseekv3 --moe-router-score-function sigmoid --moe-router-enable-expert-bias True \
  --moe-router-num-groups 8 --moe-router-group-topk 4 \
  --moe-router-topk-scaling-factor 2.5 --moe-router-bias-update-rate 1e-3 --moe-aux-loss-coeff 1e-4 \
  --q-lora-rank 1536 --kv-lora-rank 512 --qk-nope-head-dim 128 --qk-rope-head-dim 64 --v-head-dim 128 \
  --kv-channels 128 --qk-layernorm \
  --use-mcore-models --disable-bias-linear --patch-tokenizer-type DeepSeekTokenizer \
  --tokenizer-model "${TOKENIZER_PATH:-$WORKSPACE/DeepSeek-V3}" --extra-vocab-size 467 --max-padding-length 4096 \
  --swiglu --normalization RMSNorm --norm-epsilon 1e-6 --untie-embeddings-and-output-weights \
  --use-rotary-position-embeddings --no-rope-fusion --position-embedding-type rope --rotary-base 10000 \
  --rotary-scaling-factor 40 --rotary-seq-len-interpolation-factor 1 --rotary-mscale 1.0 --rotary-mscale-all-dim 1.0 \
  --original-max-position-embeddings 4096 --rotary-beta-fast 32 --rotary-beta-slow 1 \
  --num-layers "${NUM_LAYERS:-61}" --hidden-size 7168 --num-attention-heads 128 --ffn-hidden-size 18432 \
  --max-position-embeddings 163840 \
  --no-load-optim --no-load-rng --no-save-optim \
  --data-path "${DATA_PATH:-$datasets/DeepSeek-V3/deepseekv3_text_document}"
