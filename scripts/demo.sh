#!/bin/bash
# The demo: text from Debian packages, a tokenizer, token files, a DeepSeek-V3-style model trained on a few ranks of
# this machine, stopped half way and resumed, and its last checkpoint loaded by transformers. `make demo` builds what
# this needs; `moetron demo` runs it from an installation. Everything it makes lies in demo/ of the current folder;
# delete that folder to begin anew.
#   DEMO_STEPS      training steps (300; at least 24, for the learning rate warms up over 20)
#   DEMO_RANKS      processes (4; on GPUs, one for each, and at most 4)
#   MOETRON         the program (what was built, or is installed here)
#   MOETRON_PYTHON  a Python with tokenizers (.venv/bin/python, or python3)
set -euo pipefail
home=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$home/scripts/find_moetron.sh"
moetron=$(find_moetron "$home")
python=${MOETRON_PYTHON:-$(command -v "$home/.venv/bin/python" || command -v python3 || echo python3)}
config=$home/configs/demo_cpu.toml
# Short names in what is shown, where this is the folder of a checkout.
moetron=${moetron#"$PWD/"} python=${python#"$PWD/"} config=${config#"$PWD/"}
steps=${DEMO_STEPS:-300}
run=demo/run-$steps
log=$run.log  # what the training says
began=$SECONDS
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # a rank is one thread

title() { printf '\n== %s\n' "$*"; }
# Shows a command as one would type it, then runs it.
show() { printf '$ %s\n' "$*"; "$@"; }

die() { printf 'demo: %s\n' "$*" >&2; exit "${code:-1}"; }

[[ $steps =~ ^[0-9]{1,9}$ ]] && [ "$((10#$steps))" -ge 24 ] ||
  code=2 die "DEMO_STEPS ($steps) must be a whole number of at least 24"
if [ ! -f demo/tokenizer/tokenizer_config.json ] && ! "$python" -c 'import tokenizers' 2>/dev/null; then
  code=2 die "text and tokenizer need Python with the package tokenizers, and $python is none:" \
    "python3 -m venv demo-python && demo-python/bin/pip install tokenizers, then set MOETRON_PYTHON=demo-python/bin/python"
fi

# On GPUs, where the machine has some and the program can use them.
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)
if [ "$gpus" = 0 ]; then
  echo "demo: on the CPU, for nvidia-smi finds no GPU here"
elif ! ldd "$moetron" | grep libtorch_cuda >/dev/null; then  # with -q ldd might meet a closed pipe
  echo "demo: on the CPU, for $moetron is built without CUDA (make cuda)"
  gpus=0
fi
ranks=${DEMO_RANKS:-$((gpus == 0 || gpus > 4 ? 4 : gpus))}

# Runs a command with its output on the screen and in the log. Under script(1) it still finds a terminal there, on
# which it draws its progress bar.
logged() {
  if [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && command -v script >/dev/null; then
    script --quiet --return --flush --append --command "$(printf '%q ' "$@")" "$log"
  else
    "$@" 2>&1 | tee -a "$log"
  fi
}

# Trains up to the last step or a stop (exit code 75).
train() {
  local status=0 command=("$moetron" launch -n "$ranks" pretrain --config "$config" --train-iters "$steps"
    --lr-decay-iters "$steps" --save "$run")
  printf '$ %s\n' "${command[*]}"
  logged "${command[@]}" || status=$?
  [ "$status" = 0 ] || [ "$status" = 75 ] || code=$status die "the training failed; everything it said is in $log"
}

# The last step in the training's log, 0 before the first.
last_step() {
  [ -f "$run/metrics.jsonl" ] || { echo 0; return; }
  tail -n 1 "$run/metrics.jsonl" | sed -n 's/.*"step": *\([0-9]*\).*/\1/p' | grep . || echo 0
}

# Runs beside the training and asks it to stop once it has done half its steps: it saves and ends well.
stop_half_way() {
  while kill -0 $$ 2>/dev/null; do
    if [ "$(last_step)" -ge $((steps / 2)) ]; then
      show touch "$run/stop"
      return
    fi
    sleep 0.05
  done
}

title "1. Text: two manuals, in English and in Chinese, from Debian packages"
if [ ! -f demo/text/.complete ]; then
  "$python" "$home/scripts/demo_text.py" demo/text
  touch demo/text/.complete
else
  du -h --apparent-size demo/text/*.jsonl | sed 's/^/  /'
fi

title "2. Tokenizer: a byte-level BPE, trained on that text"
if [ ! -f demo/tokenizer/tokenizer_config.json ]; then
  "$python" "$home/scripts/demo_tokenizer.py" demo/text demo/tokenizer
else
  echo "  demo/tokenizer/tokenizer.json is there"
fi

title "3. Token files"
if [ ! -f demo/data/debian_text_document.idx ]; then
  mkdir -p demo/data
  show "$moetron" preprocess --input demo/text --tokenizer-model demo/tokenizer \
    --output-prefix demo/data/debian --append-eod --workers 2
else
  echo "  demo/data/debian_text_document.bin is there"
fi

title "4. Training: $steps steps of a DeepSeek-V3-style model on $ranks ranks, stopped half way"
rm -rf "$run" "$log"
stop_half_way &
watcher=$!
train
stopped=$(last_step)
[ "$stopped" -lt "$steps" ] ||
  die "the training was to stop half way, but ran to its last step, $steps: try a larger DEMO_STEPS"
[ -d "$(printf '%s/step_%07d' "$run" "$stopped")" ] || die "the training stopped after step $stopped and saved no checkpoint"
wait "$watcher"

title "5. Resume: the same command again"
train

title "6. A sample of what it has learned"
if [ "$steps" -lt 300 ]; then
  echo "  After $steps steps expect little more than frequent pieces of words."
elif [ "$steps" = 300 ]; then
  echo "  After 300 steps expect words and phrases of the manuals, and no sense."
fi
show "$moetron" generate --load "$run" --prompt "Select the text that you want to" --max-new-tokens 40 --temperature 0.7 --top-p 0.9
show "$moetron" generate --load "$run" --prompt "如果要打开一个文件，" --max-new-tokens 40 --temperature 0.7 --top-p 0.9

title "7. The checkpoint is a Hugging Face directory: transformers loads it"
newest=$(find "$run" -name config.json -printf '%T@ %h\n' | sort -n | tail -n 1 | cut -d' ' -f2)
if "$python" -c 'import torch, transformers' 2>/dev/null; then
  "$python" "$home/tests/oracles/checkpoint_oracle.py" "$newest" --prompt "The file"
else
  echo "  left out: $python has no transformers (pip install torch transformers)"
fi

title "8. The same model as a pipeline: two schedules, the same bits"
pipeline=demo/pipeline
rm -rf "$pipeline"
mkdir -p "$pipeline"
for scheduler in 1f1b dualpipev; do
  command=("$moetron" launch -n 4 pretrain --config "$config" --device cpu --train-iters 8 --lr-decay-iters 24 --log-interval 4 --eval-iters 0 --micro-batch-size 3
    --pipeline-model-parallel-size 2 --expert-model-parallel-size 2 --scheduler $scheduler
    --profile --profile-step-start 8 --profile-step-end 9 --no-save-optim --save "$pipeline/$scheduler")
  printf '$ %s\n' "${command[*]}"
  "${command[@]}" >"$pipeline/$scheduler.log" 2>&1 || {
    tail -n 40 "$pipeline/$scheduler.log" >&2
    die "the pipeline failed; everything it said is in $pipeline/$scheduler.log"
  }
  grep -E '^(pipeline|profile|  *[0-9]+  )' "$pipeline/$scheduler.log"
done
show "$moetron" compare-loss "$pipeline/1f1b" "$pipeline/dualpipev" --tolerance 0

again="$moetron demo"
[ ! -f Makefile ] || again="make demo"
cat <<WORDS

Done in $((SECONDS - began)) s. Look at
  $run/loss.png  the loss of every step, over the stop
  $run/metrics.jsonl  one line a step: loss, gradient norm, tokens per second, ...
  $newest  the model: config.json, safetensors, tokenizer
  demo/pipeline/dualpipev/profile/step_8.svg  what its two pipeline ranks did in a step

Let it write:
  $moetron generate --load $run --prompt "The file" --max-new-tokens 60 --temperature 0.7
Train its weights further, as a new run:
  $moetron pretrain --config $config --load $newest --lr 1e-3 --train-iters 100 --save demo/further
Train longer from the start:
  DEMO_STEPS=2000 $again
Train on your own text: README.md, "Train on your own text"
WORDS
