#!/usr/bin/env bash
# Encode without a scheduler of ours: each job of an array takes a piece of the plan.
#
#   dicomdask index /data/export --work /scratch/work      # prints nothing of a patient
#   dicomdask plan /data/chest.zarr --work /scratch/work   # prints how many tasks
#   sbatch --array=0-9 deploy/array_job.sh /scratch/work 100
#   dicomdask commit --work /scratch/work                  # names tasks that are missing
#
# A job that was lost is simply submitted again: what has a receipt is not done twice.
set -euo pipefail

work=${1:?the work directory}
size=${2:?how many tasks one job takes}
number=${SLURM_ARRAY_TASK_ID:?submit this script as an array job}

start=$((number * size))
exec dicomdask encode --work "$work" --scheduler synchronous \
  --task-range "$start:$((start + size))"
