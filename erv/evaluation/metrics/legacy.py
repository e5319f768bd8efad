"""The released code's counting, line by line of a prediction file (spec: policy.md 9), to repeat published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from erv.evaluation.metrics.scores import UNKNOWN, Table, confusion
from erv.rewards.legacy import Line, label
from erv.taxonomy import Taxonomy


def legacy_table(
    lines: Sequence[Line], gold: Mapping[str, str], judge: Mapping[str, str | None], taxonomy: Taxonomy,
    units: Sequence[str] | None = None,
) -> Table:  # fmt: skip
    """The rows of a prediction file as the released code counts them.

    `gold` and `judge` map a line's id to its label and to the judge's reply. A sample whose answer cannot be compared (no
    answer tag, off the list, cut by a `|`) or whose judge's reply is no label counts as neither right nor coherent. On MAFW
    unknown answers are left out of UAR's denominators. `units` names each line's clip where that is not the line's id.
    """
    index = {name: i for i, name in enumerate(taxonomy.labels)}
    absent = sorted({line.id for line in lines} - gold.keys())
    if absent:
        raise ValueError(f"{len(absent)} samples have no gold label, first {absent[0]}; give the labels of this split")
    answer, said, judged = [], [], []
    for line in lines:
        answer.append(index.get(label(line.answer(taxonomy), taxonomy) or "", UNKNOWN))
        compared, read = label(line.compared(), taxonomy), label(judge.get(line.id), taxonomy)
        parsed = compared is not None and read is not None
        said.append(index[compared] if parsed and compared else UNKNOWN)
        judged.append(index[read] if parsed and read else UNKNOWN)
    return Table.of(
        [index[gold[line.id]] for line in lines], answer, judged, len(taxonomy.labels), units or [line.id for line in lines],
        said, "known" if taxonomy.name == "mafw" else "fixed",
    )  # fmt: skip


def legacy_confusion(table: Table) -> np.ndarray:
    """Counts `[E, E + 1]`; with MAFW's denominators an unknown answer is charged to the class of the last known one before it.

    The released code stops when the very first answer is unknown; here such an answer is charged to nobody.
    """
    if table.uar != "known":
        return confusion(table.gold, table.answer, table.classes)
    places = np.where(table.unknown, -1, np.arange(len(table.gold)))
    last = np.maximum.accumulate(places)
    charged = last >= 0
    return confusion(table.gold[last[charged]], table.answer[charged], table.classes)


def legacy_counts(lines: Sequence[Line], table: Table, taxonomy: Taxonomy) -> dict[str, Any]:
    """What the released counter returns: [correct, total] of each class, totals, and the answers it did not know."""
    counted = ~table.unknown if table.uar == "known" else np.ones(len(table.gold), dtype=bool)
    right = table.answer == table.gold
    return {
        "per_class": {
            name: [int((right & (table.gold == i)).sum()), int((counted & (table.gold == i)).sum())]
            for i, name in enumerate(taxonomy.labels)
        },
        "correct": int(right.sum()),
        "unknown": int(table.unknown.sum()),
        "lines": len(lines),
        "unknown_list": [line.answer(taxonomy) for line, lost in zip(lines, table.unknown, strict=True) if lost],
    }


def compound_counts(lines: Sequence[Line], gold: Mapping[str, Sequence[str]], taxonomy: Taxonomy) -> dict[str, Any]:
    """MAFW's count over clips with one or several labels: an answer is right when it names one of them."""
    answers = [label(line.answer(taxonomy), taxonomy) for line in lines]
    correct = sum(answer in gold[line.id] for answer, line in zip(answers, lines, strict=True) if answer is not None)
    unknown = [line.answer(taxonomy) for answer, line in zip(answers, lines, strict=True) if answer is None]
    return {
        "correct": correct, "unknown": len(unknown), "lines": len(lines), "unknown_list": unknown,
        "war": correct / len(lines),
    }  # fmt: skip
