#!/bin/bash
# A small dense model, for docs/from-megatron.md.
ARGS=(
    --num-layers 12 --hidden-size 768 --num-attention-heads 12
    --normalization RMSNorm --swiglu --disable-bias-linear --position-embedding-type rope
    --attention-dropout 0 --hidden-dropout 0
    --seq-length 1024 --max-position-embeddings 1024
    --micro-batch-size 4 --global-batch-size 64
    --train-samples 640000 --lr-warmup-fraction 0.01 --lr 6e-4 --bf16
    --mock-data --tokenizer-type NullTokenizer --vocab-size 50257
    --attention-backend flash --manual-gc --manual-gc-interval 100
    --mtp-num-layers 1
    --save "${RUN:-runs/small}"
)
if [ -n "$PROFILE" ]; then ARGS+=(--profile --profile-step-start 10); fi
torchrun --nproc_per_node 4 pretrain_gpt.py "${ARGS[@]}"
