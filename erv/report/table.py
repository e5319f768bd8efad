"""The table as Markdown: rows with their metrics, and their differences from baselines on the same clips."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from erv.evaluation.metrics.definitions import Column, Metric, headline, shown_in, style_columns
from erv.report.compare import Compared, Comparison
from erv.report.config_diff import as_text
from erv.report.rows import Row, columns
from erv.report.runs import Result, Unfinished


def percent(value: float | None, sign: str = "") -> str:
    """A fraction in percent, a dash for what was not measured."""
    return "–" if value is None else f"{100 * value:{sign}.1f}"


def p_value(p: float) -> str:
    """A p-value as papers write it, with its sign of equality."""
    return "< .001" if p < 0.001 else f"= {p:.3f}".replace(" 0.", " .")


def _range(bounds: Sequence[float], sign: str = "") -> str:
    return f"[{percent(bounds[0], sign)}, {percent(bounds[1], sign)}]"


def _cell(row: Row, metric: Metric, mark: str = "") -> str:
    estimate = row.estimate(metric.name)
    if estimate is None:
        return "–"
    sd = "" if estimate.sd is None else f" ± {percent(estimate.sd)}"
    return f"{percent(estimate.value)}{sd}{mark and f' {mark}'} {_range(estimate.interval)}"


def style(row: Row) -> list[str]:
    """The cells of `style_columns`: a collapse and a gamed verifier show here before they show in FCR."""
    return [_style_cell(row, column, metric) for column, metric in style_columns()]


def _style_cell(row: Row, column: Column, metric: Metric) -> str:
    """The mean over the runs that measured it."""
    decoded = [run.scores if column.decoding == "sampled" else run.metrics.get("greedy") or {} for run in row.runs]
    values = [scores[metric.name] for scores in decoded if scores.get(metric.name) is not None]
    return metric.format(mean(values) if values else None)


def class_groups(rows: Sequence[Row]) -> dict[tuple[str, ...], list[Row]]:
    """The rows by their label set: runs on several data sets share no classes."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.runs[0].labels), []).append(row)
    return groups


def per_class(row: Row, metric: str) -> list[float | None]:
    """ "recall" or "eea" of each class, mean over seeds; None where a run was not judged."""
    values = [[run.scores["per_class"][label][metric] for run in row.runs] for label in row.runs[0].labels]
    measured = metric == "recall" or all(run.judge is not None for run in row.runs)
    return [mean(of_class) if measured else None for of_class in values]


def note(rows: Sequence[Row]) -> str:
    """How the metrics were measured, in two sentences."""
    runs = [run for row in rows for run in row.runs]
    if any(len(row.runs) > 1 for row in rows):
        spread = "Mean ± standard deviation over seeds; brackets: 95 % interval"
        method = "Student over seeds where there are several, bootstrap over clips otherwise"
    else:
        spread, method = "Brackets: 95 % interval", "bootstrap over clips"
    return f"Percent. {'; '.join(dict.fromkeys(map(_measured, runs)))}. {spread} ({method})."


def _measured(run: Result) -> str:
    evaluation = run.metrics.get("evaluation") or {}
    decoding = "greedy answers"
    if run.decoding == "sampled":
        counts = sorted({len(of_clip) for of_clip in run.answers.values()})
        answers = f"{counts[0]} answer{'s' * (counts[0] > 1)}"
        if len(counts) > 1:
            answers = f"{counts[0]} to {counts[-1]} answers"
        temperature = evaluation.get("temperature")  # not known of answers that were made elsewhere
        origin = ", made elsewhere" if temperature is None else f" at T = {temperature}"
        decoding = f"{answers} each{origin}"
    judge = f"explanations read by judge '{run.judge}'" if run.judge else "explanations read by no judge"
    return f"{run.metrics['clips']} {evaluation.get('split', '')} clips a run, {decoding}, {judge}"


def as_markdown(rows: Sequence[Row], comparisons: Sequence[Comparison], unfinished: Sequence[Unfinished] = ()) -> str:
    """The tables as Markdown, in percent; marks are those of the first comparison."""
    keys, metrics = columns(rows), shown_in("results")
    several = any(len(row.runs) > 1 for row in rows)
    compared = {c.row.label: c for c in comparisons[0].rows} if comparisons else {}
    each = headline(judged=True)
    head = ["arm", *keys.values(), "seeds", *(metric.heading for metric in metrics)]
    head += [f"{each.heading} per seed"] if several else []
    body = []
    for row in rows:
        settings = [as_text(row.settings.get(key)) for key in keys]
        marks = [compared[row.label].mark(metric) if row.label in compared else "" for metric in metrics]
        cells = [_cell(row, metric, mark) for metric, mark in zip(metrics, marks, strict=True)]
        per_seed = [" ".join(percent(run.scores.get(each.name)) for run in row.runs)] if several else []
        body.append([row.arm, *settings, str(len(row.runs)), *cells, *per_seed])
    text = grid(head, body) + "\n" + note(rows)
    if comparisons:
        text += f" ▲ ▼: better or worse than {comparisons[0].baseline.label}, Holm's p < .05."
    style_head = ["row", *(column.heading for column, _ in style_columns())]
    text += "\n\n" + grid(style_head, [[row.label, *style(row)] for row in rows])
    text += "Means over seeds; R_E by the verifier and by the judge, sentence by sentence; shares in percent.\n"
    for labels, members in class_groups(rows).items():
        judged = [row for row in members if row.estimate("eea")]
        if judged:
            eea = [[row.label, *map(percent, per_class(row, "eea"))] for row in judged]
            text += "\n" + grid(["EEA of", *labels], eea)
    text += "".join(map(_comparison, comparisons))
    if unfinished:
        text += "\nUnfinished, not in the tables:\n" + "".join(f"- {run.folder}\n" for run in unfinished)
    return text


def _comparison(comparison: Comparison) -> str:
    """The table of differences from a baseline."""
    metrics = shown_in("results")

    def cell(compared: Compared, metric: Metric) -> str:
        d = compared.differences.get(metric.name)
        if d is None:
            return "–"
        return f"{percent(d.value, '+')} {_range(d.interval, '+')} p {p_value(compared.holm[metric.name])}"

    head = ["difference", "clips", *(metric.heading for metric in metrics)]
    body = [
        [f"{c.row.label} - {comparison.baseline.label}", str(c.clips), *(cell(c, metric) for metric in metrics)]
        for c in comparison.rows
    ]
    return f"\n{grid(head, body)}\n{tests(comparison)}\n"


def tests(comparison: Comparison) -> str:
    """Which tests the p-values of a comparison are from."""
    names = dict.fromkeys(d.test for compared in comparison.rows for d in compared.differences.values())
    return (
        f"Same clips on both sides; paired bootstrap intervals. p: {', '.join(names)}; corrected by Holm over the "
        f"{comparison.tests} tests of this table."
    )


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns of one width."""
    lines = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in [head, *rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    padded.insert(1, ["-" * width for width in widths])
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)
