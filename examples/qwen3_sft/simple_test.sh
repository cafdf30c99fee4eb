#!/bin/bash
# Lets a model continue a prompt, greedily: a short look at whether its weights and tokenizer are sound.
#   simple_test.sh [--load-path DIR] [--prompt TEXT]
# DIR is any Hugging Face directory; without it, qwen3_30b_a3b_hf_release under QWEN3_SFT_WORKSPACE.
set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
source "$checkout/scripts/find_moetron.sh"
folder=${QWEN3_SFT_WORKSPACE:-/mnt/public/example_qwen3_sft}/qwen3_30b_a3b_hf_release
prompt="Give me a short introduction to large language models."
while [ $# -gt 0 ]; do
  case $1 in
    --load-path) folder=${2:?--load-path needs a folder} ;;
    --prompt) prompt=${2:?--prompt needs a text} ;;
    *)
      echo "$(basename "$0"): unknown option $1; there are --load-path and --prompt" >&2
      exit 2
      ;;
  esac
  shift 2
done
program=$(find_moetron "${PROJECT_PATH:-$checkout}")
exec "$program" generate --load "$folder" --prompt "$prompt" --greedy --max-new-tokens 64
