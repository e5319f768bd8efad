"""The dev curve of a policy in training: it is logged and steers nothing."""

from __future__ import annotations

from collections.abc import Sequence

import lightning.pytorch as pl
import numpy as np

from erv.emotions import Taxonomy
from erv.judges.base import Judge
from erv.lit.evaluation import Evaluation, judge_all, predict, read, reward_by_judge
from erv.lit.samples import Sample
from erv.metrics.summary import summarise
from erv.policy import Policy
from erv.records import Prediction
from erv.rewards.total import TotalReward


class DevCurve(pl.LightningModule):
    """Validation that samples one answer per dev clip at `dev_temperature`, and logs its figures.

    The verifier's R_E stands beside the judge's: where they part, the policy has learnt the verifier's mistakes.
    """

    policy: Policy
    reward: TotalReward
    taxonomy: Taxonomy
    modalities: Sequence[str]
    seed: int
    judge: Judge | None
    dev_temperature: float
    max_new_tokens: int
    batch_size: int
    dev_predictions: list[Prediction]

    def on_validation_epoch_start(self) -> None:
        """Collect the dev predictions of this round."""
        self.dev_predictions = []

    def validation_step(self, batch: list[Sample], _: int) -> None:
        """One sampled answer per dev clip, with rewards and verdicts."""
        plan = Evaluation(
            "dev", 1, self.dev_temperature, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size
        )
        found = predict(self.policy, batch, self.modalities, plan, "sampled", self.taxonomy, self.seed, progress=False)
        found = read(found, self.reward)
        self.dev_predictions += judge_all(found, self.judge) if self.judge else found

    def on_validation_epoch_end(self) -> None:
        """Log the figures."""
        found = self.dev_predictions
        self.log("dev/format_rate", float(np.mean([p.well_formed for p in found])))
        if self.judge is None:
            self.log("dev/war", float(np.mean([p.answer == p.gold for p in found])), prog_bar=True)
            return
        figures = summarise(found, self.taxonomy, self.judge.name, resamples=1)
        figures["judge_reward"] = reward_by_judge(found, self.judge, self.reward)
        for name in ("war", "uar", "eea", "epc", "fcr", "verifier_reward", "judge_reward", "neutral_share"):
            if figures.get(name) is not None:
                self.log(f"dev/{name}", figures[name], prog_bar=name == "fcr")
