# Sourced by scripts that train or convert: the pipeline schedule, and the layers of its stages, as arguments.
#
# SCHED (or SCHD) is a --scheduler, 1f1b unless set. HPP holds the layers of each stage, such as "5 6 6 5": one stage a
# rank under 1f1b, two under dualpipev.
SCHED=${SCHED:-${SCHD:-1f1b}}
schedule_arguments=()
[ "$SCHED" = 1f1b ] || schedule_arguments+=(--scheduler "$SCHED")
if [ -n "${HPP:-}" ]; then
  read -ra stages <<<"$HPP"
  if [ "$SCHED" = 1f1b ]; then
    schedule_arguments+=(--hetero-pipeline-stages "${stages[@]}")
  else
    schedule_arguments+=(--virtual-hetero-pipeline-stages "${stages[@]}")
  fi
fi
