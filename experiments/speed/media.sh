#!/usr/bin/env bash
# Decoding against decord and PyAV, and the tower cache against encoding again: the tables of notes.md.
#   bash experiments/speed/media.sh [FOLDER]      # of the 200 clips; made there (120 MB), default a temporary one
# PYTHON is a Python with the extra `bench` (decord).
set -euo pipefail
cd "$(dirname "$0")"
PYTHON="${PYTHON:-python}" ROUNDS="${ROUNDS:-5}"
export PYTHONPATH="$PWD/../..${PYTHONPATH:+:$PYTHONPATH}"
clips="${1:-}"
if [[ -z "$clips" ]]; then
  clips=$(mktemp -d)
  trap 'rm -rf "$clips"' EXIT
fi

echo "$(date +%F), $(uname -sm), $(grep -m 1 'model name' /proc/cpuinfo | cut -d: -f2 | xargs), load $(cut -d' ' -f1-3 /proc/loadavg)"
"$PYTHON" media.py "$clips" --check
for threads in 1 2; do
  for sound in "" --sound; do
    for engine in decord pyav; do
      printf '\nA = erv, B = %s, %s thread(s) %s\n' "$engine" "$threads" "$sound"
      ours="$PYTHON media.py $clips --threads $threads $sound --engine"
      "$PYTHON" alternate.py --rounds "$ROUNDS" "$ours erv" "$ours $engine"
    done
  done
done
for policy in "tiny --clips 64" "humanomni_0_5b --clips 4 --rounds 3"; do
  printf '\ntower cache, %s\n' "$policy"
  # shellcheck disable=SC2086 # the words are arguments
  "$PYTHON" media_cache.py "$clips" --policy $policy | tail -1
done
