#!/usr/bin/env bash
# The paper's main table: SFT on EMER, the verifier, GRPO on DFEW and MAFW without and with R_E, each tested on DFEW, MAFW and RAVDESS
# with GPT as the judge. Needs the data and an OpenAI key; `run.sh demo` does the same on the embedded corpus.
# Usage: [LABELS=FILE AUGMENTED=FILE] [PRESET=paper] run.sh [demo] [SEED…] [OVERRIDE…] (default 0).
# PRESET=paper repeats the released code's rules, defects included; the default is fixed.
set -euo pipefail
source "$(dirname "$0")/../common.sh"
arguments 0 "$@"
preset="${PRESET:-fixed}"

if [[ -n "$demo" ]]; then
  group="paper_demo_$preset"
  base_stages
  grid +exp=grpo_demo "group=$group" "preset/grpo=$preset" "+ablation=${ARMS:-no_explanation,full}" \
    "policy.checkpoint=$base/sft" "verifier.model.checkpoint=$base/verifier" policy.preprocessing=null
  sets=(demo) sft="$base/sft" reader=(judge=oracle "verifier.model.checkpoint=$base/verifier")
else
  need emer_cold_start dfew mafw ravdess
  labels
  group="paper_$preset"
  grid +exp=sft_emer "group=$group" "preset/sft=$preset"
  grid +exp=verifier_roberta data=dfew_mafw "group=$group" "preset/verifier=$preset" \
    "verifier.data.files.pseudo=$LABELS" "verifier.data.files.augmented=$AUGMENTED"
  grid +exp=grpo_dfew_mafw "group=$group" "preset/grpo=$preset" "+ablation=${ARMS:-no_explanation,full}"
  sets=(dfew mafw ravdess) sft="$runs/$group/sft" reader=(judge=gpt)
fi

for set in "${sets[@]}"; do
  rules="$preset"
  [[ "$set" != ravdess ]] || rules=fixed # the released code cannot count answers on RAVDESS
  for arm in "$sft" "$runs/$group"/grpo*; do
    evaluate "+exp=eval_$set" "preset/evaluate=$rules" "checkpoint=$arm" "name=$(basename "$arm")" "group=${group}_$set" \
      "${reader[@]}" policy.preprocessing=null # the checkpoint's
  done
done
python -m erv.report "${sets[@]/#/$runs/${group}_}" --table "$table"
