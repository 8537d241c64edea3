#!/usr/bin/env bash
# Encode one piece of the plan: the script of an array job. No scheduler is needed.
#
#   sbatch --array=0-9 deploy/slurm/array_job.sh WORK SIZE
#
# SIZE is how many tasks one job takes, or a file with what `dicomdask plan --json`
# prints: then the jobs share all tasks evenly. A job that was lost is submitted again:
# what has a receipt is not done twice.
set -euo pipefail

work=${1:?the work directory}
size=${2:?how many tasks one job takes, or the file that dicomdask plan --json printed}
number=${SLURM_ARRAY_TASK_ID:?submit this script as an array job}

if [ -f "$size" ]; then
  tasks=$(sed -n 's/^ *"tasks": *\([0-9]*\).*/\1/p' "$size")
  jobs=${SLURM_ARRAY_TASK_COUNT:?submit this script as an array job}
  size=$(((${tasks:?"$size names no number of tasks"} + jobs - 1) / jobs))
fi
start=$((number * size))
exec dicomdask encode --work "$work" --scheduler synchronous \
  --task-range "$start:$((start + size))"
