"""The figures while a policy trains, as a torchmetrics Metric: counts that processes add up, and the same functions over them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from erv.evaluation.metrics.scores import JUDGED, UNKNOWN, Table, scores
from erv.evaluation.metrics.summary import table_of
from erv.taxonomy import Taxonomy
from erv.types import Prediction

SHARES = ("format_rate", "neutral_share", "verifier_reward", "judge_reward")


class RunningFigures(Metric):
    """WAR, UAR, EEA, EPC, FCR, the rewards and the form of the answers seen since the last reset.

    The state is a count of every (gold, answer, judged) `[E, E + 1, E + 1]`, unknown last, and sums: what each process
    has counted is added up, so that the figures are those of all answers whichever process saw them.
    """

    full_state_update = False
    joint: Tensor
    sums: Tensor

    def __init__(self, taxonomy: Taxonomy, judge: str | None) -> None:
        super().__init__()
        self.taxonomy, self.judge = taxonomy, judge
        size = len(taxonomy.labels)
        self.add_state("joint", torch.zeros(size, size + 1, size + 1, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("sums", torch.zeros(len(SHARES), 2), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[Prediction], judge_rewards: Sequence[float] = ()) -> None:
        """Add answers; `judge_rewards` are their R_E with the judge in the verifier's place, where it can be had."""
        table = table_of(predictions, self.taxonomy, self.judge)
        last = len(self.taxonomy.labels)
        cells = [np.where(column == UNKNOWN, last, column) for column in (table.gold, table.answer, table.judged)]
        places = tuple(torch.from_numpy(cell).to(self.joint.device) for cell in cells)
        self.joint.index_put_(places, torch.ones_like(places[0]), accumulate=True)
        found: dict[str, Sequence[float]] = {
            "format_rate": [p.well_formed for p in predictions],
            "neutral_share": [
                s.emotions == (self.taxonomy.neutral,) for p in predictions for s in p.sentences if s.emotions
            ],
            "verifier_reward": [r for p in predictions if (r := p.rewards.get("explanation")) is not None],
            "judge_reward": judge_rewards,
        }
        sums = [[float(sum(found[name])), len(found[name])] for name in SHARES]
        self.sums += torch.tensor(sums, dtype=self.sums.dtype, device=self.sums.device)

    def compute(self) -> dict[str, float]:
        """Every figure that was measured; without a judge, those that need none."""
        counts = self.joint.cpu().numpy()
        cells = np.argwhere(counts)
        rows = np.repeat(cells, counts[tuple(cells.T)], axis=0)
        rows[rows == len(self.taxonomy.labels)] = UNKNOWN
        gold, answer, judged = (rows[:, i].tolist() for i in range(3))
        found = scores(Table.of(gold, answer, judged, len(self.taxonomy.labels)))
        kept = {name: value for name, value in found.items() if self.judge is not None or name not in JUDGED}
        shares = {
            name: float(total / count) for name, (total, count) in zip(SHARES, self.sums.tolist(), strict=True) if count
        }
        return kept | shares
