"""Steps whose loss or gradient is not finite: left out, kept for a look, and the end of a run when they do not stop."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import torch

from erv.grpo.advantages import Advantages
from erv.grpo.objective import Metrics
from erv.lit.collective import rank
from erv.lit.grpo_record import Scored
from erv.lit.samples import Sample

_log = logging.getLogger(__name__)
FOLDER = "nonfinite"


class NonFinite:
    """Tells sound steps from others and counts the others; `limit` of them in a row end the run."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"algo.max_nonfinite must be at least 1, the steps in a row that end a run; got {limit}")
        self.limit, self.in_a_row = limit, 0

    def is_sound(
        self, run: Path, iteration: int, batch: list[Sample], scored: Scored, advantage: Advantages, metrics: Metrics
    ) -> bool:  # fmt: skip
        """Whether `loss` and `grad_norm` of `metrics` are finite.

        If not, the batch is written to `nonfinite/<iteration>.pt` in the folder `run`; FloatingPointError at the limit.
        The figures are those of all processes, which therefore decide alike; each writes its own part of the batch.
        """
        loss, norm = float(metrics["loss"]), float(metrics["grad_norm"])
        if math.isfinite(loss) and math.isfinite(norm):
            self.in_a_row = 0
            return True
        self.in_a_row += 1
        own = f"-rank{rank()}" if rank() else ""
        path = run / FOLDER / f"{iteration:08d}{own}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        rollout = scored.rollout
        torch.save({
            "iter": iteration, "loss": loss, "grad_norm": norm, "clips": [clip.id for clip, _ in batch],
            "texts": scored.texts, "tokens": rollout.tokens, "mask": rollout.mask, "logps": rollout.logps,
            "rewards": scored.rewards, "advantages": advantage.values,
        }, path)  # fmt: skip
        _log.warning("iteration %d left out: loss %s, gradient norm %s; see %s", iteration, loss, norm, path)
        if self.in_a_row >= self.limit:
            raise FloatingPointError(
                f"{self.in_a_row} steps in a row were not finite (algo.max_nonfinite={self.limit}), the last with loss {loss} "
                f"and gradient norm {norm}; weights and the last checkpoint are sound, the batches are in {path.parent}: lower "
                "optim.lr, or set trainer.precision=32-true, and run the same command again"
            )
        return False
