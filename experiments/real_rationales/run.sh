#!/usr/bin/env bash
# R_E on text that people wrote and labelled: for its own label against the others, with every neutral filter and unit.
# Usage: GOEMOTIONS=FOLDER MELD=FILE [EKMAN=FOLDER] [VERIFIER=RUN] run.sh; VERIFIER is the verifier of seven classes that
# experiments/real_verifier trains (default: the one below ERV_RUNS). About two minutes on one core.
set -euo pipefail
source "$(dirname "$0")/../common.sh"
ekman="${EKMAN:-${GOEMOTIONS:-}/ekman}" verifier="${VERIFIER:-$runs/real_verifier/ekman_all}"

missing=()
[[ -f "$ekman/test.tsv" ]] || missing+=("GOEMOTIONS: the folder whose ekman/ has GoEmotions in seven classes; or EKMAN: that folder")
[[ -f "${MELD:-}" ]] || missing+=("MELD: test_sent_emo.csv of declare-lab/MELD")
[[ -d "$verifier" ]] || missing+=("VERIFIER: a run of ARMS=ekman_all experiments/real_verifier/run.sh")
if [[ ${#missing[@]} -gt 0 ]]; then
  echo "$experiment needs labelled text and a verifier trained on it. Set"
  printf '  %s\n' "${missing[@]}"
  exit 1
fi >&2

python experiments/real_rationales/margins.py --verifier "$verifier" --goemotions "$ekman" --meld "$MELD" \
  --table "experiments/$experiment/table.md"
