#!/usr/bin/env bash
# Three times the demo's iterations, with and without the KL term: does the policy learn the emotion or the verifier's mistakes?
# From the SFT model and verifier of experiments/demo_seeds, run first. Usage: run.sh [demo] [SEED…] [OVERRIDE…] (default 0 1).
set -euo pipefail
source "$(dirname "$0")/../common.sh"
arguments 0,1 "$@"

grid +exp=grpo_demo group=gaming +ablation=full,beta_0 algo.iterations=240 \
  "policy.checkpoint=$base/sft" "verifier.model.checkpoint=$base/verifier"

python -m erv.report "$runs/gaming" --baseline grpo_erv --table "$table" --html "$runs/gaming/report.html"
