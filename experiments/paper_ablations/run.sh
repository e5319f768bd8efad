#!/usr/bin/env bash
# Every ablation of conf/ablation: what GRPO is rewarded for and how, and what its verifier was trained on. Each arm of the verifier
# trains a policy as well. Needs the data; `run.sh demo` does the same on the embedded corpus, but for what needs other encoders or
# augmented sentences (experiments/verifier).
# Usage: [LABELS=FILE AUGMENTED=FILE] [ARMS=full,no_filter] [VERIFIERS=noise_30] run.sh [demo] [SEED…] [OVERRIDE…] (default 0).
set -euo pipefail
source "$(dirname "$0")/../common.sh"
arguments 0 "$@"
arms=full,no_explanation,no_filter,document,window_1,window_2,threshold_005,threshold_020,top_k_1,top_k_3
arms+=,weight_050,weight_200,beta_0,group_16

if [[ -n "$demo" ]]; then
  arms="${ARMS:-$arms,group_4}" verifiers="${VERIFIERS-noise_10,noise_30}" group=ablations_demo
  base_stages
  policy=(+exp=grpo_demo "group=$group" "policy.checkpoint=$base/sft")
  verifier=(+exp=verifier_demo "group=$group") full="$base/verifier" sft="$base/sft"
else
  need emer_cold_start dfew mafw
  labels
  arms="${ARMS:-$arms,group_8}" group=ablations
  verifiers="${VERIFIERS-no_augmentation,noise_10,noise_30,roberta_large,bert_large,deberta_v3_base,xlmr_base}"
  policy=(+exp=grpo_dfew_mafw "group=$group" judge=gpt)
  verifier=(+exp=verifier_roberta data=dfew_mafw "group=$group" "verifier.data.files.pseudo=$LABELS"
    "verifier.data.files.augmented=$AUGMENTED")
  full="$runs/$group/verifier" sft="$runs/$group/sft"
  grid +exp=sft_emer "group=$group"
  grid "${verifier[@]}"
fi

grid "${policy[@]}" "+ablation=$arms" "verifier.model.checkpoint=$full"
if [[ -n "$verifiers" ]]; then
  grid "${verifier[@]}" "+ablation=$verifiers"
  for arm in ${verifiers//,/ }; do # a verifier that is worse on purpose does not pass its gate
    name="$(sed -n 's/^name: //p' "conf/ablation/$arm.yaml")"
    grid "${policy[@]}" "name=grpo_erv_${name#verifier_}" "verifier.model.checkpoint=$runs/$group/$name" verifier.gate=null
  done
fi

mapfile -t before < <([[ -z "$demo" ]] || of_seeds "$sft")
python -m erv.report "${before[@]}" "$runs/$group" --baseline grpo_erv --table "$table"
