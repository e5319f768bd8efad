"""Every metric of an evaluation, defined once: its name, its needs, the function that computes it, and where it is shown.

metrics.json, the console, the validation during training, and the tables and the page of `erv.report` read METRICS. A new metric
therefore takes two edits: a function (see `answer_table` and `text_stats`) and its definition in METRICS. Code outside this
package calls `register` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from erv.evaluation.metrics import answer_table, text_stats
from erv.evaluation.metrics.answer_table import AnswerTable
from erv.evaluation.metrics.text_stats import Answers
from erv.types import Decoding

Need = Literal["labels", "judge", "verifier"]
Place = Literal["console", "judge_line", "results", "run_json", "validation", "headline"]
ClassParts = tuple[np.ndarray, np.ndarray, np.ndarray]  # hits, rows that count, classes that exist: bool [N, C] each
LAST = 1000  # position after all others


@dataclass(frozen=True)
class AnswerShare:
    """A metric that is the share of answers that count."""

    counts: Callable[[AnswerTable], np.ndarray]  # bool [N]


@dataclass(frozen=True)
class ClassAverage:
    """A metric that is a mean over classes of sum(hits) / sum(counted rows)."""

    parts: Callable[[AnswerTable], ClassParts]


@dataclass(frozen=True)
class TextMean:
    """A metric that is the mean of values, one per completion or per sentence; None where there are no values."""

    values: Callable[[Answers], Sequence[float]]


@dataclass(frozen=True)
class Column:
    """A column of the table "How rationales are written"; columns are sorted by `position`."""

    heading: str
    position: int = LAST
    decoding: Decoding = "sampled"


@dataclass(frozen=True)
class Chart:
    """A learning curve on the page, of `dev/NAME`; charts are sorted by `position`."""

    title: str
    position: int = LAST


@dataclass(frozen=True)
class Metric:
    """What the rest of the code knows of a metric.

    `places` are where it is shown:
    "console": in the lines that an evaluation prints, with its interval;
    "judge_line": in the console's line of each judge;
    "results": as a column of the report's tables of results and differences, in Markdown, CSV, JSON, W&B and on the page;
    "run_json": in what `erv.report --json` says of each run;
    "validation": logged as `dev/NAME` while a policy trains;
    "headline": in the progress bar, and in the sentence that sums up a comparison.
    Only metrics with an interval (AnswerShare, ClassAverage) can be in the first three and in "headline". `columns` and `chart`
    put a metric into the report's table "How rationales are written" and among the learning curves of the page.
    """

    name: str  # key in metrics.json
    compute: AnswerShare | ClassAverage | TextMean
    description: str
    label: str = ""  # as headings show it; default: the name
    unit: Literal["percent", "number"] = "percent"  # percent: a fraction that is shown times 100
    higher_is_better: bool | None = True  # None: neither
    needs: frozenset[Need] = frozenset()  # what it is not measured without
    places: frozenset[Place] = frozenset()
    columns: tuple[Column, ...] = ()
    chart: Chart | None = None
    section: Literal["format", "rationales"] = "rationales"  # part of metrics.json, for a TextMean

    def __post_init__(self) -> None:
        refused = self.places & {"console", "judge_line", "results", "headline"}
        if isinstance(self.compute, TextMean) and refused:
            raise ValueError(
                f"metric {self.name!r} has no bootstrap interval, so it cannot be shown in {', '.join(sorted(refused))}; "
                "compute it as AnswerShare or ClassAverage"
            )

    @property
    def heading(self) -> str:
        """How tables and lines call it."""
        return self.label or self.name

    @property
    def needs_judge(self) -> bool:
        """Whether it is None without a judge's verdicts."""
        return "judge" in self.needs

    def format(self, value: float | None) -> str:
        """The value as tables show it, a dash for what was not measured."""
        if value is None:
            return "–"
        return f"{100 * value:.1f}" if self.unit == "percent" else f"{value:.1f}"


_RESULT: frozenset[Place] = frozenset({"console", "results", "validation"})

_METRICS = (
    Metric(
        "war",
        AnswerShare(answer_table.answer_is_right),
        "the answer is right",
        label="WAR",
        needs=frozenset({"labels"}),
        places=_RESULT | {"headline"},
        chart=Chart("WAR on dev clips", 2),
    ),
    Metric(
        "uar",
        ClassAverage(answer_table.recall_parts),
        "mean recall of the classes",
        label="UAR",
        needs=frozenset({"labels"}),
        places=_RESULT,
    ),
    Metric(
        "eea",
        AnswerShare(answer_table.explanation_is_right),
        "the explanation speaks of the true emotion",
        label="EEA",
        needs=frozenset({"labels", "judge"}),
        places=_RESULT | {"judge_line"},
        chart=Chart("EEA on dev clips", 3),
    ),
    Metric(
        "epc",
        AnswerShare(answer_table.explanation_matches_answer),
        "explanation and answer agree",
        label="EPC",
        needs=frozenset({"judge"}),
        places=_RESULT,
        chart=Chart("EPC on dev clips", 4),
    ),
    Metric(
        "fcr",
        AnswerShare(answer_table.both_are_right),
        "answer and explanation both right",
        label="FCR",
        needs=frozenset({"labels", "judge"}),
        places=_RESULT | {"judge_line", "headline"},
        columns=(Column("FCR, greedy", 12, "greedy"),),
        chart=Chart("FCR on dev clips", 1),
    ),
    Metric(
        "right_answer_wrong_reason",
        AnswerShare(answer_table.right_answer_wrong_reason),
        "the answer is right and its explanation is not",
        higher_is_better=False,
        needs=frozenset({"labels", "judge"}),
        places=frozenset({"console", "run_json"}),
    ),
    Metric(
        "unknown_rate",
        AnswerShare(answer_table.answer_is_unknown),
        "the answer names no label of the list",
        higher_is_better=False,
        places=frozenset({"console", "run_json"}),
        columns=(Column("unknown", 9),),
    ),
    Metric(
        "format_rate",
        TextMean(text_stats.well_formed),
        "completions of the form <think>…</think><answer>…</answer>",
        places=frozenset({"run_json", "validation"}),
        columns=(Column("well formed", 8),),
        section="format",
    ),
    Metric(
        "finished_rate",
        TextMean(text_stats.finished),
        "completions that ended before max_new_tokens",
        section="format",
    ),
    Metric(
        "sentences_mean",
        TextMean(text_stats.sentence_counts),
        "sentences of a rationale",
        unit="number",
        higher_is_better=None,
        columns=(Column("sentences", 3),),
    ),
    Metric(
        "neutral_share",
        TextMean(text_stats.neutral_sentences),
        "sentences that the verifier finds neutral and nothing else",
        higher_is_better=None,
        needs=frozenset({"verifier"}),
        places=frozenset({"validation"}),
        columns=(Column("neutral", 5),),
    ),
    Metric(
        "tokens_mean",
        TextMean(text_stats.token_counts),
        "generated tokens of a completion",
        unit="number",
        higher_is_better=None,
        columns=(Column("tokens", 4),),
    ),
    Metric(
        "distinct_rationales",
        TextMean(text_stats.first_of_its_text),
        "different think texts among all",
        columns=(Column("distinct", 10), Column("distinct, greedy", 11, "greedy")),
    ),
    Metric(
        "repeated_sentences",
        TextMean(text_stats.repeated_sentences),
        "sentences that occur word for word in the rationale of another clip",
        higher_is_better=False,
        columns=(Column("repeated", 6),),
    ),
    Metric(
        "copy_rate",
        TextMean(text_stats.copied_sentences),
        "sentences that occur word for word in the SFT data",
        higher_is_better=False,
        columns=(Column("copied", 7),),
    ),
    Metric(
        "verifier_reward",
        TextMean(text_stats.verifier_rewards),
        "R_E by the verifier that rewards",
        needs=frozenset({"labels", "verifier"}),
        places=frozenset({"validation"}),
        columns=(Column("R_E verifier", 1),),
        chart=Chart("R_E by the verifier, on dev clips", 5),
    ),
    Metric(
        "judge_reward",
        TextMean(text_stats.judge_rewards),
        "R_E with a judge in place of the verifier; far below verifier_reward: the policy exploits the verifier",
        needs=frozenset({"labels", "judge"}),
        places=frozenset({"validation"}),
        columns=(Column("R_E judge", 2),),
        chart=Chart("R_E by the judge, on dev clips", 6),
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}  # by name, in the order of metrics.json


def register(metric: Metric) -> None:
    """Add a metric after the others; ValueError for a name that is taken."""
    if metric.name in METRICS:
        raise ValueError(f"there is a metric {metric.name!r} already; choose another name")
    METRICS[metric.name] = metric


def shown_in(place: Place) -> list[Metric]:
    """The metrics that are shown in a place, in the order of METRICS."""
    return [metric for metric in METRICS.values() if place in metric.places]


def headline(judged: bool) -> Metric:
    """The metric that stands for a policy: with explanations judged the one that needs a judge (FCR), else WAR."""
    return next(metric for metric in shown_in("headline") if metric.needs_judge == judged)


def answer_metrics() -> list[Metric]:
    """The metrics of an AnswerTable, which have bootstrap intervals."""
    return [metric for metric in METRICS.values() if not isinstance(metric.compute, TextMean)]


def style_columns() -> list[tuple[Column, Metric]]:
    """The columns of the table "How rationales are written"."""
    columns = [(column, metric) for metric in METRICS.values() for column in metric.columns]
    return sorted(columns, key=lambda pair: pair[0].position)


def charts() -> dict[str, str]:
    """Logged name -> title of the charts of validation metrics."""
    with_chart = [(metric.chart, metric.name) for metric in METRICS.values() if metric.chart is not None]
    return {f"dev/{name}": chart.title for chart, name in sorted(with_chart, key=lambda pair: pair[0].position)}
