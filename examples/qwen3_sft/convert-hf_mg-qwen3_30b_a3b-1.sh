#!/bin/bash
# Layout 1, tp1 tpe1 ep2 pp4: Qwen3-30B-A3B as Megatron's files, for who wants them; training needs none.
source "$(dirname "${BASH_SOURCE[0]}")/convert.sh"
hf_to_megatron 1 1 2 4
