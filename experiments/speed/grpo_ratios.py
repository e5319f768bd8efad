"""Medians over rounds of what two engines needed, and of their ratios: one Markdown table per comparison."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

FIELDS = (
    "rollout_cpu_s",
    "reference_cpu_s",
    "forward_cpu_s",
    "backward_cpu_s",
    "total_cpu_s",
    "total_wall_s",
    "peak_rss_mb",
)


def main(name: str, *files: str) -> None:
    """Print the table of comparison `name`; each file holds one JSON object per round."""
    ours, theirs = ([json.loads(line) for line in Path(file).read_text().splitlines()] for file in files)
    if len(ours) != len(theirs) or not ours:
        raise SystemExit(f"{name}: an engine failed: {len(ours)} and {len(theirs)} rounds; run grpo_step.py to see why")
    print(
        f"\n{name} ({len(ours)} rounds)\n\n| | {ours[0]['engine']} | {theirs[0]['engine']} | ratio | lowest | highest |"
    )
    print("|---|---|---|---|---|---|")
    for field in FIELDS:
        ratios = [b[field] / a[field] for a, b in zip(ours, theirs, strict=True)]
        medians = (statistics.median(row[field] for row in rows) for rows in (ours, theirs))
        numbers = [f"{number:.3f}" if field.endswith("_s") else f"{number:.0f}" for number in medians]
        spread = (f"{number:.2f}" for number in (statistics.median(ratios), min(ratios), max(ratios)))
        print(f"| {field} | {' | '.join(numbers)} | {' | '.join(spread)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
