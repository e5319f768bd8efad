"""What a run's figures and curves say is wrong, and what to try: the failures that the paper and this project have seen.

Every rule is a function that returns a Diagnosis or None. Thresholds are constants with the reason for their value; where a
curve decides, a change must also stand out of the curve's own noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from erv.evaluation.metrics.learning_curves import Change, Curves

Figures = Mapping[str, Any]

# R1-Omni's WAR and EEA on DFEW are 33 points apart, those of the paper's ERV 19 (spec: evaluation.md)
UNEXPLAINED = 0.20
# three standard errors of a difference of shares on 600 clips, the demo's test split, and more on larger ones
UNANSWERED = 0.10
# one standard error of a share on 100 dev clips; the noise of the curve itself is asked as well
EPC_FALL = 0.05
# experiments/gaming: five sound runs end with the verifier's R_E .08 above the judge's, four gamed ones with .17 to .30
READERS_APART = 0.12
# of a reward of up to 3: what a run gains by chance between its thirds is below .03 (tests/fixtures/curves.json)
REWARD_RISE = 0.05
# experiments/gaming: sound runs keep .95 of their length and more, collapsed ones .64 to .76
SHORTER = 0.80
# experiments/gaming: sound runs keep 97 % different rationales, collapsed ones 45 to 59 %
ALIKE = 0.70
# half: a policy that still describes keeps its share of descriptive sentences within a tenth (tests/fixtures/curves.json)
NEUTRAL_LEFT = 0.50
# a third of every rollout is then paid for and teaches nothing; a sound run has under 1 % (tests/fixtures/curves.json)
SILENT_GROUPS = 1 / 3
# more than the sampling noise of 2,336 clips: such answers alone would then move WAR
OFF_FORM = 0.03


@dataclass(frozen=True)
class Diagnosis:
    """A rule that fired: what was found, the figures it fired on, and what to try."""

    rule: str
    finding: str
    figures: Mapping[str, float]
    advice: str


def diagnose(figures: Figures, curves: Curves | None = None, start: Figures | None = None) -> list[Diagnosis]:
    """The rules that fire on a run's figures and curves; `start` are the figures of the model that it began with."""
    return [found for rule in RULES if (found := rule(figures, curves or {}, start or {})) is not None]


def unexplained(figures: Figures, curves: Curves, start: Figures) -> Diagnosis | None:
    """High WAR with low EEA: answers are right, their reasons are not (paper, the failure that the ERV is for)."""
    war, eea = figures.get("war"), figures.get("eea")
    if war is None or eea is None or war - eea < UNEXPLAINED:
        return None
    return Diagnosis(
        "unexplained_answers", "answers are right far more often than the explanations that they come with",
        {"war": war, "eea": eea},
        "Train with the verifier's reward (reward=erv); if that was done, look at the verifier: its figures on held-out "
        "sentences, verifier.data.augmentation=true, a larger encoder, reward.explanation.weight=2.",
    )  # fmt: skip


def unanswered(figures: Figures, curves: Curves, start: Figures) -> Diagnosis | None:
    """High EEA with low WAR: the explanation knows what the answer does not say."""
    war, eea = figures.get("war"), figures.get("eea")
    if war is None or eea is None or eea - war < UNANSWERED:
        return None
    return Diagnosis(
        "unused_explanations", "explanations speak of the true emotion more often than the answers name it",
        {"war": war, "eea": eea},
        "Weigh the answer more: reward.answer.weight=2, and in SFT algo.answer_weight.",
    )  # fmt: skip


def epc_falls(figures: Figures, curves: Curves, start: Figures) -> Diagnosis | None:
    """EPC falling during GRPO: answers and explanations are learnt apart."""
    found = Change.of(curves.get("dev/epc"))
    if found is None or not Change(-found.first, -found.middle, -found.last, found.error).rises(EPC_FALL):
        return None
    return Diagnosis(
        "epc_falls", "explanation and answer agree less and less while the policy trains",
        {"dev/epc, first third": found.first, "dev/epc, last third": found.last},
        "Weigh the explanation more: reward.explanation.weight=2, or lower reward.answer.weight.",
    )  # fmt: skip


def gaming(figures: Figures, curves: Curves, start: Figures) -> Diagnosis | None:
    """The verifier's reward rises and another reader's does not: the policy learns the verifier's mistakes."""
    fired = _readers_part(figures, curves, start) or _judge_stands_still(curves)
    if not fired:
        return None
    return Diagnosis(
        "reward_gaming", "the reward rises and what another reader finds in the explanations does not", fired,
        "Stop earlier, at the step where the two part; keep the KL term (algo.objective.beta=0.04); train the verifier on more "
        "and other text (verifier.data.augmentation=true), or with an audit verifier as judge beside it.",
    )  # fmt: skip


def _readers_part(figures: Figures, curves: Curves, start: Figures) -> dict[str, float] | None:
    """R_E by the verifier and by the judge, at the end of the dev curve or, without one, on the evaluated clips."""
    verifier, judge = (Change.of(curves.get(f"dev/{name}_reward")) for name in ("verifier", "judge"))
    if verifier is not None and judge is not None:
        apart, before = verifier.last - judge.last, verifier.first - judge.first
        if apart >= READERS_APART and apart - before > 2 * float(np.hypot(verifier.error, judge.error)):
            return {"dev/verifier_reward, last third": verifier.last, "dev/judge_reward, last third": judge.last,
                    "apart in the first third": before}  # fmt: skip
        return None
    apart_now, apart_then = _apart(figures), _apart(start) or 0.0
    if apart_now is not None and apart_now - max(apart_then, 0.0) >= READERS_APART:
        return {"verifier_reward": figures["verifier_reward"], "judge_reward": figures["judge_reward"],
                "apart at the start": apart_then}  # fmt: skip
    return None


def _apart(figures: Figures) -> float | None:
    verifier, judge = figures.get("verifier_reward"), figures.get("judge_reward")
    return None if verifier is None or judge is None else verifier - judge


def _judge_stands_still(curves: Curves) -> dict[str, float] | None:
    """The training reward against the judge's EEA, over the whole run and since its middle."""
    reward, eea = Change.of(curves.get("train/reward")), Change.of(curves.get("dev/eea"))
    if reward is None or eea is None:
        return None
    for since in ("first", "middle"):
        if reward.rises(REWARD_RISE, since) and eea.last - getattr(eea, since) <= 0:
            return {f"train/reward, {since} third": getattr(reward, since), "train/reward, last third": reward.last,
                    f"dev/eea, {since} third": getattr(eea, since), "dev/eea, last third": eea.last}  # fmt: skip
    return None


def length_collapse(figures: Figures, curves: Curves, start: Figures) -> Diagnosis | None:
    """Rationales shrink to the shortest form that is rewarded."""
    fired: dict[str, float] = {}
    length = Change.of(curves.get("train/completions/mean_length"))
    if length is not None and length.last < SHORTER * length.first:
        fired = {"tokens, first third": length.first, "tokens, last third": length.last}
    elif start.get("sentences_mean") and figures.get("sentences_mean", 0) < SHORTER * start["sentences_mean"]:
        fired = {"sentences_mean": figures["sentences_mean"], "sentences_mean at the start": start["sentences_mean"]}
    if not fired:
        return None
    return Diagnosis(
        "length_collapse", "rationales become short: a few safe sentences earn as much as many", fired,
        "Keep the KL term (algo.objective.beta=0.04), stop earlier, or lower optim.lr.",
    )  # fmt: skip


def alike(figures: Figures, curves: Curves, start: Figures) -> Diagnosis | None:
    """One rationale for many clips."""
    distinct, before = figures.get("distinct_rationales"), start.get("distinct_rationales", 1.0)
    if distinct is None or distinct >= ALIKE * before:
        return None
    return Diagnosis(
        "same_rationales", "many sampled rationales are the same, word for word", {"distinct_rationales": distinct},
        "Keep the KL term (algo.objective.beta=0.04), stop earlier, or sample more hotly (algo.sampling.temperature).",
    )  # fmt: skip


def neutral_avoidance(figures: Figures, curves: Curves, start: Figures) -> Diagnosis | None:
    """Sentences that only describe earn nothing and disappear, or clips without emotion are no longer called so."""
    fired: dict[str, float] = {}
    for name in ("dev/neutral_share", "train/completions/neutral_share"):
        share = Change.of(curves.get(name))
        if share is not None and share.last < NEUTRAL_LEFT * share.first:
            fired |= {f"{name}, first third": share.first, f"{name}, last third": share.last}
    now, before = figures.get("neutral_share"), start.get("neutral_share")
    if not fired and now is not None and before is not None and now < NEUTRAL_LEFT * before:
        fired = {"neutral_share": now, "neutral_share at the start": before}
    said = _neutral_answers(figures)
    if said is not None and said[0] < NEUTRAL_LEFT * said[1]:
        fired |= {"clips answered neutral": said[0], "clips that are neutral": said[1]}
    if not fired:
        return None
    return Diagnosis(
        "neutral_avoidance", "what is neutral disappears: descriptions without an emotion, or the answer itself", fired,
        "Keep the KL term (algo.objective.beta=0.04); reward neutral clips by what is there "
        "(reward.explanation.on_neutral_gold=match_only); look at recall of neutral before trusting a higher FCR.",
    )  # fmt: skip


def _neutral_answers(figures: Figures) -> tuple[float, float] | None:
    """Shares of clips that are called neutral and that are; None without enough neutral clips to tell."""
    table, classes = figures.get("confusion"), list(figures.get("per_class") or ())
    if table is None or "neutral" not in classes:
        return None
    counts, place = np.asarray(table), classes.index("neutral")
    total = counts.sum()
    return (
        None
        if counts[place].sum() < 20
        else (float(counts[:, place].sum() / total), float(counts[place].sum() / total))
    )


def silent_groups(figures: Figures, curves: Curves, start: Figures) -> Diagnosis | None:
    """Groups whose answers all earn the same have no advantage to learn from."""
    found = Change.of(curves.get("train/frac_reward_zero_std"))
    if found is None or found.last < SILENT_GROUPS:
        return None
    return Diagnosis(
        "zero_variance_groups", "many groups of answers earn the same, so that they teach nothing",
        {"train/frac_reward_zero_std, last third": found.last},
        "algo.zero_spread=resample, a larger algo.group_size, a higher algo.sampling.temperature, or harder clips; or stop: the "
        "policy has learnt what this reward can teach.",
    )  # fmt: skip


def off_form(figures: Figures, curves: Curves, start: Figures) -> Diagnosis | None:
    """Answers that cannot be read count as wrong, whatever they would have said."""
    unknown, form = figures.get("unknown_rate", 0.0), figures.get("format_rate", 1.0)
    if unknown < OFF_FORM and form > 1 - OFF_FORM:
        return None
    return Diagnosis(
        "off_form", "answers miss the form or the label list, and count as wrong",
        {"unknown_rate": unknown, "format_rate": form, "finished_rate": figures.get("finished_rate", 1.0)},
        "If answers do not end, raise evaluation.max_new_tokens; otherwise more SFT, or look at the texts in predictions.jsonl.",
    )  # fmt: skip


RULES: tuple[Callable[[Figures, Curves, Figures], Diagnosis | None], ...] = (
    unexplained, unanswered, epc_falls, gaming, length_collapse, alike, neutral_avoidance, silent_groups, off_form,
)  # fmt: skip
