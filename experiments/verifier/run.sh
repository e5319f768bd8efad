#!/usr/bin/env bash
# The verifier on the embedded corpus' sentences: augmentation off and on, and label noise 0, .1 and .3, where three emotions are rare.
# The augmented sentences are written by erv.label task=augment against endpoint.py, a stand-in for a language model.
# Usage: [NOISE=0.3] run.sh [demo] [SEED…] [OVERRIDE…] (default 0 1 2). About three minutes a seed on two cores.
set -euo pipefail
source "$(dirname "$0")/../common.sh"
arguments 0,1,2 "$@"
data="${ERV_DATA:-data}" group=verifier_study all=("${overrides[@]}")
work="$(mktemp -d)"
server=
trap '[[ -z "$server" ]] || kill "$server"; rm -rf "$work"' EXIT

for seed in ${seeds//,/ }; do
  seeds="$seed" # a grid of one seed: each has sentences of its own
  overrides=("${all[@]}" data.clips=48 data.dev=8 data.test=8) # clips do not matter
  grid +exp=verifier_demo "group=$group" name=all
  corpus="$data/synthetic/48-$seed"
  python experiments/verifier/skew.py "$corpus/labels.jsonl" "$corpus/rare.jsonl"
  python experiments/verifier/endpoint.py "$seed" "$work/$seed" & server=$!
  until [[ -s "$work/$seed" ]]; do kill -0 "$server"; sleep 0.1; done
  # the grammar has some sixty sentences of an emotion, so more than fifty that differ are not to be had
  augmented="$(python -m erv.label task=augment task.input="$corpus/rare.jsonl" task.target=50 'task.classes=[disgust,fear,neutral]' \
    task.similarity=0.95 task.rounds=12 llm.base_url="$(cat "$work/$seed")" llm.key_variable=null llm.model=grammar llm.price=null \
    name=augmented group="$group" seed="$seed" | tee /dev/stderr | sed -n 's/^done[a-z ]*: //p')"
  kill "$server"; server=
  grid +exp=verifier_demo "group=$group" name=rare verifier.data.files.pseudo="$corpus/rare.jsonl" \
    +verifier.data.files.augmented="$augmented/labels.jsonl" \
    verifier.data.augmentation=false,true "verifier.data.noise.rate=${NOISE:-0.0,0.1,0.3}"
done
python -m erv.report "$runs/$group" --verifiers --table "$table"
