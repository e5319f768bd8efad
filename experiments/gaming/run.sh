#!/usr/bin/env bash
# Three times the demo's iterations, with and without the KL term: does the policy learn the emotion or the verifier's mistakes?
# Usage: run.sh [demo] [SEED…] [OVERRIDE…] (default 0 1).
set -euo pipefail
source "$(dirname "$0")/../common.sh"
arguments 0,1 "$@"

base_stages
from=("policy.checkpoint=$base/sft" "verifier.model.checkpoint=$base/verifier")
grid +exp=grpo_demo group=gaming algo.iterations=240 "${from[@]}" name=grpo_erv_240
grid +exp=grpo_demo +ablation=beta_0 group=gaming algo.iterations=240 "${from[@]}" name=grpo_erv_beta0_240

python -m erv.report "$runs/gaming" --baseline grpo_erv_240 --table "$table" --html "$runs/gaming/report.html"
