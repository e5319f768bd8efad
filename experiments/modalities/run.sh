#!/usr/bin/env bash
# SFT on the picture alone and on the voice alone, beside SFT on both (experiments/demo_seeds, run first).
# Usage: run.sh [SEED…] (default 0 1 2).
set -euo pipefail
cd "$(dirname "$0")/../.."
source experiments/side_by_side.sh
runs="${ERV_RUNS:-runs}"
from="$runs/demo_seeds"

[[ $# -gt 0 ]] || set -- 0 1 2
both=()
for seed in "$@"; do
  common="+exp=sft_demo seed=$seed group=modalities"
  common+=" policy.checkpoint=$from/towers verifier.model.checkpoint=$from/verifier"
  side_by_side \
    "$common name=sft_picture media.modalities=[video]" \
    "$common name=sft_voice media.modalities=[audio]"
  for run in "$from"/sft/*/; do
    if grep -q "^seed: $seed$" "$run/config.yaml"; then both+=("$run"); fi
  done
done

python -m erv.report "${both[@]}" "$runs/modalities" --baseline sft --table experiments/modalities/table.md
