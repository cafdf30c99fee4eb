#!/bin/bash
# The demo: text from Debian packages, a tokenizer, token files, a DeepSeek-V3-style model trained on four ranks
# of this machine, stopped half way and resumed, and its last checkpoint loaded by transformers.
# `make demo` builds what this needs. Everything lies in demo/; delete that folder to begin anew.
#   DEMO_STEPS   training steps (300)
#   DEMO_RANKS   processes (4)
set -euo pipefail
cd "$(dirname "$0")/.."
steps=${DEMO_STEPS:-300}
ranks=${DEMO_RANKS:-4}
python=.venv/bin/python
moetron=build/cpu/moetron
run=demo/run-$steps
began=$SECONDS
export OMP_NUM_THREADS=1  # a rank is one thread; torchrun would set the same, with a warning

title() { printf '\n== %s\n' "$*"; }
# Shows a command as one would type it, then runs it.
show() { printf '$ %s\n' "$*"; "$@"; }

train() {
  show .venv/bin/torchrun --standalone --no-python --nproc_per_node "$ranks" "$moetron" pretrain \
    --config configs/demo_cpu.toml --train-iters "$steps" --lr-decay-iters "$steps" --save "$run"
}

# The last step in the training's log, 0 before the first.
last_step() {
  [ -f "$run/metrics.jsonl" ] || { echo 0; return; }
  tail -n 1 "$run/metrics.jsonl" | sed -n 's/.*"step": *\([0-9]*\).*/\1/p' | grep . || echo 0
}

# Asks the running training of process $1 to stop once it has done half its steps: it saves and ends well.
stop_half_way() {
  while kill -0 "$1" 2>/dev/null; do
    if [ "$(last_step)" -ge $((steps / 2)) ]; then
      show touch "$run/stop"
      return
    fi
    sleep 0.2
  done
}

title "1. Text: two manuals, in English and in Chinese, from Debian packages"
if [ ! -f demo/text/.complete ]; then
  $python scripts/demo_text.py demo/text
  touch demo/text/.complete
else
  du -h --apparent-size demo/text/*.jsonl | sed 's/^/  /'
fi

title "2. Tokenizer: a byte-level BPE, trained on that text"
if [ ! -f demo/tokenizer/tokenizer_config.json ]; then
  $python scripts/demo_tokenizer.py demo/text demo/tokenizer
else
  echo "  demo/tokenizer/tokenizer.json is there"
fi

title "3. Token files"
if [ ! -f demo/data/debian_text_document.idx ]; then
  mkdir -p demo/data
  show $moetron preprocess --input demo/text --tokenizer-model demo/tokenizer \
    --output-prefix demo/data/debian --append-eod --workers 2
else
  echo "  demo/data/debian_text_document.bin is there"
fi

title "4. Training: $steps steps of a DeepSeek-V3-style model on $ranks ranks, stopped half way"
rm -rf "$run"
train &
training=$!
stop_half_way $training
wait $training

title "5. Resume: the same command again"
train

title "6. A sample of what it has learned"
show $moetron generate --load "$run" --prompt "Select the text that you want to" --max-new-tokens 40 --temperature 0.7 --top-p 0.9
show $moetron generate --load "$run" --prompt "如果要打开一个文件，" --max-new-tokens 40 --temperature 0.7 --top-p 0.9

title "7. The checkpoint is a Hugging Face directory: transformers loads it"
newest=$(find "$run" -name config.json -printf '%T@ %h\n' | sort -n | tail -n 1 | cut -d' ' -f2)
$python tests/oracles/checkpoint_oracle.py "$newest" --prompt "The file"

cat <<WORDS

Done in $((SECONDS - began)) s.
  $run/loss.png       the loss of every step, over the stop
  $run/metrics.jsonl  one line a step: loss, gradient norm, tokens per second, ...
  $newest  the model: config.json, safetensors, tokenizer
  demo/data/              the token files, in Megatron's format
Next, you could:
  - change the model or the schedule of the learning rate in configs/demo_cpu.toml and run this again,
  - train on your own text: give moetron preprocess your .jsonl or .txt files,
  - train longer: DEMO_STEPS=2000 make demo
WORDS
