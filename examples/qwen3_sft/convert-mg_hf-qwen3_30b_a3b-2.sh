#!/bin/bash
# Layout 2, tp1 tpe1 ep1 pp8: what was trained, as a Hugging Face model in qwen3_30b_a3b_hf_release.
source "$(dirname "${BASH_SOURCE[0]}")/convert.sh"
megatron_to_hf 1 1 1 8
