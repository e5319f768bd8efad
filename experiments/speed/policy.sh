#!/usr/bin/env bash
# HumanOmni's forward and backward against a plain composition of the same modules; figures in notes.md. About 20 minutes.
set -euo pipefail
cd "$(dirname "$0")"
python="${PYTHON:-python}"
forward() { # policy, clips, steps, rounds
  local same="--policy $1 --clips $2 --steps $3"
  echo "$1, $2 clips"
  "$python" alternate.py --rounds "$4" "$python policy_forward.py --engine erv $same" "$python policy_forward.py --engine plain $same"
}
forward tiny 1 20 6
forward tiny 16 20 6
forward humanomni_0_5b 2 1 3
