#!/usr/bin/env bash
# The memory that an update of SFT and of GRPO adds: the doctor's estimate beside what was measured on the CPU. Five CPU minutes
# and 11 GB for the 0.5B shape; with demo the tiny policy alone. Nothing is trained to the end, so that neither a seed nor an
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
  if [[ -z "$demo" ]]; then
    for checkpointing in "" _checkpointing; do # a process each, which gives its memory back
      "${step[@]}" --policy humanomni_0_5b --cases "sft$checkpointing" --clips 4 --tokens 32
      "${step[@]}" --policy humanomni_0_5b --cases "grpo$checkpointing" --clips 2 --tokens 64
    done
  fi
} >"$table"
cat "$table"
