"""A W&B workspace for the runs of the table, in three sections: metrics over iterations, policy health, bars by key.

Needs the extra `report` (wandb-workspaces). The names of metrics are those of docs/logging.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from erv.evaluation.metrics.definitions import shown_in
from erv.report.rows import Row

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

AXIS = "iter"
HEALTH = {
    "Reward": ["train/reward"],
    "Parts of the reward": [f"train/rewards/{part}/mean" for part in ("format", "answer", "explanation")],
    "R_E on dev clips": ["dev/verifier_reward", "dev/judge_reward"],
    "KL to the reference": ["train/kl"],
    "Entropy": ["train/entropy"],
    "Tokens of an answer": [f"train/completions/{which}_length" for which in ("mean", "min", "max")],
    "Answers cut off": ["train/completions/clipped_ratio"],
    "Groups without reward spread": ["train/frac_reward_zero_std"],
    "Gradient norm": ["train/grad_norm"],
    "Neutral sentences": ["train/completions/neutral_share", "dev/neutral_share"],
}


def workspace(rows: Sequence[Row], entity: str, project: str) -> Workspace:
    """Build the workspace, without saving it; it has bars for each key in which the rows differ."""
    from wandb_workspaces.workspaces import Workspace, WorkspaceSettings

    return Workspace(
        entity=entity,
        project=project,
        name="ERV",
        settings=WorkspaceSettings(x_axis=AXIS),
        sections=[
            _lines("Figures on dev clips", {metric.heading: [f"dev/{metric.name}"] for metric in shown_in("results")}),
            _lines("Reward and policy health", HEALTH),
            _bars(rows),
        ],
    )


def _lines(name: str, panels: dict[str, list[str]]) -> Section:
    from wandb_workspaces.reports.v2 import LinePlot
    from wandb_workspaces.workspaces import Section

    return Section(name=name, panels=[LinePlot(title=t, x=AXIS, y=y) for t, y in panels.items()], is_open=True)


def _bars(rows: Sequence[Row]) -> Section:
    """For every key that differs, and for the arm, bars of the mean test metrics of its values with their standard error."""
    from wandb_workspaces.reports.v2 import BarPlot, Config, SummaryMetric
    from wandb_workspaces.workspaces import Section

    keys = ["name", *dict.fromkeys(key for row in rows for key in row.settings if key != "signature")]
    decoding = rows[0].runs[0].decoding
    bars = [
        BarPlot(
            title=f"{metric.heading} by {key}",
            metrics=[SummaryMetric(f"test/{decoding}/{metric.name}")],
            groupby=Config(key),
            groupby_aggfunc="mean",
            groupby_rangefunc="stderr",
        )
        for key in keys
        for metric in shown_in("results")
    ]
    return Section(name="Test figures by key", panels=bars, is_open=True)


def publish(rows: Sequence[Row], target: str) -> str:
    """Save the workspace in `target`, ENTITY/PROJECT; returns its URL. Exits with a message when that cannot be done."""
    entity, _, project = target.partition("/")
    if not entity or not project or "/" in project:
        sys.exit(f"erv.report: --wandb is ENTITY/PROJECT, such as my-team/erv; got {target!r}")
    try:
        import wandb
        import wandb_workspaces  # noqa: F401
    except ModuleNotFoundError as error:
        sys.exit(f"erv.report: --wandb needs {error.name}; install it with: pip install 'erv[report]'")
    try:
        if not wandb.login(prompt=False):
            sys.exit("erv.report: --wandb needs a key for W&B and a network; set WANDB_API_KEY, or run `wandb login`")
        return str(workspace(rows, entity, project).save().url)
    except (wandb.Error, OSError) as error:
        sys.exit(f"erv.report: W&B could not be reached, so there is no workspace: {error}")
