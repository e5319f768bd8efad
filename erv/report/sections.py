"""What the page says in its text, section by section: tables, quadrants, diagnosis, data and runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from statistics import mean
from typing import Any

from erv.evaluation.metrics.scores import quadrants
from erv.evaluation.metrics.summary import table_of
from erv.report.compare import Compared, Comparison
from erv.report.config_diff import flat, spoken
from erv.report.rows import Row, columns
from erv.report.runs import FIGURES, Result
from erv.report.table import STYLE, class_groups, note, p_value, per_class, percent, style, tests

QUADRANTS = {
    "right_coherent": "right answer, coherent explanation (FCR)", "right_incoherent": "right answer, wrong reason",
    "wrong_coherent": "wrong answer, right reason", "wrong_incoherent": "answer and explanation wrong",
}  # fmt: skip
COLOURS = 8  # of rows, in page.css


def content(rows: Sequence[Row], comparisons: Sequence[Comparison], drawn: bool) -> dict[str, Any]:
    """The variables of the template; `drawn` says whether there are curves."""
    runs = [run for row in rows for run in row.runs]
    keys = columns(rows)
    shown = [_row(row, place, keys, comparisons) for place, row in enumerate(rows)]
    by_label = {row["label"]: row for row in shown}
    found = {
        "keys": list(keys.values()), "rows": shown, "figures": FIGURES, "note": note(rows),
        "comparisons": [_comparison(c, by_label) for c in comparisons],
        "diagnosis": _diagnosis(runs),
        "quadrants": _quadrants(rows), "quadrant_names": QUADRANTS, "classes": _classes(rows),
        "judges": _judges(runs),
        "media": _media(runs),
        "style": {"head": ["row", *STYLE], "rows": [[row.label, *style(row)] for row in rows]},
        "runs": [_about(run) for run in runs], "differing": _differing(rows), "headline": _headline(comparisons),
        **_title(runs),
    }  # fmt: skip
    return {**found, "sections": _sections(found, drawn)}


def name(run: Result) -> str:
    """The run among those of its row."""
    return f"{run.label}, seed {run.seed}"


def _sections(found: Mapping[str, Any], drawn: bool) -> list[tuple[str, str]]:
    every = [
        ("results", "Results", True), ("comparison", "Differences", found["comparisons"]),
        ("diagnosis", "Diagnosis", found["diagnosis"] is not None), ("quadrants", "Reasons", found["quadrants"]),
        ("curves", "Curves", drawn), ("classes", "Classes", True), ("confusion", "Confusion", True),
        ("style", "Style", True), ("judges", "Judges", found["judges"]["figures"]), ("clips", "Clips", True),
        ("data", "Data", found["media"]), ("runs", "Runs", True),
    ]  # fmt: skip
    return [(anchor, title) for anchor, title, there in every if there]


def _title(runs: Sequence[Result]) -> dict[str, str]:
    groups = dict.fromkeys(str(run.config.get("group") or run.folder.parent.name) for run in runs)
    corpora = dict.fromkeys(str(run.corpus) for run in runs if run.corpus)
    judges = dict.fromkeys(run.judge for run in runs if run.judge)
    parts = [f"{len(runs)} runs" if len(runs) > 1 else "1 run", *corpora]
    parts.append(f"explanations read by {' and '.join(judges)}" if judges else "explanations read by no judge")
    return {"title": f"Emotions and reasons: {', '.join(groups)}", "subtitle": " · ".join(parts)}


def _headline(comparisons: Sequence[Comparison]) -> str | None:
    """What the first comparison comes to, in a sentence."""
    if not comparisons:
        return None
    best = comparisons[0].best

    def change(name: str) -> str:
        d = best.differences[name]
        bounds = f"[{percent(d.interval[0], '+')}, {percent(d.interval[1], '+')}]"
        return f"{name.upper()} {percent(d.value, '+')} points {bounds}{'' if best.mark(name) else ', not significant'}"

    changes = "; ".join(change(name) for name in ("fcr", "war") if name in best.differences)
    return f"{best.row.label} against {comparisons[0].baseline.label}: {changes}."


def _row(row: Row, place: int, keys: Mapping[str, str], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    compared = next((c for c in comparisons[0].rows if c.row is row), None) if comparisons else None
    return {
        "arm": row.arm, "label": row.label, "colour": place % COLOURS, "seeds": len(row.runs),
        "baseline": any(c.baseline is row for c in comparisons),
        "cells": [spoken(row.settings.get(key)) for key in keys], "figures": [_figure(row, n, compared) for n in FIGURES],
    }  # fmt: skip


def _figure(row: Row, name: str, compared: Compared | None) -> dict[str, Any] | None:
    figure = row.figure(name)
    if figure is None:
        return None
    found = {"value": figure.value, "low": figure.interval[0], "high": figure.interval[1], "sd": figure.sd, "mark": ""}
    if compared and name in compared.differences:
        found |= {"mark": compared.mark(name), "why": f"Holm's p {p_value(compared.holm[name])}"}
    return found


def _comparison(comparison: Comparison, by_label: Mapping[str, Any]) -> dict[str, Any]:
    def difference(compared: Compared, name: str) -> dict[str, Any] | None:
        d = compared.differences.get(name)
        if d is None:
            return None
        tone = {"▲": "good", "▼": "bad", "": ""}[compared.mark(name)]
        p = {"p": p_value(d.p), "p_holm": p_value(compared.holm[name])}
        return {"value": d.value, "low": d.interval[0], "high": d.interval[1], "tone": tone, **p}

    rows = [
        {**by_label[c.row.label], "clips": c.clips, "differences": [difference(c, name) for name in FIGURES]}
        for c in comparison.rows
    ]
    return {"baseline": comparison.baseline.label, "note": tests(comparison), "rows": rows}


def _quadrants(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The shares of each row that a judge has read, mean over its runs; `run` is the first of them."""
    starts = [0, *accumulate(len(row.runs) for row in rows)]
    return [
        {"label": row.label, "colour": place % COLOURS, "run": starts[place], "shares": _shares(row)}
        for place, row in enumerate(rows) if all(run.judge for run in row.runs)
    ]  # fmt: skip


def _shares(row: Row) -> dict[str, float]:
    found = [quadrants(table_of(run.read, run.taxonomy, run.judge, run.counting)) for run in row.runs]
    return {name: mean(shares[name] for shares in found) for name in QUADRANTS}


def _classes(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One table per label set and figure: recall, and EEA where explanations were read."""
    found = []
    for labels, members in class_groups(rows).items():
        first = members[0].runs[0].figures["per_class"]
        for figure, title in (
            ("recall", "Recall of the answers"),
            ("eea", "EEA: explanations that speak of the class"),
        ):
            table = [{"label": row.label, "shares": per_class(row, figure)} for row in members]
            if any(value is not None for row in table for value in row["shares"]):
                counts = [first[label]["count"] for label in labels]
                found.append({"title": title, "labels": labels, "counts": counts, "rows": table})
    return found


def _diagnosis(runs: Sequence[Result]) -> list[dict[str, Any]] | None:
    """What metrics.json says is wrong, by rule: what was found, the runs and figures that it fired on, and what to try.

    None where no run has been diagnosed.
    """
    if not any("diagnosis" in run.metrics for run in runs):
        return None
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        for entry in run.metrics.get("diagnosis") or ():
            rule = found.setdefault(entry["rule"], _rule(entry))
            figures = (entry.get("figures") or {}).items()
            said = {key: spoken(float(f"{v:.4g}") if isinstance(v, float) else v) for key, v in figures}
            rule["fired"].append({"run": name(run), "figures": said})
    return list(found.values())


def _rule(entry: Mapping[str, Any]) -> dict[str, Any]:
    told = {"finding": entry.get("finding"), "advice": entry["advice"]}
    return {"rule": str(entry["rule"]).replace("_", " "), **told, "fired": []}


def _media(runs: Sequence[Result]) -> list[dict[str, Any]]:
    """What was skipped or masked of the data; runs with the same counts are named together."""
    found: dict[str, dict[str, Any]] = {}
    for run in (run for run in runs if run.metrics.get("media")):
        counts = run.metrics["media"]
        entry = found.setdefault(json.dumps(counts, sort_keys=True), {"runs": [], "rows": []})
        entry["runs"].append(name(run))
        entry["rows"] = [[key.replace(".", " · "), spoken(value)] for key, value in flat(counts)]
    return [{"runs": "; ".join(entry["runs"]), "rows": entry["rows"]} for entry in found.values()]


def _judges(runs: Sequence[Result]) -> dict[str, list[list[str]]]:
    """Where several have judged: each one's figures, and how far they agree."""
    figures, agreement = [], []
    for run in (run for run in runs if len(run.figures.get("judges") or ()) > 1):
        for judge, found in run.figures["judges"].items():
            cells = [
                f"{percent(found[n])} [{', '.join(map(percent, found['intervals'][n]))}]" for n in ("eea", "epc", "fcr")
            ]
            figures.append([name(run), judge, str(found["answers"]), *cells, _statuses(found["verdict_status"])])
        for pair in run.figures.get("agreement") or ():
            estimates = [_estimate(pair.get(key)) for key in ("percent", "kappa", "alpha")]
            agreement.append([name(run), " · ".join(pair["judges"]), *estimates])
    return {"figures": figures, "agreement": agreement}


def _estimate(found: Mapping[str, Any] | None) -> str:
    if not found or found["value"] != found["value"]:  # NaN: not defined
        return "–"
    low, high = found["interval"]
    return f"{found['value']:.2f} [{low:.2f}, {high:.2f}], n = {found['n']}"


def _statuses(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{100 * share:.1f} % {status.replace('_', ' ')}" for status, share in shares.items()) or "–"


def _about(run: Result) -> dict[str, Any]:
    env = run.environment
    commit = str(env.get("commit") or "–")[:10] + (" + changes" if env.get("diff") else "")
    return {
        "label": run.label, "seed": run.seed, "folder": str(run.folder), "clips": run.metrics["clips"],
        "judge": _judge(run), "verdicts": _statuses(run.figures["verdict_status"]), "code": commit,
    }  # fmt: skip


def _judge(run: Result) -> str:
    """The judges with what metrics.json says of them: model, parameters, prompt."""
    known = run.metrics.get("judges") or ({run.judge: {}} if run.judge else {})
    shown = ("kind", "model", "prompt", "weights", "raters", "items")
    said = {judge: ", ".join(spoken(of[key]) for key in shown if of.get(key)) for judge, of in known.items()}
    return "; ".join(f"{judge} ({text})" if text else judge for judge, text in said.items()) or "none"


def _differing(rows: Sequence[Row]) -> list[list[str]]:
    """Every key of the configs that is not the same in all rows, by the first run of each."""
    configs = [dict(flat(row.runs[0].config)) for row in rows]
    keys = dict.fromkeys(key for config in configs for key in config)
    varying = [key for key in keys if len({json.dumps(config.get(key), default=str) for config in configs}) > 1]
    return [[key, *(spoken(config[key]) if key in config else "" for config in configs)] for key in varying]
