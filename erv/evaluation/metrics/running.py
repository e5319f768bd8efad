"""The metrics of a validation, as a torchmetrics Metric: counts that processes add up, and the same functions over them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from erv.evaluation.metrics.answer_table import UNKNOWN, AnswerTable
from erv.evaluation.metrics.definitions import METRICS, TextMean, shown_in
from erv.evaluation.metrics.scores import scores
from erv.evaluation.metrics.summary import table_of
from erv.evaluation.metrics.text_stats import Answers
from erv.taxonomy import Taxonomy
from erv.types import Prediction


class RunningMetrics(Metric):
    """The metrics of the answers since the last reset, over all processes.

    The state is what can be added up: a count of every (gold, answer, judged) triple `[E, E + 1, E + 1]`, unknown last, from
    which the answer metrics are computed; and for each text metric that a validation logs a sum and a count `[M, 2]`.
    """

    full_state_update = False
    joint: Tensor
    sums: Tensor

    def __init__(self, taxonomy: Taxonomy, judge: str | None) -> None:
        super().__init__()
        self.taxonomy, self.judge = taxonomy, judge
        self.text_metrics = {
            metric.name: metric.compute for metric in shown_in("validation") if isinstance(metric.compute, TextMean)
        }
        size = len(taxonomy.labels)
        self.add_state("joint", torch.zeros(size, size + 1, size + 1, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("sums", torch.zeros(len(self.text_metrics), 2), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[Prediction], judge_rewards: Sequence[float] = ()) -> None:
        """Add answers; `judge_rewards` are their R_E with the judge in place of the verifier, where that is free of charge."""
        table = table_of(predictions, self.taxonomy, self.judge)
        last = len(self.taxonomy.labels)
        columns = [np.where(column == UNKNOWN, last, column) for column in (table.gold, table.answer, table.judged)]
        cells = tuple(torch.from_numpy(column).to(self.joint.device) for column in columns)
        self.joint.index_put_(cells, torch.ones_like(cells[0]), accumulate=True)
        answers = Answers(predictions, self.taxonomy, judge_rewards=judge_rewards)
        values = [compute.values(answers) for compute in self.text_metrics.values()]
        sums = [[float(sum(column)), len(column)] for column in values]
        self.sums += torch.tensor(sums, dtype=self.sums.dtype, device=self.sums.device)

    def compute(self) -> dict[str, float]:
        """Every metric that was measured, by name; without a judge, only those that need none."""
        counts = self.joint.cpu().numpy()
        cells = np.argwhere(counts)
        rows = np.repeat(cells, counts[tuple(cells.T)], axis=0)
        rows[rows == len(self.taxonomy.labels)] = UNKNOWN
        gold, answer, judged = (rows[:, i].tolist() for i in range(3))
        answer_scores = scores(AnswerTable.of(gold, answer, judged, len(self.taxonomy.labels)))
        measured = {n: v for n, v in answer_scores.items() if self.judge is not None or not METRICS[n].needs_judge}
        pairs = zip(self.text_metrics, self.sums.tolist(), strict=True)
        return measured | {name: float(total / count) for name, (total, count) in pairs if count}
