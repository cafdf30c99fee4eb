# Sourced by the convert-*.sh: one layout's files from a Hugging Face model, and a Hugging Face model from them.
source "$(dirname "${BASH_SOURCE[0]}")/workspace.sh"
[ $# = 0 ] || fail 2 "unknown argument $1; variables say what is otherwise: QWEN3_SFT_WORKSPACE, HF_PATH, RELEASE_PATH"

# hf_to_megatron TP TPE EP PP: into the layout's folder. SCHED (or SCHD) and HPP are those of training.
hf_to_megatron() {
  local program folder
  source "$examples/schedule.sh"
  program=$(find_moetron "${PROJECT_PATH:-$examples/..}")
  folder=$(layout_folder "$@")
  is_hf "$hf" || fail 3 "HF_PATH: $hf holds no model (no config.json); download it first, or name another folder"
  echo "$(basename "$0"): these files are for Megatron, in this one layout; training needs none of them: it reads" \
    "LOAD_PATH=$hf in every layout"
  exec "$program" convert --load-path "$hf" --save-path "$folder" --from hf --to megatron \
    --tp-size "$1" --tpe-size "$2" --ep-size "$3" --pp-size "$4" \
    ${schedule_arguments[@]+"${schedule_arguments[@]}"}
}

# megatron_to_hf TP TPE EP PP: what training has saved in the layout's folder last, or else the Megatron files there.
# A release that is there already is kept beside the new one, under a name with the time.
megatron_to_hf() {
  local program folder newest kept= code=0 from
  program=$(find_moetron "${PROJECT_PATH:-$examples/..}")
  folder=${SAVE_PATH:-$(layout_folder "$@")}
  newest=$(newest_step "$folder")
  if [ -n "$newest" ]; then
    from=(--load-path "$newest" --from hf)
    echo "$(basename "$0"): converts what training has saved last, $newest"
  elif is_megatron "$folder"; then
    from=(--load-path "$folder" --from megatron)
    echo "$(basename "$0"): converts the Megatron files in $folder, for no training has saved there"
  else
    fail 3 "SAVE_PATH: $folder holds neither a checkpoint of training nor Megatron files; train first (docs/qwen3_sft.md)"
  fi
  if [ -e "$release" ]; then
    kept=${release}_until_$(date +%Y%m%d%H%M%S)
    mv -T "$release" "$kept"
    echo "$(basename "$0"): the release that was there is kept as $kept"
  fi
  "$program" convert "${from[@]}" --save-path "$release" --to hf || code=$?
  if [ "$code" != 0 ]; then
    [ -z "$kept" ] || mv -T "$kept" "$release"
    exit "$code"
  fi
}
