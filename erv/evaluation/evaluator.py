"""From predictions to figures: the verifier reads them, the judges judge them, and everything is counted.

The same for a run that has just been trained, for a checkpoint and for predictions made elsewhere; knows no torch.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from erv import config, rationale
from erv.evaluation.judges.base import Judge, ask
from erv.evaluation.judges.human import HumanJudge
from erv.evaluation.metrics.agreement import cohen_kappa, krippendorff_alpha, percent_agreement
from erv.evaluation.metrics.diagnosis import diagnose
from erv.evaluation.metrics.learning_curves import Curves
from erv.evaluation.metrics.summary import Settings, summarise
from erv.taxonomy import Taxonomy
from erv.types import Clip, Decoding, Prediction, Sentence, Split, Verdict

if TYPE_CHECKING:
    from erv.rewards.composite import TotalReward

_log = logging.getLogger(__name__)
DECODINGS: tuple[Decoding, ...] = ("sampled", "greedy")
LONGEST = 512  # tokens of an answer where nobody says


class FailedVerdicts(Exception):
    """So many verdicts failed that the figures would not be those of the policy."""


@dataclass(frozen=True)
class Evaluation:
    """What is measured: `samples` answers per clip at `temperature`, and one greedy answer when `greedy`.

    `max_new_tokens` None: as in the evaluation of the policy's training, where the command knows it, else 512.
    `limit` keeps the first clips of the split; None keeps all. A run is complete when no judge failed on more than the share
    `max_failed` of its explanations: a failed verdict counts as no emotion, so that many it may at most hide. `on_leak`: what
    to do when the policy or the verifier was trained on clips that are evaluated.
    """

    split: Split = "test"
    samples: int = 2
    temperature: float = 0.7
    top_p: float = 1.0
    greedy: bool = True
    max_new_tokens: int | None = 512
    batch_size: int = 64
    limit: int | None = None
    max_failed: float = 0.01
    on_leak: Literal["error", "warn"] = "error"

    def __post_init__(self) -> None:
        for key, value, least in (
            ("samples", self.samples, 0),
            ("max_new_tokens", self.longest, 1),
            ("batch_size", self.batch_size, 1),
        ):
            if value < least:
                raise ValueError(f"evaluation.{key} is at least {least}, got {value}")
        if self.samples == 0 and not self.greedy:
            raise ValueError("evaluation.samples=0 needs evaluation.greedy=true, or nothing is asked")
        if not 0 <= self.max_failed <= 1:
            raise ValueError(f"evaluation.max_failed is a share in [0, 1], got {self.max_failed}")

    @property
    def longest(self) -> int:
        """The most tokens of an answer."""
        return LONGEST if self.max_new_tokens is None else self.max_new_tokens

    @property
    def decodings(self) -> dict[Decoding, int]:
        """The ways of decoding, and how many answers a clip gets in each."""
        counts: dict[Decoding, int] = {"sampled": self.samples, "greedy": int(self.greedy)}
        return {decoding: count for decoding, count in counts.items() if count}

    def keys(self, clips: Sequence[Clip]) -> list[tuple[str, Decoding, int]]:
        """Every answer to `clips`, in the order of predictions.jsonl."""
        return [(c.id, decoding, i) for decoding, count in self.decodings.items() for c in clips for i in range(count)]


def judges_of(tree: Mapping[str, Any], taxonomy: Taxonomy) -> list[Judge]:
    """The judges of the config, in the order in which they are named; each is called by its key unless it says otherwise.

    What they lack (a key, a file) is a ConfigError now, not in hours.
    """
    found: list[Judge] = []
    for key, node in (tree.get("judge") or {}).items():
        given = {name: value for name, value in (("taxonomy", taxonomy), ("name", key)) if name not in node}
        found.append(config.build(node, **{n: v for n, v in given.items() if n in config.wanted(node, [n])}))
    names = Counter(judge.name for judge in found)
    double = [name for name, count in names.items() if count > 1]
    if double:
        raise config.ConfigError(f"two judges are called {double[0]!r}; set judge.KEY.name")
    for judge in found if not tree.get("dry_run") else ():
        try:
            judge.require()
        except ValueError as error:
            raise config.ConfigError(f"judge {judge.name!r}: {error}") from error
    return found


def read(predictions: Sequence[Prediction], reward: TotalReward) -> list[Prediction]:
    """The predictions with their rewards, and their sentences with the verifier's emotions.

    Rewards compare with the gold label: without one there are none.
    """
    sentences = reward.read([p.think or "" for p in predictions])
    known = [i for i, p in enumerate(predictions) if p.gold]
    found = reward([predictions[i].text for i in known], [predictions[i].gold for i in known])
    parts = dict(zip(known, found, strict=True))
    return [
        replace(p, sentences=s or (), rewards={**parts[i].parts, "total": parts[i].total} if i in parts else {})
        for i, (p, s) in enumerate(zip(predictions, sentences, strict=True))
    ]


def split(predictions: Sequence[Prediction], language: str = "en") -> list[Prediction]:
    """The predictions with their sentences, where nobody has taken them apart; no verifier reads them."""
    return [
        p if p.sentences or not p.think
        else replace(p, sentences=tuple(Sentence(s, ()) for s in rationale.sentences(p.think, language)))
        for p in predictions
    ]  # fmt: skip


def judged(predictions: Sequence[Prediction], judges: Sequence[Judge], progress: bool = True) -> list[Prediction]:
    """The predictions with a verdict of every judge, which sees the think text only (paper, evaluation).

    Verdicts of other judges stay. Raises CircuitOpen when an endpoint does not work.
    """
    from tqdm import tqdm

    texts = [p.think or "" for p in predictions]
    todo = {judge.name: judge.waiting(texts) for judge in judges}
    bars = {n: tqdm(total=c, desc=f"judge {n}", unit="text") for n, c in todo.items() if c and progress}
    try:
        found = ask(judges, texts, lambda name: _advance(bars.get(name)))
    finally:
        for bar in bars.values():
            bar.close()
    rows = []
    for i, p in enumerate(predictions):
        new = [v for name in found if (v := found[name][i]) is not None]
        rows.append(replace(p, verdicts=(*(v for v in p.verdicts if v.judge not in found), *new)))
    return rows


def _advance(bar: Any) -> None:
    if bar is not None:
        bar.update()


def judge_rewards(predictions: Sequence[Prediction], judge: Judge | None, reward: TotalReward | None) -> list[float]:
    """R_E of each answer with `judge` in the verifier's place, asked sentence by sentence; empty unless it is free of charge.

    Where the verifier's R_E rises and this does not, the policy has learnt the verifier's mistakes.
    """
    if judge is None or not judge.free or reward is None:
        return []
    from erv.rewards.explanation import ExplanationReward

    part = reward.explanation or ExplanationReward()
    verdicts = iter(ask([judge], [s.text for p in predictions for s in p.sentences])[judge.name])
    found = [[(_emotion(next(verdicts)),) for _ in p.sentences] for p in predictions]
    neutral = reward.taxonomy.neutral
    values = [part.value(f, p.gold, neutral) for f, p in zip(found, predictions, strict=True)]
    return [value for value in values if value is not None]


def _emotion(verdict: Verdict | None) -> str:
    return (verdict.emotion if verdict else None) or ""


def refuse_failed(predictions: Sequence[Prediction], judges: Sequence[Judge], most: float) -> None:
    """Raise FailedVerdicts when a judge failed on more than the share `most`."""
    for judge in judges:
        found = [v for p in predictions for v in p.verdicts if v.judge == judge.name]
        failed = [v for v in found if v.status == "failed"]
        if len(failed) > most * max(len(found), 1):
            raise FailedVerdicts(
                f"{len(failed)} of {len(found)} verdicts of judge {judge.name!r} failed, the first with: {failed[0].reason}. The "
                "evaluation is not complete; the same command again asks for those only, evaluation.max_failed=SHARE accepts "
                "them"
            )


@dataclass(frozen=True)
class Context:
    """What the figures of a run are seen against: the sentences its policy was taught, its curves, and where it started."""

    taught: Collection[str] = ()
    curves: Curves | None = None
    start: Mapping[str, Any] | None = None


def measure(
    predictions: Sequence[Prediction], taxonomy: Taxonomy, judges: Sequence[Judge], settings: Settings,
    reward: TotalReward | None = None, context: Context | None = None, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """The figures of metrics.json for read and judged predictions: per way of decoding, judges, raters, diagnosis."""
    context = context or Context()
    seen = dict.fromkeys(v.judge for p in predictions for v in p.verdicts)
    own = [judge.name for judge in judges if judge.name in seen]
    names = [*own, *(name for name in seen if name not in own)]  # the others are of an earlier evaluation
    free = next((judge for judge in judges if judge.free), None)
    found: dict[str, Any] = {}
    for decoding in DECODINGS:
        rows = [p for p in predictions if p.decoding == decoding]
        if rows:
            here = [name for name in names if any(v.judge == name for p in rows for v in p.verdicts)]
            main = here[0] if here else None
            found[decoding] = summarise(
                rows, taxonomy, main, settings=settings, judges=here, known=context.taught, seed=seed
            )
            values = judge_rewards(rows, free, reward)
            found[decoding]["judge_reward"] = float(np.mean(values)) if values else None
    described = {judge.name: judge.describe() | _raters(judge, settings) for judge in judges}
    return {
        "clips": len({p.clip_id for p in predictions}),
        "judge": names[0] if names else None,
        "judges": {name: described.get(name, {"kind": "earlier"}) for name in names},
        "metrics": asdict(settings),
        **found,
        "diagnosis": [asdict(d) for d in diagnose(next(iter(found.values())), context.curves, context.start)],
    }


def _raters(judge: Judge, settings: Settings) -> dict[str, Any]:
    """How far the people behind a human judge agree with each other."""
    if not isinstance(judge, HumanJudge):
        return {}
    raters, found = judge.matrix()
    pairs = [
        {"raters": [raters[a], raters[b]], "percent": asdict(percent_agreement(found[a], found[b])),
         "kappa": asdict(cohen_kappa(found[a], found[b], settings.resamples))}
        for a, b in combinations(range(len(raters)), 2)
    ]  # fmt: skip
    return {"agreement": pairs, "alpha": asdict(krippendorff_alpha(found, settings.resamples))}
