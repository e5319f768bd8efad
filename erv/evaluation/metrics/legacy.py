"""The released code's counting, line by line of a prediction file (spec: policy.md 9), to repeat published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from erv.evaluation.metrics.answer_table import UNKNOWN, AnswerTable, answer_is_unknown, confusion
from erv.rewards.legacy import Line, label
from erv.taxonomy import Taxonomy


def legacy_table(
    lines: Sequence[Line],
    gold: Mapping[str, str],
    judge: Mapping[str, str | None],
    taxonomy: Taxonomy,
    clip_ids: Sequence[str] | None = None,
) -> AnswerTable:
    """The rows of a prediction file as the released code counts them.

    A sample whose answer cannot be compared (no answer tag, off the list, cut by a `|`) or whose judge's reply is no label counts
    as neither right nor coherent. On MAFW unknown answers are left out of UAR's denominators.

    Args:
        gold: a line's id -> its label.
        judge: a line's id -> the judge's reply.
        clip_ids: each line's clip, where that is not the line's id.
    """
    index = {name: i for i, name in enumerate(taxonomy.labels)}
    missing = sorted({line.id for line in lines} - gold.keys())
    if missing:
        raise ValueError(
            f"{len(missing)} samples have no gold label, first {missing[0]}; give the labels of this split"
        )
    answers, compared, judged = [], [], []
    for line in lines:
        answers.append(index.get(label(line.answer(taxonomy), taxonomy) or "", UNKNOWN))
        answer_label, judge_label = label(line.compared(), taxonomy), label(judge.get(line.id), taxonomy)
        both = answer_label is not None and judge_label is not None
        compared.append(index[answer_label] if both and answer_label else UNKNOWN)
        judged.append(index[judge_label] if both and judge_label else UNKNOWN)
    return AnswerTable.of(
        [index[gold[line.id]] for line in lines],
        answers,
        judged,
        len(taxonomy.labels),
        clip_ids or [line.id for line in lines],
        compared,
        "labels_without_unknown" if taxonomy.name == "mafw" else "labels",
    )


def legacy_confusion(table: AnswerTable) -> np.ndarray:
    """Counts `[E, E + 1]` of the released code.

    With MAFW's denominators an unknown answer is charged to the gold class of the last row before it whose answer is known. The
    released code stops with an error when the very first answer is unknown; here such an answer is not counted.
    """
    if table.recall_over != "labels_without_unknown":
        return confusion(table.gold, table.answer, table.classes)
    rows = np.where(answer_is_unknown(table), -1, np.arange(len(table.gold)))
    last_known = np.maximum.accumulate(rows)
    counted = last_known >= 0
    return confusion(table.gold[last_known[counted]], table.answer[counted], table.classes)


def legacy_counts(lines: Sequence[Line], table: AnswerTable, taxonomy: Taxonomy) -> dict[str, Any]:
    """What the released counter returns: [correct, total] of each class, totals, and the answers that are no label."""
    unknown = answer_is_unknown(table)
    counted = ~unknown if table.recall_over == "labels_without_unknown" else np.ones(len(table.gold), dtype=bool)
    right = table.answer == table.gold
    return {
        "per_class": {
            name: [int((right & (table.gold == i)).sum()), int((counted & (table.gold == i)).sum())]
            for i, name in enumerate(taxonomy.labels)
        },
        "correct": int(right.sum()),
        "unknown": int(unknown.sum()),
        "lines": len(lines),
        "unknown_list": [line.answer(taxonomy) for line, is_unknown in zip(lines, unknown, strict=True) if is_unknown],
    }


def compound_counts(lines: Sequence[Line], gold: Mapping[str, Sequence[str]], taxonomy: Taxonomy) -> dict[str, Any]:
    """MAFW's count over clips with one or several labels: an answer is right when it names one of them."""
    answers = [label(line.answer(taxonomy), taxonomy) for line in lines]
    correct = sum(answer in gold[line.id] for answer, line in zip(answers, lines, strict=True) if answer is not None)
    unknown = [line.answer(taxonomy) for answer, line in zip(answers, lines, strict=True) if answer is None]
    return {
        "correct": correct,
        "unknown": len(unknown),
        "lines": len(lines),
        "unknown_list": unknown,
        "war": correct / len(lines),
    }
