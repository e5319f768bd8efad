"""Rows of the table against a baseline, clip by clip. The statistics are those of erv.evaluation.metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from erv.evaluation.metrics.scores import JUDGED
from erv.evaluation.metrics.significance import Difference, compare, holm
from erv.evaluation.metrics.summary import DEFAULT, table_of
from erv.report.rows import Row
from erv.report.runs import FIGURES, Result
from erv.types import Prediction

ALPHA = 0.05


@dataclass(frozen=True)
class Compared:
    """A row minus the baseline on the clips that both have: a difference per figure, and its p-value by Holm."""

    row: Row
    clips: int
    differences: dict[str, Difference]
    holm: dict[str, float] = field(default_factory=dict)

    def mark(self, figure: str) -> str:
        """▲ or ▼ where the row is better or worse than the baseline at Holm's p < 0.05, nothing otherwise."""
        if self.holm.get(figure, 1.0) >= ALPHA:
            return ""
        return "▲" if self.differences[figure].value > 0 else "▼"


@dataclass(frozen=True)
class Comparison:
    """Every row that shares clips with the baseline; `tests` p-values were corrected together."""

    baseline: Row
    rows: list[Compared]
    tests: int

    @property
    def best(self) -> Compared:
        """The row that gains most: in FCR, in WAR where explanations were not read."""
        figure = "fcr" if all("fcr" in compared.differences for compared in self.rows) else "war"
        return max(self.rows, key=lambda compared: compared.differences[figure].value)


def against(baseline: Row, rows: Sequence[Row]) -> Comparison:
    """Each of `rows` against `baseline`; a row without clips in common is left out."""
    found = [compared for row in rows if row is not baseline and (compared := _compared(baseline, row))]
    places = [(c, name) for c in found for name in c.differences]
    for (compared, name), p in zip(places, holm([c.differences[name].p for c, name in places]), strict=True):
        compared.holm[name] = p
    return Comparison(baseline, found, len(places))


def _compared(baseline: Row, row: Row) -> Compared | None:
    pairs = [(one, other, _shared(one, other)) for one in baseline.runs for other in row.runs]
    pairs = [pair for pair in pairs if pair[2]]
    if not pairs:
        return None
    runs = [run for one, other, _ in pairs for run in (one, other)]
    first = _answers([(one, clips) for one, _, clips in pairs])
    second = _answers([(other, clips) for _, other, clips in pairs])
    judge = _judge(runs, [*first, *second])
    same = all(run.counting == runs[0].counting for run in runs)
    counting = runs[0].counting if same else DEFAULT
    one, other = (table_of(answers, runs[0].taxonomy, judge, counting) for answers in (first, second))
    names = [name for name in FIGURES if judge is not None or name not in JUDGED]
    return Compared(row, len(one.ids), compare(one, other, names))


def _judge(runs: Sequence[Result], answers: Sequence[Prediction]) -> str | None:
    """The judge that read all the answers of both sides; None where there is none: two judges are two scales."""
    judges = {run.judge for run in runs}
    judge = judges.pop() if len(judges) == 1 else None
    return judge if judge and all(any(v.judge == judge for v in p.verdicts) for p in answers) else None


def _shared(one: Result, other: Result) -> set[str]:
    """The clips that both answered; none where they disagree about a clip's true emotion: those are other clips."""
    if one.labels != other.labels:
        return set()
    first, second = one.answers, other.answers
    clips = first.keys() & second.keys()
    return clips if all(first[clip][0].gold == second[clip][0].gold for clip in clips) else set()


def _answers(parts: Sequence[tuple[Result, set[str]]]) -> list[Prediction]:
    """The answers of some runs to some of their clips; a clip that several seeds share has the answers of all of them."""
    wanted: dict[int, set[str]] = {}
    for run, clips in parts:
        wanted.setdefault(id(run), set()).update(clips)
    runs = {id(run): run for run, _ in parts}
    found = [p for key, run in runs.items() for clip in sorted(wanted[key]) for p in run.answers[clip]]
    # under another seed an id may be another clip
    return [replace(p, clip_id=f"{p.clip_id}/{p.gold}") for p in found]
