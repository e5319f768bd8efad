#!/usr/bin/env bash
# Ratios of engines on the same work: rounds alternate between them, and what is printed are medians of the rounds' ratios.
#   bash experiments/speed/compare.sh            # every comparison of notes.md, 6 rounds, one thread
#   ROUNDS=2 STEPS=1 bash experiments/speed/compare.sh trl-4x8
# PYTHON must have the extra `bench` (TRL).
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON="${PYTHON:-python}" ROUNDS="${ROUNDS:-6}" STEPS="${STEPS:-3}"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
results="$(mktemp -d)"
trap 'rm -rf "$results"' EXIT

compare() { # name, other engine, arguments of grpo_step.py
  local name="$1" other="$2" round engine
  shift 2
  [[ -z "${WANTED:-}" || " $WANTED " == *" $name "* ]] || return 0
  for round in $(seq "$ROUNDS"); do
    for engine in erv "$other"; do
      "$PYTHON" experiments/speed/grpo_step.py --engine "$engine" --steps "$STEPS" --threads 1 --json "$@" 2>/dev/null |
        tail -n 1 >>"$results/$name.$engine"
    done
    echo "$name: round $round of $ROUNDS" >&2
  done
  "$PYTHON" experiments/speed/grpo_ratios.py "$name" "$results/$name.erv" "$results/$name.$other"
}

WANTED="$*"
echo "$(date +%F), $(uname -sm), $(grep -m 1 'model name' /proc/cpuinfo | cut -d: -f2 | xargs), 1 thread, $ROUNDS rounds of $STEPS steps"
compare trl-4x8 trl --prompts 4 --group 8 --prompt-len 256 --completion-len 64
compare trl-4x8-in-4 trl --prompts 4 --group 8 --prompt-len 256 --completion-len 64 --micro-prompts 1
compare trl-1x8 trl --prompts 1 --group 8 --prompt-len 1024 --completion-len 96
compare released-text released --prompts 4 --group 8 --prompt-len 256 --completion-len 64
for group in 4 8 16; do
  compare "released-clips-$group" released --model humanomni --prompts 4 --group "$group" --completion-len 64
done
