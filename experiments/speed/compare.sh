#!/usr/bin/env bash
# Ratios of engines on the same work: rounds alternate between ours (A) and another (B); medians of the rounds' ratios B/A.
#   bash experiments/speed/compare.sh                                       # every comparison of notes.md, 6 rounds
#   ROUNDS=2 STEPS=1 bash experiments/speed/compare.sh trl-4x8 clips-8      # some of them
# PYTHON is a Python with the extra `bench` (TRL).
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON="${PYTHON:-python}" ROUNDS="${ROUNDS:-6}" STEPS="${STEPS:-2}" WANTED="$*"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

compare() { # name, other engine, arguments of grpo_step.py
  local name="$1" other="$2" step="$PYTHON experiments/speed/grpo_step.py --threads 1 --json --steps $STEPS"
  shift 2
  [[ -z "$WANTED" || " $WANTED " == *" $name "* ]] || return 0
  printf '\n%s: A = erv, B = %s\n' "$name" "$other"
  "$PYTHON" experiments/speed/alternate.py --rounds "$ROUNDS" "$step --engine erv $*" "$step --engine $other $*"
}

echo "$(date +%F), $(uname -sm), $(grep -m 1 'model name' /proc/cpuinfo | cut -d: -f2 | xargs), 1 thread, $ROUNDS rounds of $STEPS steps"
compare trl-4x8 trl --prompts 4 --group 8 --prompt-len 256 --completion-len 64
compare trl-1x8 trl --prompts 1 --group 8 --prompt-len 1024 --completion-len 96
for group in 4 8 16; do
  compare "clips-$group" released --model humanomni --prompts 4 --group "$group" --completion-len 64
done
compare trl-4x8-in-4 trl --prompts 4 --group 8 --prompt-len 256 --completion-len 64 --micro-prompts 1
compare released-text released --prompts 4 --group 8 --prompt-len 256 --completion-len 64
