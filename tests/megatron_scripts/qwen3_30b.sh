#!/usr/bin/env bash
# Qwen3-30B-A3B on two nodes, its command in one text for a scheduler.
set -euo pipefail

NODES=${NODES:-2}
EP=${EP:-16}
PP=${PP:-1}
GBS=${GBS:-1024}
RUN=/checkpoints/qwen3_30b_a3b

OPTIONS="
    --distributed-timeout-minutes 60
    --tensor-model-parallel-size 1
    --pipeline-model-parallel-size ${PP}
    --expert-model-parallel-size ${EP}
    --expert-tensor-parallel-size 1
    --context-parallel-size 1
    --use-distributed-optimizer --overlap-grad-reduce --overlap-param-gather
    --use-mcore-models --sequence-parallel --use-flash-attn
    --disable-bias-linear
    --micro-batch-size 1 --global-batch-size ${GBS}
    --train-samples 268554688
    --exit-duration-in-mins 230
    --no-check-for-nan-in-loss-and-grad
    --cross-entropy-loss-fusion --cross-entropy-fusion-impl te
    --manual-gc --manual-gc-interval 10
    --enable-experimental
    --transformer-impl transformer_engine
    --seq-length 4096 --max-position-embeddings 40960
    --tokenizer-type HuggingFaceTokenizer --tokenizer-model /models/Qwen3-30B-A3B
    --make-vocab-size-divisible-by 1187
    --data-path /data/text_document --split 99,1,0 --data-cache-path /data/cache
    --no-create-attention-mask-in-dataloader --no-mmap-bin-files --num-workers 6
    --num-layers 48 --hidden-size 2048 --ffn-hidden-size 6144
    --num-attention-heads 32 --group-query-attention --num-query-groups 4 --kv-channels 128
    --qk-layernorm --position-embedding-type rope --rotary-percent 1.0 --rotary-base 1000000
    --rotary-seq-len-interpolation-factor 1
    --normalization RMSNorm --norm-epsilon 1e-6 --swiglu
    --untie-embeddings-and-output-weights
    --attention-dropout 0.0 --hidden-dropout 0.0
    --clip-grad 1.0 --weight-decay 0.1
    --lr-decay-samples 255126953 --lr-warmup-samples 162761
    --lr 1.2e-4 --min-lr 1.2e-5 --lr-decay-style cosine
    --adam-beta1 0.9 --adam-beta2 0.95
    --num-experts 128 --moe-ffn-hidden-size 768 --moe-router-topk 8 --moe-layer-freq 1
    --moe-router-load-balancing-type aux_loss --moe-aux-loss-coeff 1e-3
    --moe-router-dtype fp32 --moe-router-fusion
    --moe-token-dispatcher-type flex --moe-enable-deepep
    --moe-grouped-gemm --moe-permute-fusion
    --eval-iters 32 --eval-interval 500
    --auto-detect-ckpt-format --use-checkpoint-args
    --save ${RUN} --save-interval 500 --dist-ckpt-strictness log_all
    --init-method-std 0.02
    --log-timers-to-tensorboard --log-memory-to-tensorboard --log-num-zeros-in-grad
    --log-params-norm --log-validation-ppl-to-tensorboard --log-throughput --log-interval 1
    --logging-level 40 --tensorboard-dir ${RUN}/tensorboard
    --wandb-project qwen3 --wandb-exp-name qwen3_30b_a3b --wandb-save-dir ${RUN}/wandb
    --bf16
"
if [ "${PP}" -gt 1 ]; then
    OPTIONS="$OPTIONS --account-for-embedding-in-pipeline-split --account-for-loss-in-pipeline-split"
fi
COMMAND="torchrun --nproc_per_node=8 --nnodes=${NODES} /opt/megatron/pretrain_gpt.py ${OPTIONS}"
srun --ntasks=${NODES} bash -c "${COMMAND}"
