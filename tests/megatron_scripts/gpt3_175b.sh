#!/bin/bash
# GPT-3 with 175 billion parameters: learned positions, biases and dropout, which Moetron's models do not have.
GPUS_PER_NODE=8
NUM_NODES=16
WORLD_SIZE=$(($GPUS_PER_NODE*$NUM_NODES))

CHECKPOINTS=$1 # <path>
TENSORBOARD=$2
VOCABULARY=$3
MERGES=$4
DATA=$5

LAUNCH=(
    --nproc_per_node $GPUS_PER_NODE
    --nnodes $NUM_NODES
    --master_addr localhost
    --master_port 6000
)
MODEL=(
    --num-layers 96
    --hidden-size 12288
    --num-attention-heads 96
    --seq-length 2048
    --max-position-embeddings 2048
    --attention-backend auto # flash, fused, unfused or local
)
TRAINING=(
    --micro-batch-size 1
    --global-batch-size 1536
    --rampup-batch-size 16 16 5859375
    --train-iters 500000
    --weight-decay 0.1
    --adam-beta1 0.9
    --adam-beta2 0.95
    --init-method-std 0.006
    --clip-grad 1.0
    --fp16
    --initial-loss-scale 65536
    --lr 6.0e-5
    --lr-decay-style cosine
    --min-lr 6.0e-6
    --lr-warmup-fraction .001
    --lr-decay-iters 430000
)
LAYOUT=(
	--tensor-model-parallel-size 8
	--pipeline-model-parallel-size 16
)
FILES=(
    --data-path $DATA
    --vocab-file $VOCABULARY
    --merge-file $MERGES
    --tokenizer-type GPT2BPETokenizer
    --split 949,50,1
)
LOGS=(
    --log-interval 100
    --save-interval 10000
    --eval-interval 1000
    --save $CHECKPOINTS
    --load $CHECKPOINTS
    --eval-iters 10
    --tensorboard-dir $TENSORBOARD
    --accumulate-allreduce-grads-in-fp32
    --attention-softmax-in-fp32
    --no-gradient-accumulation-fusion
)

torchrun ${LAUNCH[@]} pretrain_gpt.py \
    ${MODEL[@]} \
    ${TRAINING[@]} \
    ${LAYOUT[@]} \
    ${FILES[@]} \
    ${LOGS[@]}
