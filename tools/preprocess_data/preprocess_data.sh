#!/bin/bash
# Turns WuDao's JSON files into token files: title and content of each record are joined, cleaned (docs/preprocess.md)
# and tokenized, and every document ends with the end-of-document token. It needs no GPU. Environment:
#   WUDAO_DATA_PATH       the folder (or file) of the records; required
#   TOKENIZER_PATH        the folder of tokenizer.json; required
#   OUTPUT_FILE           what the output's names begin with: OUTPUT_FILE_text_document.bin and .idx; required
#   WORKSHOP_PATH         the checkout whose moetron runs (this one)
#   PATCH_TOKENIZER_TYPE  DeepSeekTokenizer or Qwen3Tokenizer (DeepSeekTokenizer)
#   EXTRA_VOCAB_SIZE      as the training has it (467, with Qwen3Tokenizer 293); token files do not depend on it
#   EXTRA_ARGS            more options of moetron preprocess, such as --skip-bad-lines
set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
source "$checkout/scripts/find_moetron.sh"
need_variables "WUDAO_DATA_PATH=WuDaoCorpus2.0_base_sample TOKENIZER_PATH=DeepSeek-V3 OUTPUT_FILE=wudao" \
  WUDAO_DATA_PATH TOKENIZER_PATH OUTPUT_FILE
tokenizer=${PATCH_TOKENIZER_TYPE:-DeepSeekTokenizer}
extra=467
[ "$tokenizer" != Qwen3Tokenizer ] || extra=293
program=$(find_moetron "${WORKSHOP_PATH:-$checkout}")
read -rd '' -a more <<<"${EXTRA_ARGS:-}" || true  # of several lines, too

exec "$program" preprocess --from wudao --clean --input "$WUDAO_DATA_PATH" --append-eod --workers "$(nproc)" \
  --tokenizer-model "$TOKENIZER_PATH" --patch-tokenizer-type "$tokenizer" \
  --extra-vocab-size "${EXTRA_VOCAB_SIZE:-$extra}" --output-prefix "$OUTPUT_FILE" ${more[@]+"${more[@]}"}
