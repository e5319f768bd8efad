#!/usr/bin/env bash
# Five seeds, each with clips of its own; further arms: no neutral filter, and no KL term (the gaming case).
# Usage: run.sh [demo] [SEED…] [OVERRIDE…] (default 0 1 2 3 4). About ten minutes a seed on two cores.
set -euo pipefail
source "$(dirname "$0")/../common.sh"
arguments 0,1,2,3,4 "$@"

base_stages
grid +exp=grpo_demo group=demo_seeds "+ablation=${ARMS:-full,no_explanation,no_filter,beta_0}"

python -m erv.report "$runs/demo_seeds" --table "$table" --html "$runs/demo_seeds/report.html"
python experiments/demo_seeds/figure.py "$runs/demo_seeds" "$(dirname "$table")/figure.svg"
