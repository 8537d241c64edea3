#!/usr/bin/env bash
# Convert with array jobs: index, plan, encode by JOBS jobs, commit. Each waits for the
# one before, and nothing runs outside a job. The same command resumes.
#
#   deploy/slurm/submit_array.sh JOBS WORK STORE SRC... [-- OPTIONS OF dicomdask plan]
#
# Partition, account, time and memory are sbatch's own variables: SBATCH_PARTITION,
# SBATCH_ACCOUNT, SBATCH_TIMELIMIT, SBATCH_MEM_PER_NODE. CPUS is how many cores index
# and plan take (4); a job of the array takes one. Logs go to ./dicomdask-slurm.
set -euo pipefail

usage="usage: submit_array.sh JOBS WORK STORE SRC... [-- OPTIONS OF dicomdask plan]"
cpus=${CPUS:-4} jobs=${1:?"$usage"} work=${2:?"$usage"} store=${3:?"$usage"}
shift 3
sources=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  sources+=("$1")
  shift
done
[ "${1:-}" != -- ] || shift
[ ${#sources[@]} -gt 0 ] || { echo "$usage" >&2 && exit 2; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
logs=$PWD/dicomdask-slurm
mkdir -p -m 700 "$logs"
plan=$logs/plan.$$.json

quoted() { printf '%q ' "$@"; }

submit() { # STEP OPTIONS...: prints the number of the job; its script is the input
  local step=$1
  shift
  sbatch --parsable --requeue --kill-on-invalid-dep=yes \
    --job-name="dicomdask-$step" --output="$logs/%x-%j.log" "$@" | cut -d ';' -f 1
}

job() { # a script of one command
  printf '#!/usr/bin/env bash\nexec %s\n' "$*"
}

index=$(job "$(quoted dicomdask index "${sources[@]}" --work "$work")" |
  submit index --cpus-per-task="$cpus")
plans=$(job "$(quoted dicomdask plan "$store" --work "$work" --json "$@") >$(quoted "$plan")" |
  submit plan --cpus-per-task="$cpus" --dependency="afterok:$index")
encode=$(submit encode --dependency="afterok:$plans" \
  --array="0-$((jobs - 1))" --output="$logs/%x-%A_%a.log" \
  "$here/array_job.sh" "$work" "$plan")
# The commit itself says which tasks are missing, so it also follows a failed array.
commit=$(job "$(quoted dicomdask commit --work "$work")" |
  submit commit --dependency="afterok:$plans,afterany:$encode")

echo "index $index, plan $plans, encode $encode ($jobs jobs), commit $commit"
echo "watch: squeue --me; tail -f $logs/dicomdask-commit-$commit.log"
