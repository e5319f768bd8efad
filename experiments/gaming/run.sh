#!/usr/bin/env bash
# Three times the demo's iterations, with and without the KL term: does the policy learn the emotion or the verifier's mistakes?
# From the SFT model and verifier of experiments/demo_seeds, run first. Usage: run.sh [SEED…] (default 0 1).
set -euo pipefail
cd "$(dirname "$0")/../.."
source experiments/side_by_side.sh
runs="${ERV_RUNS:-runs}"
from="$runs/demo_seeds"

[[ $# -gt 0 ]] || set -- 0 1
for seed in "$@"; do
  common="+exp=grpo_demo seed=$seed group=gaming algo.iterations=240"
  common+=" policy.checkpoint=$from/sft verifier.model.checkpoint=$from/verifier"
  side_by_side \
    "$common name=grpo_erv_240" \
    "$common name=grpo_erv_beta0_240 algo.objective.beta=0"
done

python -m erv.report "$runs/gaming" --baseline grpo_erv_240 --table experiments/gaming/table.md --html "$runs/gaming/report.html"
