"""Rules that recognise known failures in a run's metrics and learning curves, and say what to try.

Every rule is a function that returns a Diagnosis or None. Thresholds are constants with the reason for their value; where a
curve decides, a change must also exceed twice the curve's noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from erv.evaluation.metrics.learning_curves import Change, Curves

Metrics = Mapping[str, Any]  # of one way of decoding, as in metrics.json

# R1-Omni's WAR and EEA on DFEW are 33 points apart, those of the paper's ERV 19 (spec: evaluation.md)
MAX_WAR_ABOVE_EEA = 0.20
# three standard errors of a difference of shares on 600 clips, the demo's test split, and more on larger ones
MAX_EEA_ABOVE_WAR = 0.10
# one standard error of a share on 100 dev clips; the fall must also exceed the noise of the curve itself
EPC_FALL = 0.05
# experiments/gaming: five sound runs end with the verifier's R_E .08 above the judge's, four gamed ones with .17 to .30
MAX_VERIFIER_ABOVE_JUDGE = 0.12
# of a reward of up to 3: what a run gains by chance between its thirds is below .03 (tests/fixtures/curves.json)
REWARD_RISE = 0.05
# experiments/gaming: sound runs keep .95 of their length and more, collapsed ones .64 to .76
MIN_LENGTH_RATIO = 0.80
# experiments/gaming: sound runs keep 97 % different rationales, collapsed ones 45 to 59 %
MIN_DISTINCT_RATIO = 0.70
# a policy that still describes keeps its share of descriptive sentences within a tenth (tests/fixtures/curves.json)
MIN_NEUTRAL_RATIO = 0.50
# a third of every rollout then costs compute and has no gradient; a sound run has under 1 % (tests/fixtures/curves.json)
MAX_ZERO_VARIANCE_GROUPS = 1 / 3
# more than the sampling noise of 2,336 clips, so that such answers alone would move WAR
MAX_UNREADABLE = 0.03


@dataclass(frozen=True)
class Diagnosis:
    """A rule that fired."""

    rule: str  # its name
    finding: str  # what is wrong, a sentence
    figures: Mapping[str, float]  # the metrics that it fired on
    advice: str  # what to try


def diagnose(metrics: Metrics, curves: Curves | None = None, start: Metrics | None = None) -> list[Diagnosis]:
    """Apply every rule to a run's metrics and curves; `start` are the metrics of the model that it began with."""
    return [fired for rule in RULES if (fired := rule(metrics, curves or {}, start or {})) is not None]


def war_above_eea(metrics: Metrics, curves: Curves, start: Metrics) -> Diagnosis | None:
    """High WAR with low EEA: answers are right, their reasons are not (paper, the failure that the ERV addresses)."""
    war, eea = metrics.get("war"), metrics.get("eea")
    if war is None or eea is None or war - eea < MAX_WAR_ABOVE_EEA:
        return None
    return Diagnosis(
        "unexplained_answers",
        "answers are right far more often than the explanations that they come with",
        {"war": war, "eea": eea},
        "Train with the verifier's reward (reward=erv); if that was done, look at the verifier: its figures on held-out "
        "sentences, verifier.data.augmentation=true, a larger encoder, reward.explanation.weight=2.",
    )


def eea_above_war(metrics: Metrics, curves: Curves, start: Metrics) -> Diagnosis | None:
    """High EEA with low WAR: explanations name the true emotion, answers do not."""
    war, eea = metrics.get("war"), metrics.get("eea")
    if war is None or eea is None or eea - war < MAX_EEA_ABOVE_WAR:
        return None
    return Diagnosis(
        "unused_explanations",
        "explanations speak of the true emotion more often than the answers name it",
        {"war": war, "eea": eea},
        "Weigh the answer more: reward.answer.weight=2, and in SFT algo.answer_weight.",
    )


def epc_falls(metrics: Metrics, curves: Curves, start: Metrics) -> Diagnosis | None:
    """EPC falling during GRPO: answers and explanations are learnt apart."""
    epc = Change.of(curves.get("dev/epc"))
    if epc is None or not Change(-epc.first, -epc.middle, -epc.last, epc.error).rises(EPC_FALL):
        return None
    return Diagnosis(
        "epc_falls",
        "explanation and answer agree less and less while the policy trains",
        {"dev/epc, first third": epc.first, "dev/epc, last third": epc.last},
        "Weigh the explanation more: reward.explanation.weight=2, or lower reward.answer.weight.",
    )


def reward_gaming(metrics: Metrics, curves: Curves, start: Metrics) -> Diagnosis | None:
    """The verifier's reward rises and an independent judge's does not: the policy learns the verifier's mistakes."""
    fired = _verifier_above_judge(metrics, curves, start) or _judge_does_not_rise(curves)
    if not fired:
        return None
    return Diagnosis(
        "reward_gaming",
        "the reward rises and what another reader finds in the explanations does not",
        fired,
        "Stop earlier, at the step where the two part; keep the KL term (algo.objective.beta=0.04); train the verifier on more "
        "and other text (verifier.data.augmentation=true), or with an audit verifier as judge beside it.",
    )


def _verifier_above_judge(metrics: Metrics, curves: Curves, start: Metrics) -> dict[str, float] | None:
    """R_E by the verifier and by the judge, at the end of the dev curve or, without one, on the evaluated clips."""
    verifier, judge = (Change.of(curves.get(f"dev/{name}_reward")) for name in ("verifier", "judge"))
    if verifier is not None and judge is not None:
        gap, gap_at_start = verifier.last - judge.last, verifier.first - judge.first
        if gap >= MAX_VERIFIER_ABOVE_JUDGE and gap - gap_at_start > 2 * float(np.hypot(verifier.error, judge.error)):
            return {
                "dev/verifier_reward, last third": verifier.last,
                "dev/judge_reward, last third": judge.last,
                "apart in the first third": gap_at_start,
            }
        return None
    final_gap, start_gap = _reward_gap(metrics), _reward_gap(start) or 0.0
    if final_gap is not None and final_gap - max(start_gap, 0.0) >= MAX_VERIFIER_ABOVE_JUDGE:
        return {
            "verifier_reward": metrics["verifier_reward"],
            "judge_reward": metrics["judge_reward"],
            "apart at the start": start_gap,
        }
    return None


def _reward_gap(metrics: Metrics) -> float | None:
    verifier, judge = metrics.get("verifier_reward"), metrics.get("judge_reward")
    return None if verifier is None or judge is None else verifier - judge


def _judge_does_not_rise(curves: Curves) -> dict[str, float] | None:
    """The training reward rises and the judge's EEA does not, over the whole run or since its middle."""
    reward, eea = Change.of(curves.get("train/reward")), Change.of(curves.get("dev/eea"))
    if reward is None or eea is None:
        return None
    for since in ("first", "middle"):
        if reward.rises(REWARD_RISE, since) and eea.last - getattr(eea, since) <= 0:
            return {
                f"train/reward, {since} third": getattr(reward, since),
                "train/reward, last third": reward.last,
                f"dev/eea, {since} third": getattr(eea, since),
                "dev/eea, last third": eea.last,
            }
    return None


def length_collapse(metrics: Metrics, curves: Curves, start: Metrics) -> Diagnosis | None:
    """Rationales become shorter while the policy trains."""
    fired: dict[str, float] = {}
    length = Change.of(curves.get("train/completions/mean_length"))
    if length is not None and length.last < MIN_LENGTH_RATIO * length.first:
        fired = {"tokens, first third": length.first, "tokens, last third": length.last}
    elif start.get("sentences_mean") and metrics.get("sentences_mean", 0) < MIN_LENGTH_RATIO * start["sentences_mean"]:
        fired = {"sentences_mean": metrics["sentences_mean"], "sentences_mean at the start": start["sentences_mean"]}
    if not fired:
        return None
    return Diagnosis(
        "length_collapse",
        "rationales become short: a few safe sentences earn as much as many",
        fired,
        "Keep the KL term (algo.objective.beta=0.04), stop earlier, or lower optim.lr.",
    )


def same_rationales(metrics: Metrics, curves: Curves, start: Metrics) -> Diagnosis | None:
    """Many sampled completions have the same rationale."""
    distinct, before = metrics.get("distinct_rationales"), start.get("distinct_rationales", 1.0)
    if distinct is None or distinct >= MIN_DISTINCT_RATIO * before:
        return None
    return Diagnosis(
        "same_rationales",
        "many sampled rationales are the same, word for word",
        {"distinct_rationales": distinct},
        "Keep the KL term (algo.objective.beta=0.04), stop earlier, or sample more hotly (algo.sampling.temperature).",
    )


def neutral_avoidance(metrics: Metrics, curves: Curves, start: Metrics) -> Diagnosis | None:
    """Sentences that only describe earn nothing and disappear, or clips without emotion are no longer called so."""
    fired: dict[str, float] = {}
    for name in ("dev/neutral_share", "train/completions/neutral_share"):
        share = Change.of(curves.get(name))
        if share is not None and share.last < MIN_NEUTRAL_RATIO * share.first:
            fired |= {f"{name}, first third": share.first, f"{name}, last third": share.last}
    now, before = metrics.get("neutral_share"), start.get("neutral_share")
    if not fired and now is not None and before is not None and now < MIN_NEUTRAL_RATIO * before:
        fired = {"neutral_share": now, "neutral_share at the start": before}
    shares = _neutral_answers(metrics)
    if shares is not None and shares[0] < MIN_NEUTRAL_RATIO * shares[1]:
        fired |= {"clips answered neutral": shares[0], "clips that are neutral": shares[1]}
    if not fired:
        return None
    return Diagnosis(
        "neutral_avoidance",
        "what is neutral disappears: descriptions without an emotion, or the answer itself",
        fired,
        "Keep the KL term (algo.objective.beta=0.04); reward neutral clips by what is there "
        "(reward.explanation.on_neutral_gold=match_only); look at recall of neutral before trusting a higher FCR.",
    )


def _neutral_answers(metrics: Metrics) -> tuple[float, float] | None:
    """Shares of clips that are answered neutral and that are neutral; None with fewer than 20 neutral clips."""
    confusion, classes = metrics.get("confusion"), list(metrics.get("per_class") or ())
    if confusion is None or "neutral" not in classes:
        return None
    counts, neutral = np.asarray(confusion), classes.index("neutral")
    answered, gold, total = counts[:, neutral].sum(), counts[neutral].sum(), counts.sum()
    return None if gold < 20 else (float(answered / total), float(gold / total))


def zero_variance_groups(metrics: Metrics, curves: Curves, start: Metrics) -> Diagnosis | None:
    """Many groups have equal rewards, hence zero advantages and no gradient."""
    share = Change.of(curves.get("train/frac_reward_zero_std"))
    if share is None or share.last < MAX_ZERO_VARIANCE_GROUPS:
        return None
    return Diagnosis(
        "zero_variance_groups",
        "many groups of answers earn the same, so that they teach nothing",
        {"train/frac_reward_zero_std, last third": share.last},
        "algo.zero_spread=resample, a larger algo.group_size, a higher algo.sampling.temperature, or harder clips; or stop: the "
        "policy has learnt what this reward can teach.",
    )


def off_form(metrics: Metrics, curves: Curves, start: Metrics) -> Diagnosis | None:
    """Answers off the list or not of the required form, which count as wrong."""
    unknown, form = metrics.get("unknown_rate", 0.0), metrics.get("format_rate", 1.0)
    if unknown < MAX_UNREADABLE and form > 1 - MAX_UNREADABLE:
        return None
    return Diagnosis(
        "off_form",
        "answers miss the form or the label list, and count as wrong",
        {"unknown_rate": unknown, "format_rate": form, "finished_rate": metrics.get("finished_rate", 1.0)},
        "If answers do not end, raise evaluation.max_new_tokens; otherwise more SFT, or look at the texts in predictions.jsonl.",
    )


RULES: tuple[Callable[[Metrics, Curves, Metrics], Diagnosis | None], ...] = (
    war_above_eea,
    eea_above_war,
    epc_falls,
    reward_gaming,
    length_collapse,
    same_rationales,
    neutral_avoidance,
    zero_variance_groups,
    off_form,
)
