#!/bin/bash
# [LR=1e-3] fp8_twins.sh MOETRON OUT STEPS: trains two small models in bf16, in bf16 with another order of addition, and in FP8, all six at
# once on one GPU, on the text of the demo (scripts/demo_text.py), and compares the losses. benchmarks/h200.md has the figures.
set -euo pipefail
M=$(realpath "$1") OUT=$(realpath -m "$2") STEPS=$3 LR=${LR:-1e-3}
mkdir -p "$OUT"
cd "$(dirname "$0")/.."
[ -e demo/text/.complete ] || python3 scripts/demo_text.py demo/text
"$M" preprocess --input demo/text --tokenizer bytes --output-prefix "$OUT/text" --append-eod
RUN="--seq-length 1024 --micro-batch-size 8 --global-batch-size 16 --train-iters $STEPS --lr $LR --lr-warmup-iters 100
  --lr-decay-style cosine --min-lr 1e-4 --weight-decay 0.1 --clip-grad 1.0 --adam-beta2 0.95 --eval-interval 100000
  --eval-iters 0 --split 100,0,0 --log-interval 1 --seed 7 --tokenizer bytes --data-path $OUT/text_text_document
  --num-layers 6 --hidden-size 512 --ffn-hidden-size 1536 --num-attention-heads 8 --max-position-embeddings 1024
  --num-experts 32 --moe-router-topk 4 --moe-ffn-hidden-size 256 --untie-embeddings-and-output-weights --num-threads 2"
DEEPSEEK="--model-family deepseek --q-lora-rank 256 --kv-lora-rank 128 --qk-nope-head-dim 64 --qk-rope-head-dim 64
  --v-head-dim 128 --first-k-dense-replace 1 --enable-shared-expert --num-shared-experts 1 --moe-router-deepseekv3
  --moe-router-score-function sigmoid --moe-router-enable-expert-bias --moe-router-topk-scaling-factor 2.5"
QWEN="--model-family qwen --num-query-groups 2 --kv-channels 128 --qk-layernorm --moe-aux-loss-coeff 0.001"
for model in deepseek qwen; do
  [ $model = deepseek ] && SHAPE=$DEEPSEEK || SHAPE=$QWEN
  for kind in bf16 order fp8; do
    case $kind in
      bf16) MORE="--moe-grouped-gemm" ;;
      order) MORE="--deterministic" ;;  # another kernel of the experts' products, attention's sums in a fixed order
      fp8) MORE="--moe-grouped-gemm --fp8-format e4m3" ;;
    esac
    "$M" pretrain $RUN $SHAPE $MORE --metrics "$OUT/$model-$kind.jsonl" > "$OUT/$model-$kind.log" 2>&1 &
  done
done
wait
for model in deepseek qwen; do
  for kind in order fp8; do
    echo "$model: bf16 and $kind"
    "$M" compare-loss "$OUT/$model-bf16.jsonl" "$OUT/$model-$kind.jsonl" --smooth 50 --tolerance 0.0025 \
      --picture "$OUT/$model-$kind.svg" || true
  done
done
