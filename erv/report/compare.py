"""Compare rows of the table with a baseline, clip by clip. The statistics are those of erv.evaluation.metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from erv.evaluation.metrics.definitions import Metric, headline, shown_in
from erv.evaluation.metrics.significance import Difference, compare, holm
from erv.evaluation.metrics.summary import DEFAULT, has_verdict, table_of
from erv.report.rows import Row
from erv.report.runs import Result
from erv.types import Prediction

ALPHA = 0.05


@dataclass(frozen=True)
class Compared:
    """A row minus the baseline on the clips that both have."""

    row: Row
    clips: int
    differences: dict[str, Difference]  # by metric
    holm: dict[str, float] = field(default_factory=dict)  # metric -> p-value after Holm's correction

    def mark(self, metric: Metric) -> str:
        """▲ or ▼ where the row is better or worse than the baseline at Holm's p < 0.05, nothing otherwise."""
        if self.holm.get(metric.name, 1.0) >= ALPHA or metric.higher_is_better is None:
            return ""
        higher = self.differences[metric.name].value > 0
        return "▲" if higher == metric.higher_is_better else "▼"


@dataclass(frozen=True)
class Comparison:
    """Every row that shares clips with the baseline."""

    baseline: Row
    rows: list[Compared]
    tests: int  # number of p-values that were corrected together

    @property
    def best(self) -> Compared:
        """The row that gains most: in FCR, in WAR where explanations were not judged."""
        judged = headline(judged=True).name
        metric = judged if all(judged in c.differences for c in self.rows) else headline(judged=False).name
        return max(self.rows, key=lambda compared: compared.differences[metric].value)


def against(baseline: Row, rows: Sequence[Row]) -> Comparison:
    """Compare each of `rows` with `baseline`; a row without clips in common is left out."""
    compared_rows = [compared for row in rows if row is not baseline and (compared := _compare(baseline, row))]
    tests = [(compared, name) for compared in compared_rows for name in compared.differences]
    p_values = holm([compared.differences[name].p for compared, name in tests])
    for (compared, name), p in zip(tests, p_values, strict=True):
        compared.holm[name] = p
    return Comparison(baseline, compared_rows, len(tests))


def _compare(baseline: Row, row: Row) -> Compared | None:
    pairs = [(base, other, _shared_clips(base, other)) for base in baseline.runs for other in row.runs]
    pairs = [pair for pair in pairs if pair[2]]
    if not pairs:
        return None
    runs = [run for base, other, _ in pairs for run in (base, other)]
    base_answers = _answers([(base, clips) for base, _, clips in pairs])
    row_answers = _answers([(other, clips) for _, other, clips in pairs])
    judge = _common_judge(runs, [*base_answers, *row_answers])
    same_settings = all(run.metric_settings == runs[0].metric_settings for run in runs)
    settings = runs[0].metric_settings if same_settings else DEFAULT
    base_table, row_table = (table_of(a, runs[0].taxonomy, judge, settings) for a in (base_answers, row_answers))
    names = [metric.name for metric in shown_in("results") if judge is not None or not metric.needs_judge]
    return Compared(row, len(base_table.clip_ids), compare(base_table, row_table, names))


def _common_judge(runs: Sequence[Result], answers: Sequence[Prediction]) -> str | None:
    """The judge that read all the answers of both sides; None where there is none: two judges are two scales."""
    judges = {run.judge for run in runs}
    judge = judges.pop() if len(judges) == 1 else None
    return judge if judge and all(has_verdict(p, judge) for p in answers) else None


def _shared_clips(first: Result, second: Result) -> set[str]:
    """The clips that both answered; none where they disagree on a clip's true emotion: equal ids are then different clips."""
    if first.labels != second.labels:
        return set()
    clips = first.answers.keys() & second.answers.keys()
    same_gold = all(first.answers[clip][0].gold == second.answers[clip][0].gold for clip in clips)
    return clips if same_gold else set()


def _answers(parts: Sequence[tuple[Result, set[str]]]) -> list[Prediction]:
    """The answers of some runs to some of their clips; a clip that several seeds share has the answers of all of them."""
    clips_of: dict[int, set[str]] = {}
    for run, clips in parts:
        clips_of.setdefault(id(run), set()).update(clips)
    runs = {id(run): run for run, _ in parts}
    answers = [p for key, run in runs.items() for clip in sorted(clips_of[key]) for p in run.answers[clip]]
    # under another seed an id may be another clip
    return [replace(p, clip_id=f"{p.clip_id}/{p.gold}") for p in answers]
