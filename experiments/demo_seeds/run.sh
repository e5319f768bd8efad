#!/usr/bin/env bash
# Five seeds, each with clips of its own; further arms: no neutral filter, and no KL term (the gaming case).
# Usage: run.sh [SEED…] (default 0 1 2 3 4). About ten minutes a seed on two cores; interrupted, it goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/../.."
source experiments/side_by_side.sh

[[ $# -gt 0 ]] || set -- 0 1 2 3 4
for seed in "$@"; do
  common="seed=$seed group=demo_seeds"
  side_by_side "+exp=towers_demo $common" "+exp=verifier_demo $common"
  train +exp=sft_demo "seed=$seed" group=demo_seeds
  side_by_side "+exp=grpo_demo $common" "+exp=grpo_demo name=grpo reward=format_answer $common"
  side_by_side \
    "+exp=grpo_demo name=grpo_erv_nofilter reward.explanation.neutral_filter=false $common" \
    "+exp=grpo_demo name=grpo_erv_beta0 algo.objective.beta=0 $common"
done

runs="${ERV_RUNS:-runs}/demo_seeds"
python -m erv.report "$runs" --table experiments/demo_seeds/table.md --html "$runs/report.html"
python experiments/demo_seeds/figure.py "$runs" experiments/demo_seeds/figure.svg
