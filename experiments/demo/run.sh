#!/usr/bin/env bash
# The paper's three stages and their controls on the embedded corpus, one seed. Run by `make demo`.
# What is done already is skipped; delete runs/demo to begin again.
set -euo pipefail
cd "$(dirname "$0")/../.."
source experiments/side_by_side.sh

python -m erv.corpora.synthetic data/synthetic/3000-0
side_by_side \
  "+exp=towers_demo" \
  "+exp=verifier_demo"
train +exp=sft_demo
side_by_side \
  "+exp=grpo_demo" \
  "+exp=grpo_demo name=grpo reward=format_answer"

python -m erv.report runs/demo --table experiments/demo/table.md --html runs/demo/report.html
echo
echo "Page with learning curves and clips: runs/demo/report.html"
