#!/usr/bin/env bash
# SFT on the picture alone and on the voice alone, beside SFT on both (experiments/demo_seeds, run first).
# Usage: run.sh [demo] [SEED…] [OVERRIDE…] (default 0 1 2).
set -euo pipefail
source "$(dirname "$0")/../common.sh"
arguments 0,1,2 "$@"

from=("policy.checkpoint=$base/towers" "verifier.model.checkpoint=$base/verifier")
grid +exp=sft_demo group=modalities "${from[@]}" name=sft_picture 'media.modalities=[video]'
grid +exp=sft_demo group=modalities "${from[@]}" name=sft_voice 'media.modalities=[audio]'

mapfile -t both < <(of_seeds "$base/sft")
python -m erv.report "${both[@]}" "$runs/modalities" --baseline sft --table "$table"
