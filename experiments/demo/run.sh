#!/usr/bin/env bash
# The paper's three stages and their controls on the embedded corpus, one seed. Run by `make demo`.
# Usage: run.sh [demo] [SEED…] [OVERRIDE…]; `run.sh +debug=demo` takes a minute.
set -euo pipefail
source "$(dirname "$0")/../common.sh"
arguments 0 "$@"

grid +exp=towers_demo,verifier_demo
grid +exp=sft_demo
grid +exp=grpo_demo "+ablation=${ARMS:-full,no_explanation}"

python -m erv.report "$runs/demo" --table "$table" --html "$runs/demo/report.html"
echo
echo "Page with learning curves and clips: $runs/demo/report.html"
