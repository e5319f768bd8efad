#!/usr/bin/env bash
# A verifier from a pretrained encoder on text that people wrote and labelled: GoEmotions with all rows in 7 and in 28 classes
# (arms ekman_all, goemotions_all), MELD as a test set that it was not trained for (arm meld), and one setting at a time on the
# first 8,000 training rows (arms pooling, loss, balance, noise).
# Usage: MINILM=FOLDER GOEMOTIONS=FOLDER [EKMAN=FOLDER] [MELD=FILE] [ARMS=ekman_all,pooling] run.sh [SEED…] [OVERRIDE…] (default 0).
set -euo pipefail
source "$(dirname "$0")/../common.sh"
arguments 0 "$@"
devices="${DEVICES:-[0]}" group=real_verifier
arms=",${ARMS:-ekman_all,goemotions_all,meld,pooling,loss,balance,noise},"

missing=()
[[ -n "${MINILM:-}" ]] || missing+=("MINILM: sentence-transformers/all-MiniLM-L6-v2, as this hub id or as a folder with its files")
[[ -f "${GOEMOTIONS:-}/train.tsv" ]] ||
  missing+=("GOEMOTIONS: the folder of GoEmotions' train.tsv, dev.tsv, test.tsv and labels.txt (monologg/GoEmotions-pytorch, data/original)")
ekman="${EKMAN:-${GOEMOTIONS:-}/ekman}"
[[ -f "$ekman/train.tsv" ]] || missing+=("EKMAN: the same files in seven classes (data/ekman there; default: GOEMOTIONS/ekman)")
[[ "$arms" != *,meld,* || -f "${MELD:-}" ]] || missing+=("MELD: test_sent_emo.csv of declare-lab/MELD; or leave meld out of ARMS")
if [[ ${#missing[@]} -gt 0 ]]; then
  echo "$experiment needs a pretrained encoder and labelled text. Set"
  printf '  %s\n' "${missing[@]}"
  exit 1
fi >&2

verifier=(+exp=verifier_roberta data=labels "group=$group" trainer=cpu "verifier.model.checkpoint=$MINILM"
  verifier.data.augmentation=false verifier.data.on_unknown=skip algo.batch_size=32 algo.epochs=2 checkpoint.every=200)
seven=('data.taxonomy=[anger,disgust,fear,joy,neutral,sadness,surprise]' "verifier.data.files.goemotions=$ekman")
first=("${seven[@]}" name=ekman_8k optim.lr=2e-4 verifier.data.limit=8000 trainer.val_check_interval=500)

want() { [[ "$arms" == *",$1,"* ]]; }

if want ekman_all; then grid "${verifier[@]}" "${seven[@]}" name=ekman_all optim.lr=1e-4 trainer.val_check_interval=600; fi
if want goemotions_all; then
  grid "${verifier[@]}" data.taxonomy=goemotions "verifier.data.files.goemotions=$GOEMOTIONS" name=goemotions_all optim.lr=2e-4 \
    algo.loss.balance=effective trainer.val_check_interval=600
fi
# each grid holds the common setting too (mean, bce, none, 0), which is trained once
if want pooling; then grid "${verifier[@]}" "${first[@]}" verifier.model.pooling=mean,cls; fi
if want loss; then grid "${verifier[@]}" "${first[@]}" verifier.model.pooling=mean algo.loss.name=bce,focal,asymmetric,supcon+bce; fi
if want balance; then grid "${verifier[@]}" "${first[@]}" verifier.model.pooling=mean algo.loss.balance=none,inverse,effective; fi
if want noise; then grid "${verifier[@]}" "${first[@]}" verifier.model.pooling=mean verifier.data.noise.rate=0.0,0.1,0.2,0.4; fi

python -m erv.report "$runs/$group" --verifiers --table "$table"
meld=()
if want meld; then meld=(--meld "$MELD"); fi
python experiments/real_verifier/compare.py "$runs/$group"/*_all "${meld[@]}" --table "$table"
if [[ "$table" == experiments/* && -f "$(echo "$runs/$group/ekman_all"/*/calibration.svg)" ]]; then
  cp "$runs/$group/ekman_all"/*/calibration.svg "experiments/$experiment/calibration.svg"
fi
