#!/bin/bash
# Llama 3 with 8 billion parameters, counted in samples; without arguments on made-up data, as a benchmark.
CHECKPOINTS=${1:-"checkpoints/llama3_8b"}
TENSORBOARD=${2:-"tensorboard_logs/llama3_8b"}
TOKENIZER=${3:-"MOCK"} # a folder, or MOCK
DATA=${4:-"MOCK"}
PRECISION=${PRECISION:-bf16}

mkdir -p "$(dirname "$CHECKPOINTS")"
GPUS_PER_NODE=8
NUM_NODES=1
PROGRAM="pretrain_gpt.py"
TP_SIZE=1
MICRO_BATCH_SIZE=1
GLOBAL_BATCH_SIZE=128
NUM_LAYERS=32
SEQ_LENGTH=8192
CACHE="${PWD}/cache_llama3_8b"

LAUNCH=(
    --nproc_per_node $GPUS_PER_NODE
    --nnodes $NUM_NODES
    --node_rank 0
)
MODEL=(
    --use-mcore-models
    --num-layers $NUM_LAYERS
    --hidden-size 4096
    --ffn-hidden-size 14336
    --num-attention-heads 32
    --group-query-attention
    --num-query-groups 8
    --kv-channels 128
    --seq-length $SEQ_LENGTH
    --max-position-embeddings $SEQ_LENGTH
    --normalization RMSNorm
    --position-embedding-type rope
    --rotary-base 1000000
    --rotary-percent 1.0
    --attention-dropout 0.0
    --hidden-dropout 0.0
    --swiglu
    --init-method-std 0.0134
    --attention-backend fused
    --untie-embeddings-and-output-weights
    --disable-bias-linear
)
TRAINING=(
    --micro-batch-size $MICRO_BATCH_SIZE
    --global-batch-size $GLOBAL_BATCH_SIZE
    --train-samples 1953125000
    --lr-decay-samples 1949218748
    --lr-warmup-samples 3906252
    --lr 0.00015
    --min-lr 0.00001
    --lr-decay-style cosine
    --clip-grad 1.0
    --weight-decay 0.1
    --adam-beta1 0.9
    --adam-beta2 0.95
    --bf16
    --grad-reduce-in-bf16
    --cross-entropy-loss-fusion
    --calculate-per-token-loss
    --manual-gc
    --empty-unused-memory-level 1
    --exit-duration-in-mins 235
)
PRECISION_ARGS=()
if [[ "$PRECISION" == "fp8" ]]; then
    PRECISION_ARGS+=(
        "--fp8-format hybrid"
        "--fp8-amax-history-len 1024"
        "--fp8-amax-compute-algo max"
        "--fp8-param-gather"
    )
fi
LAYOUT=(
    --tensor-model-parallel-size $TP_SIZE
    --context-parallel-size 1
    # --pipeline-model-parallel-size 1 is the default
    --sequence-parallel
)
OVERLAP=(
    --use-distributed-optimizer
    --overlap-grad-reduce
    --overlap-param-gather
)
TRAINING+=("${OVERLAP[@]}")

FILES=()
if [[ "$TOKENIZER" == "MOCK" ]] || [[ "$DATA" == "MOCK" ]] || [[ -z "$TOKENIZER" ]]; then
    FILES+=(
        "--mock-data"
        "--tokenizer-type NullTokenizer"
        "--vocab-size 128256"
        "--data-cache-path ${CACHE}"
        "--tiktoken-pattern v2"
        "--split '99,1,0'"
        "--no-create-attention-mask-in-dataloader"
        "--no-mmap-bin-files"
        "--num-workers 1"
    )
else
    FILES+=(
        "--data-path $DATA"
        "--tokenizer-type HuggingFaceTokenizer"
        "--tokenizer-model $TOKENIZER"
        "--data-cache-path ${CACHE}"
        "--split '99,1,0'"
        "--num-workers 1"
    )
fi
LOGS=(
    --log-interval 1
    --eval-iters 32
    --eval-interval 100
    --save-interval 1000
    --log-throughput
    --log-params-norm
    --log-num-zeros-in-grad
    --profile
    --profile-step-start 4
    --profile-step-end 6
    --ckpt-format torch_dist
    --distributed-timeout-minutes 60
    --save "$CHECKPOINTS"
    --load "$CHECKPOINTS"
    --tensorboard-dir "$TENSORBOARD"
)

if [ ! -f "$PROGRAM" ]; then
    echo "no $PROGRAM here"
fi
torchrun "${LAUNCH[@]}" \
    "$PROGRAM" \
    ${MODEL[@]} \
    ${TRAINING[@]} \
    ${PRECISION_ARGS[@]} \
    ${LAYOUT[@]} \
    ${FILES[@]} \
    ${LOGS[@]} 2>&1 | tee llama3_8b.log
