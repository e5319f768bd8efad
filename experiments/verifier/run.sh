#!/usr/bin/env bash
# The verifier on the embedded corpus' sentences: augmentation off and on, and label noise 0, .1 and .3, where three emotions are rare.
# The augmented sentences are written by erv.label task=augment against endpoint.py, a stand-in for a language model.
# Usage: run.sh demo [SEED…] (default 0 1 2). About three minutes a seed on two cores; interrupted, it goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/../.."
[[ "${1:-}" == demo ]] || { echo "usage: run.sh demo [SEED…]" >&2; exit 2; }
shift
[[ $# -gt 0 ]] || set -- 0 1 2
runs="${ERV_RUNS:-runs}" data="${ERV_DATA:-data}" group=verifier_study
export TQDM_MININTERVAL="${TQDM_MININTERVAL:-5}"
work="$(mktemp -d)"
server=
trap '[[ -z "$server" ]] || kill "$server"; rm -rf "$work"' EXIT

for seed in "$@"; do
  common="+exp=verifier_demo seed=$seed group=$group data.clips=48 data.dev=8 data.test=8" # clips do not matter
  # shellcheck disable=SC2086 # the words are overrides
  python -m erv.train $common name=all
  corpus="$data/synthetic/48-$seed"
  python experiments/verifier/skew.py "$corpus/labels.jsonl" "$corpus/rare.jsonl"
  python experiments/verifier/endpoint.py "$seed" "$work/$seed" & server=$!
  until [[ -s "$work/$seed" ]]; do kill -0 "$server"; sleep 0.1; done
  # the grammar has some sixty sentences of an emotion, so more than fifty that differ are not to be had
  augmented="$(python -m erv.label task=augment task.input="$corpus/rare.jsonl" task.target=50 'task.classes=[disgust,fear,neutral]' \
    task.similarity=0.95 task.rounds=12 llm.base_url="$(cat "$work/$seed")" llm.key_variable=null llm.model=grammar llm.price=null \
    name=augmented group="$group" seed="$seed" | tee /dev/stderr | sed -n 's/^done[a-z ]*: //p')"
  kill "$server"; server=
  # shellcheck disable=SC2086
  python -m erv.train -m $common name=rare verifier.data.files.pseudo="$corpus/rare.jsonl" \
    +verifier.data.files.augmented="$augmented/labels.jsonl" \
    verifier.data.augmentation=false,true verifier.data.noise.rate=0.0,0.1,0.3
done
python -m erv.report "$runs/$group" --verifiers --table experiments/verifier/table.md
