#!/usr/bin/env bash
# The paper's three stages and their controls on the embedded corpus, one seed. Run by `make demo`.
# What is done already is skipped. Arguments are passed to every stage: `run.sh +debug=demo` takes a minute.
set -euo pipefail
cd "$(dirname "$0")/../.."
source experiments/side_by_side.sh
runs="${ERV_RUNS:-runs}/demo"
table=experiments/demo/table.md
[[ $# -eq 0 ]] || table="$runs/table.md"

side_by_side \
  "+exp=towers_demo $*" \
  "+exp=verifier_demo $*"
train +exp=sft_demo "$@"
side_by_side \
  "+exp=grpo_demo $*" \
  "+exp=grpo_demo name=grpo reward=format_answer $*"

python -m erv.report "$runs" --table "$table" --html "$runs/report.html"
echo
echo "Page with learning curves and clips: $runs/report.html"
