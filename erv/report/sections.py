"""The HTML page's content, section by section: tables, quadrants, diagnosis, data and runs, as variables of the template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from statistics import mean
from typing import Any

from erv.evaluation.metrics.answer_table import quadrants
from erv.evaluation.metrics.definitions import Metric, headline, shown_in, style_columns
from erv.evaluation.metrics.summary import table_of
from erv.report.compare import Compared, Comparison
from erv.report.config_diff import as_text, flat
from erv.report.rows import Row, columns
from erv.report.runs import Result
from erv.report.table import class_groups, note, p_value, per_class, percent, style, tests

QUADRANTS = {
    "right_coherent": "right answer, coherent explanation (FCR)",
    "right_incoherent": "right answer, wrong reason",
    "wrong_coherent": "wrong answer, right reason",
    "wrong_incoherent": "answer and explanation wrong",
}
COLOURS = 8  # of rows, in page.css


def content(rows: Sequence[Row], comparisons: Sequence[Comparison], with_curves: bool) -> dict[str, Any]:
    """The variables of the template; `with_curves` says whether the page has learning curves."""
    runs = [run for row in rows for run in row.runs]
    keys = columns(rows)
    row_variables = [_row(row, i, keys, comparisons) for i, row in enumerate(rows)]
    by_label = {variables["label"]: variables for variables in row_variables}
    comparison_tables = [_comparison(comparison, by_label) for comparison in comparisons]
    diagnosis, quadrant_bars, judges, media = _diagnosis(runs), _quadrants(rows), _judges(runs), _media(runs)
    sections = [
        ("results", "Results", True),
        ("comparison", "Differences", comparison_tables),
        ("diagnosis", "Diagnosis", diagnosis is not None),
        ("quadrants", "Reasons", quadrant_bars),
        ("curves", "Curves", with_curves),
        ("classes", "Classes", True),
        ("confusion", "Confusion", True),
        ("style", "Style", True),
        ("judges", "Judges", judges["rows"]),
        ("clips", "Clips", True),
        ("data", "Data", media),
        ("runs", "Runs", True),
    ]
    return {
        **_title(runs),
        "headline": _headline(comparisons),
        "sections": [(anchor, title) for anchor, title, present in sections if present],
        "keys": list(keys.values()),
        "rows": row_variables,
        "metrics": shown_in("results"),
        "note": note(rows),
        "comparisons": comparison_tables,
        "diagnosis": diagnosis,
        "quadrants": quadrant_bars,
        "quadrant_names": QUADRANTS,
        "classes": _classes(rows),
        "style": {
            "head": ["row", *(column.heading for column, _ in style_columns())],
            "rows": [[row.label, *style(row)] for row in rows],
        },
        "judges": judges,
        "media": media,
        "runs": [_about(run) for run in runs],
        "differing": _differing(rows),
    }


def _name(run: Result) -> str:
    """The run among those of its row."""
    return f"{run.label}, seed {run.seed}"


def _title(runs: Sequence[Result]) -> dict[str, str]:
    groups = dict.fromkeys(str(run.config.get("group") or run.folder.parent.name) for run in runs)
    corpora = dict.fromkeys(str(run.corpus) for run in runs if run.corpus)
    judges = dict.fromkeys(run.judge for run in runs if run.judge)
    parts = [f"{len(runs)} runs" if len(runs) > 1 else "1 run", *corpora]
    parts.append(f"explanations read by {' and '.join(judges)}" if judges else "explanations read by no judge")
    return {"title": f"Emotions and reasons: {', '.join(groups)}", "subtitle": " · ".join(parts)}


def _headline(comparisons: Sequence[Comparison]) -> str | None:
    """The result of the first comparison in a sentence: the row that gains most, in FCR and WAR."""
    if not comparisons:
        return None
    best = comparisons[0].best

    def change(metric: Metric) -> str:
        d = best.differences[metric.name]
        bounds = f"[{percent(d.interval[0], '+')}, {percent(d.interval[1], '+')}]"
        significance = "" if best.mark(metric) else ", not significant"
        return f"{metric.heading} {percent(d.value, '+')} points {bounds}{significance}"

    metrics = [headline(judged=True), headline(judged=False)]
    changes = "; ".join(change(metric) for metric in metrics if metric.name in best.differences)
    return f"{best.row.label} against {comparisons[0].baseline.label}: {changes}."


def _row(row: Row, index: int, keys: Mapping[str, str], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """A row of the table of results."""
    compared = next((c for c in comparisons[0].rows if c.row is row), None) if comparisons else None
    return {
        "arm": row.arm,
        "label": row.label,
        "colour": index % COLOURS,
        "seeds": len(row.runs),
        "baseline": any(c.baseline is row for c in comparisons),
        "cells": [as_text(row.settings.get(key)) for key in keys],
        "estimates": [_estimate(row, metric, compared) for metric in shown_in("results")],
    }


def _estimate(row: Row, metric: Metric, compared: Compared | None) -> dict[str, Any] | None:
    estimate = row.estimate(metric.name)
    if estimate is None:
        return None
    low, high = estimate.interval
    cell = {"value": estimate.value, "low": low, "high": high, "sd": estimate.sd, "mark": ""}
    if compared and metric.name in compared.differences:
        cell |= {"mark": compared.mark(metric), "why": f"Holm's p {p_value(compared.holm[metric.name])}"}
    return cell


def _comparison(comparison: Comparison, by_label: Mapping[str, Any]) -> dict[str, Any]:
    """The table of differences from a baseline."""

    def difference(compared: Compared, metric: Metric) -> dict[str, Any] | None:
        d = compared.differences.get(metric.name)
        if d is None:
            return None
        return {
            "value": d.value,
            "low": d.interval[0],
            "high": d.interval[1],
            "tone": {"▲": "good", "▼": "bad", "": ""}[compared.mark(metric)],
            "p": p_value(d.p),
            "p_holm": p_value(compared.holm[metric.name]),
        }

    rows = [
        {
            **by_label[compared.row.label],
            "clips": compared.clips,
            "differences": [difference(compared, metric) for metric in shown_in("results")],
        }
        for compared in comparison.rows
    ]
    return {"baseline": comparison.baseline.label, "note": tests(comparison), "rows": rows}


def _quadrants(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A bar for each row that was judged: shares of the quadrants, mean over its runs; `run` is the index of the first."""
    first_run = [0, *accumulate(len(row.runs) for row in rows)]
    bars = []
    for i, row in enumerate(rows):
        if all(run.judge for run in row.runs):
            shares = [
                quadrants(table_of(run.judged_answers, run.taxonomy, run.judge, run.metric_settings))
                for run in row.runs
            ]
            means = {name: mean(of_run[name] for of_run in shares) for name in QUADRANTS}
            bars.append({"label": row.label, "colour": i % COLOURS, "run": first_run[i], "shares": means})
    return bars


def _classes(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One table per label set and metric: recall, and EEA where explanations were judged."""
    tables = []
    for labels, members in class_groups(rows).items():
        first = members[0].runs[0].scores["per_class"]
        for metric, title in (
            ("recall", "Recall of the answers"),
            ("eea", "EEA: explanations that speak of the class"),
        ):
            table_rows = [{"label": row.label, "shares": per_class(row, metric)} for row in members]
            if any(value is not None for row in table_rows for value in row["shares"]):
                counts = [first[label]["count"] for label in labels]
                tables.append({"title": title, "labels": labels, "counts": counts, "rows": table_rows})
    return tables


def _diagnosis(runs: Sequence[Result]) -> list[dict[str, Any]] | None:
    """The diagnoses of metrics.json by rule, each with the runs and metrics that it fired on.

    None where no run has been diagnosed.
    """
    if not any("diagnosis" in run.metrics for run in runs):
        return None
    rules: dict[str, dict[str, Any]] = {}
    for run in runs:
        for entry in run.metrics.get("diagnosis") or ():
            rule = rules.setdefault(
                entry["rule"],
                {
                    "rule": str(entry["rule"]).replace("_", " "),
                    "finding": entry.get("finding"),
                    "advice": entry["advice"],
                    "fired": [],
                },
            )
            figures = (entry.get("figures") or {}).items()
            rounded = {key: as_text(float(f"{v:.4g}") if isinstance(v, float) else v) for key, v in figures}
            rule["fired"].append({"run": _name(run), "figures": rounded})
    return list(rules.values())


def _media(runs: Sequence[Result]) -> list[dict[str, Any]]:
    """What was skipped or masked of the data; runs with the same counts are named together."""
    tables: dict[str, dict[str, Any]] = {}
    for run in runs:
        counts = run.metrics.get("media")
        if counts:
            table = tables.setdefault(json.dumps(counts, sort_keys=True), {"runs": [], "rows": []})
            table["runs"].append(_name(run))
            table["rows"] = [[key.replace(".", " · "), as_text(value)] for key, value in flat(counts)]
    return [{"runs": "; ".join(table["runs"]), "rows": table["rows"]} for table in tables.values()]


def _judges(runs: Sequence[Result]) -> dict[str, list[Any]]:
    """Of runs with several judges: the metrics of each judge, and how far they agree."""
    metrics = [metric for metric in shown_in("results") if metric.needs_judge]
    rows, agreement = [], []
    for run in runs:
        judges = run.scores.get("judges") or {}
        if len(judges) < 2:
            continue
        for judge, scores in judges.items():
            cells = [
                f"{percent(scores.get(m.name))} [{', '.join(map(percent, scores['intervals'].get(m.name, ())))}]"
                for m in metrics
            ]
            rows.append([_name(run), judge, str(scores["answers"]), *cells, _statuses(scores["verdict_status"])])
        for pair in run.scores.get("agreement") or ():
            estimates = [_agreement(pair.get(key)) for key in ("percent", "kappa", "alpha")]
            agreement.append([_name(run), " · ".join(pair["judges"]), *estimates])
    head = ["run", "judge", "answers", *(metric.heading for metric in metrics), "verdicts"]
    return {"head": head, "rows": rows, "agreement": agreement}


def _agreement(estimate: Mapping[str, Any] | None) -> str:
    if not estimate or estimate["value"] is None:
        return "–"
    low, high = estimate["interval"]
    return f"{estimate['value']:.2f} [{low:.2f}, {high:.2f}], n = {estimate['n']}"


def _statuses(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{100 * share:.1f} % {status.replace('_', ' ')}" for status, share in shares.items()) or "–"


def _about(run: Result) -> dict[str, Any]:
    """A row of the table of runs."""
    env = run.environment
    return {
        "label": run.label,
        "seed": run.seed,
        "folder": str(run.folder),
        "clips": run.metrics["clips"],
        "judge": _describe_judges(run),
        "verdicts": _statuses(run.scores["verdict_status"]),
        "code": str(env.get("commit") or "–")[:10] + (" + changes" if env.get("diff") else ""),
    }


def _describe_judges(run: Result) -> str:
    """The judges with what metrics.json says of them: model, parameters, prompt."""
    judges = run.metrics.get("judges") or ({run.judge: {}} if run.judge else {})
    keys = ("kind", "model", "prompt", "weights", "raters", "items")
    texts = {name: ", ".join(as_text(judge[key]) for key in keys if judge.get(key)) for name, judge in judges.items()}
    return "; ".join(f"{name} ({text})" if text else name for name, text in texts.items()) or "none"


def _differing(rows: Sequence[Row]) -> list[list[str]]:
    """Every key of the configs that is not the same in all rows, by the first run of each."""
    configs = [dict(flat(row.runs[0].config)) for row in rows]
    keys = dict.fromkeys(key for config in configs for key in config)
    differing = [key for key in keys if len({json.dumps(config.get(key), default=str) for config in configs}) > 1]
    return [[key, *(as_text(config[key]) if key in config else "" for config in configs)] for key in differing]
