# Sourced by the test_ scripts: the environment that such a script begins with, where nobody set it otherwise.
#
# cut_down SCRIPT SCHEDULE NAME=VALUE...: starts SCRIPT of this folder with 1f1b (the baseline) or dualpipev (expert
# communication hidden behind compute), the fastest attention and grouped products, these variables, and the arguments
# of the script that sources this.
script_arguments=("$@")
cut_down() {
  local script=$1 schedule=$2 dispatcher=allgather_fused setting name
  shift 2
  [ "$schedule" = 1f1b ] || dispatcher=overlap_deepep
  for setting in "$@" TP=1 TPE=1 SCHED="$schedule" TD="$dispatcher" GROUP_GEMM_TE=1 USE_FLASH3=1; do
    name=${setting%%=*}
    export "$name=${!name-${setting#*=}}"  # one that is set to nothing stays so: HPP= goes with VPP
  done
  set -- ${script_arguments[@]+"${script_arguments[@]}"}
  source "$(dirname "${BASH_SOURCE[0]}")/$script"  # not exec: what it says names the script that was started
}
