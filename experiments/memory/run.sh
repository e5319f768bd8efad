#!/usr/bin/env bash
# The memory that an update of SFT and of GRPO adds: the doctor's estimate beside what was measured on the CPU. About ten minutes
# and 16 GB for the 0.5B shape; with demo the tiny policy alone. Nothing is trained to the end, so that neither a seed nor an
# override changes the figures; with an override, the table is written beside the runs.
# Usage: run.sh [demo] [OVERRIDE…]
set -euo pipefail
source "$(dirname "$0")/../common.sh"
arguments 0 "$@"
mkdir -p "$(dirname "$table")"
step=(python experiments/memory/step.py)
{
  "${step[@]}" --header
  "${step[@]}" --policy tiny
  "${step[@]}" --policy tiny --precision bf16-mixed
  [[ -n "$demo" ]] || "${step[@]}" --policy humanomni_0_5b --clips 2 --tokens 32
} >"$table"
cat "$table"
