"""The table as Markdown: rows with their figures, and their differences from baselines on the same clips."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from erv.report.compare import Compared, Comparison
from erv.report.config_diff import spoken
from erv.report.rows import Row, columns
from erv.report.runs import FIGURES, Result, Unfinished

STYLE = {  # heading -> decoding and figure of metrics.json
    "R_E verifier": ("sampled", "verifier_reward"), "R_E judge": ("sampled", "judge_reward"),
    "sentences": ("sampled", "sentences_mean"), "tokens": ("sampled", "tokens_mean"),
    "neutral": ("sampled", "neutral_share"), "repeated": ("sampled", "repeated_sentences"),
    "copied": ("sampled", "copy_rate"), "well formed": ("sampled", "format_rate"),
    "unknown": ("sampled", "unknown_rate"), "distinct": ("sampled", "distinct_rationales"),
    "distinct, greedy": ("greedy", "distinct_rationales"), "FCR, greedy": ("greedy", "fcr"),
}  # fmt: skip


def percent(value: float | None, sign: str = "") -> str:
    """A fraction in percent, a dash for what was not measured."""
    return "–" if value is None else f"{100 * value:{sign}.1f}"


def p_value(p: float) -> str:
    """A p-value as papers write it, with its sign of equality."""
    return "< .001" if p < 0.001 else f"= {p:.3f}".replace(" 0.", " .")


def _range(bounds: Sequence[float], sign: str = "") -> str:
    return f"[{percent(bounds[0], sign)}, {percent(bounds[1], sign)}]"


def _cell(row: Row, name: str, mark: str = "") -> str:
    figure = row.figure(name)
    if figure is None:
        return "–"
    sd = "" if figure.sd is None else f" ± {percent(figure.sd)}"
    return f"{percent(figure.value)}{sd}{mark and f' {mark}'} {_range(figure.interval)}"


def style(row: Row) -> list[str]:
    """How a row's rationales are written; a collapse and a gamed verifier show here before they show in FCR."""
    cells = []
    for decoding, name in STYLE.values():
        if decoding == "sampled":
            values = [run.figures.get(name) for run in row.runs]
        else:
            values = [(run.metrics.get("greedy") or {}).get(name) for run in row.runs]
        known = [value for value in values if value is not None]
        shown = mean(known) if known else None
        cells.append(f"{shown:.1f}" if shown is not None and name.endswith("_mean") else percent(shown))
    return cells


def class_groups(rows: Sequence[Row]) -> dict[tuple[str, ...], list[Row]]:
    """The rows by their label set: runs of several corpora share no classes."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row.runs[0].labels), []).append(row)
    return found


def per_class(row: Row, figure: str) -> list[float | None]:
    """ "recall" or "eea" of each class, mean over seeds: what the mean over clips hides."""
    values = [[run.figures["per_class"][label][figure] for run in row.runs] for label in row.runs[0].labels]
    judged = figure == "recall" or all(run.judge is not None for run in row.runs)
    return [mean(found) if judged else None for found in values]


def note(rows: Sequence[Row]) -> str:
    """How the figures were measured, in two sentences."""
    runs = [run for row in rows for run in row.runs]
    several = any(len(row.runs) > 1 for row in rows)
    how = (
        "Student over seeds where there are several, bootstrap over clips otherwise"
        if several
        else "bootstrap over clips"
    )
    spread = "Mean ± standard deviation over seeds; brackets: 95 % interval" if several else "Brackets: 95 % interval"
    return f"Percent. {'; '.join(dict.fromkeys(map(_measured, runs)))}. {spread} ({how})."


def _measured(run: Result) -> str:
    plan = run.metrics.get("evaluation") or {}
    counts = sorted({len(found) for found in run.answers.values()})
    several = (
        f"{counts[0]} to {counts[-1]} answers" if len(counts) > 1 else f"{counts[0]} answer{'s' * (counts[0] > 1)}"
    )
    how = "greedy answers"
    if run.decoding == "sampled":  # of answers made elsewhere no temperature is known
        how = f"{several} each" + (
            f" at T = {plan['temperature']}" if plan.get("temperature") is not None else ", made elsewhere"
        )
    judge = f"explanations read by judge '{run.judge}'" if run.judge else "explanations read by no judge"
    return f"{run.metrics['clips']} {plan.get('split', '')} clips a run, {how}, {judge}"


def as_markdown(rows: Sequence[Row], comparisons: Sequence[Comparison], unfinished: Sequence[Unfinished] = ()) -> str:
    """The tables as Markdown, in percent; marks are those of the first comparison."""
    keys = columns(rows)
    several = any(len(row.runs) > 1 for row in rows)
    marks = {c.row.label: c for c in comparisons[0].rows} if comparisons else {}
    head = ["arm", *keys.values(), "seeds", *(name.upper() for name in FIGURES), *(["FCR per seed"] if several else [])]
    body = []
    for row in rows:
        given = [spoken(row.settings.get(key)) for key in keys]
        figures = [_cell(row, n, marks[row.label].mark(n) if row.label in marks else "") for n in FIGURES]
        each = [" ".join(percent(run.figures["fcr"]) for run in row.runs)] if several else []
        body.append([row.arm, *given, str(len(row.runs)), *figures, *each])
    text = grid(head, body) + "\n" + note(rows)
    if comparisons:
        text += f" ▲ ▼: better or worse than {comparisons[0].baseline.label}, Holm's p < .05."
    text += "\n\n" + grid(["row", *STYLE], [[row.label, *style(row)] for row in rows])
    text += "Means over seeds; R_E by the verifier and by the judge, sentence by sentence; shares in percent.\n"
    for labels, members in class_groups(rows).items():
        judged = [row for row in members if row.figure("eea")]
        if judged:
            eea = [[row.label, *map(percent, per_class(row, "eea"))] for row in judged]
            text += "\n" + grid(["EEA of", *labels], eea)
    return text + "".join(map(_comparison, comparisons)) + _unfinished(unfinished)


def _comparison(comparison: Comparison) -> str:
    def cells(compared: Compared) -> list[str]:
        found = [compared.differences.get(name) for name in FIGURES]
        shown = [
            f"{percent(d.value, '+')} {_range(d.interval, '+')} p {p_value(compared.holm[name])}" if d else "–"
            for name, d in zip(FIGURES, found, strict=True)
        ]
        return [f"{compared.row.label} - {comparison.baseline.label}", str(compared.clips), *shown]

    head = ["difference", "clips", *(name.upper() for name in FIGURES)]
    return f"\n{grid(head, [cells(compared) for compared in comparison.rows])}\n{tests(comparison)}\n"


def tests(comparison: Comparison) -> str:
    """Which tests the p-values of a comparison are from."""
    names = dict.fromkeys(d.test for compared in comparison.rows for d in compared.differences.values())
    return (
        f"Same clips on both sides; paired bootstrap intervals. p: {', '.join(names)}; corrected by Holm over the "
        f"{comparison.tests} tests of this table."
    )


def _unfinished(runs: Sequence[Unfinished]) -> str:
    return "\nUnfinished, not in the tables:\n" + "".join(f"- {run.folder}\n" for run in runs) if runs else ""


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns of one width."""
    lines = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in [head, *rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    padded.insert(1, ["-" * width for width in widths])
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)
