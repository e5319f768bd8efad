"""The HTML page: tables, learning curves, and clips with what every arm said about them. One file, nothing to fetch."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from erv.records import Prediction
from erv.report.runs import FIGURES, Result
from erv.report.table import arms, difference, pairs

CURVES = {
    "train/reward": "Reward of the sampled answers",
    "dev/fcr": "FCR on dev clips",
    "dev/war": "WAR on dev clips",
    "dev/verifier_reward": "R_E by the verifier, on dev clips",
    "dev/judge_reward": "R_E by the judge, on dev clips",
    "train/kl": "KL to the reference",
    "train/completions/mean_length": "Tokens of an answer",
    "train/frac_reward_zero_std": "Share of groups without reward spread",
}
COLOURS = ("#4477AA", "#CC6677", "#228833", "#AA3377", "#CCBB44", "#66CCEE", "#BBBBBB")  # Tol's bright scheme


def page(results: Sequence[Result], baselines: Sequence[str], clips: int) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    shown = _first_seed(results)
    return environment.get_template("page.html.j2").render(
        results=results, figures=FIGURES, arms=_table(results), differences=_differences(results, baselines),
        curves=_curves(results), clips=_clips(shown, clips), run=results[0], seed=shown[0].seed,
    )  # fmt: skip


def _first_seed(results: Sequence[Result]) -> list[Result]:
    seed = min(result.seed for result in results)
    return [result for result in results if result.seed == seed]


def _table(results: Sequence[Result]) -> list[dict[str, Any]]:
    return [
        {"label": arm.label, "seeds": len(arm.runs), "figures": [arm.figure(name) for name in FIGURES]}
        for arm in arms(results)
    ]


def _differences(results: Sequence[Result], baselines: Sequence[str]) -> list[dict[str, Any]]:
    compared = (
        (arm, base, [difference(arm, base, f) for f in ("war", "fcr")]) for arm, base in pairs(arms(results), baselines)
    )
    return [
        {"label": f"{arm.label} - {base.label}", "war": found[0], "fcr": found[1]}
        for arm, base, found in compared
        if found[0]
    ]


def _curves(results: Sequence[Result]) -> list[str]:
    """One chart per metric that some run logged; the drawing library goes into the first."""
    import plotly.graph_objects as go

    labels = list(dict.fromkeys(result.label for result in results))
    charts: list[str] = []
    for metric, title in CURVES.items():
        figure = go.Figure()
        for result in results:
            steps, values = result.curve(metric)
            if result.metrics["stage"] == "grpo" and steps:
                place = labels.index(result.label)
                line = {"color": COLOURS[place % len(COLOURS)], "width": 1.5}
                name = f"{result.label}, seed {result.seed}"
                figure.add_scatter(x=steps, y=values, name=name, legendgroup=result.label, line=line)
        if figure.data:
            figure.update_layout(
                title=title, height=300, margin={"l": 45, "r": 10, "t": 40, "b": 35}, paper_bgcolor="rgba(0,0,0,0)",
                plot_bgcolor="rgba(0,0,0,0)", font={"color": "#888"}, legend={"orientation": "h", "y": -0.2},
            )  # fmt: skip
            figure.update_xaxes(gridcolor="rgba(128,128,128,.2)", zeroline=False)
            figure.update_yaxes(gridcolor="rgba(128,128,128,.2)", zeroline=False)
            inline = "inline" if not charts else False
            charts.append(
                figure.to_html(
                    full_html=False, include_plotlyjs=inline, config={"displayModeBar": False, "responsive": True}
                )
            )
    return charts


def _clips(results: Sequence[Result], count: int) -> list[dict[str, Any]]:
    """The first clips of the split, with the first sampled answer of every arm."""
    rows = [json.loads(line) for line in (results[0].folder / "clips.jsonl").read_text().splitlines()][:count]
    answers = {result.label: _first_answers(result) for result in results}
    return [
        {**row, "source": _data_uri(Path(row["video"])),
         "answers": [(label, found[row["id"]]) for label, found in answers.items() if row["id"] in found]}
        for row in rows
    ]  # fmt: skip


def _first_answers(result: Result) -> dict[str, Prediction]:
    return {p.clip_id: p for p in result.predictions if p.decoding == "sampled" and p.sample == 0}


def _data_uri(path: Path) -> str | None:
    """The clip inside the page; None when the file is gone or no mp4."""
    if path.suffix != ".mp4" or not path.is_file():
        return None
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()
