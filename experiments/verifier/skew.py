"""`skew.py LABELS.jsonl FILE.jsonl`: the training sentences of some emotions become rare, all other rows stay as they are.

The embedded corpus has about as many sentences of every emotion; pseudo-labels of real clips do not (DFEW's training split holds
116 clips of disgust and 2,136 neutral ones).
"""

import json
import sys
from collections import Counter
from pathlib import Path

RARE = ("disgust", "fear", "neutral")  # those of the paper's six that DFEW has
KEPT = 12  # training sentences of each, the first ones


def main(source: str, target: str) -> None:
    """Copy `source` to `target` without most training sentences of the rare emotions."""
    seen: Counter[str] = Counter()
    kept = []
    for line in Path(source).read_text().splitlines():
        row = json.loads(line)
        rare = [label for label in row["labels"] if label in RARE] if row["split"] == "train" else []
        seen.update(rare)
        if all(seen[label] <= KEPT for label in rare):
            kept.append(line + "\n")
    Path(target).write_text("".join(kept))


if __name__ == "__main__":
    main(*sys.argv[1:])
