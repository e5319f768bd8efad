"""Read runs back from their folders: evaluated ones, and those that did not finish."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from erv.config.history import modern
from erv.evaluation.metrics.learning_curves import Curves, read_curves
from erv.evaluation.metrics.summary import MetricSettings, has_verdict
from erv.report.config_diff import at
from erv.taxonomy import DFEW, MAFW, MELD, MER, MERR, RAVDESS, Taxonomy
from erv.types import Decoding, Prediction
from erv.utils.documents import DocumentError, read_json, read_json_lines, read_yaml

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """One finished run."""

    folder: Path
    metrics: Mapping[str, Any]  # metrics.json
    config: Mapping[str, Any]  # config.yaml
    settings: Mapping[str, Any] = field(default_factory=dict)  # keys in which the runs of one report differ -> values
    label: str = ""  # of its row in the table

    @property
    def arm(self) -> str:
        """The name that the run was given."""
        return str(self.metrics["arm"])

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.metrics["seed"])

    @property
    def decoding(self) -> Decoding:
        """The answers that the tables are about: the sampled ones, greedy ones where there are no others (far noisier)."""
        return "sampled" if self.metrics.get("sampled") else "greedy"

    @property
    def scores(self) -> Mapping[str, Any]:
        """The metrics of those answers."""
        scores: Mapping[str, Any] = self.metrics[self.decoding]
        return scores

    @property
    def judge(self) -> str | None:
        """The judge whose metrics are shown; None when explanations were not judged."""
        judge: str | None = self.metrics["judge"]
        return judge

    @property
    def corpus(self) -> str | None:
        """The class of the data set, and the fold; None for answers of unknown origin."""
        corpus = self.config.get("data") or {}
        if "_target_" not in corpus:
            return None
        fold = f" fold {corpus['fold']}" if corpus.get("fold") is not None else ""
        return str(corpus["_target_"]).rsplit(".", 1)[-1] + fold

    @property
    def labels(self) -> list[str]:
        """The data set's labels in its order."""
        return list(self.scores["per_class"])

    @cached_property
    def predictions(self) -> list[Prediction]:
        """The rows of predictions.jsonl."""
        return [Prediction.from_row(row) for row in _read_jsonl(self.folder / "predictions.jsonl")]

    @cached_property
    def answers(self) -> dict[str, list[Prediction]]:
        """Clip id -> the answers that the metrics are about."""
        by_clip: dict[str, list[Prediction]] = defaultdict(list)
        for p in self.predictions:
            if p.decoding == self.decoding:
                by_clip[p.clip_id].append(p)
        return dict(by_clip)

    @property
    def judged_answers(self) -> list[Prediction]:
        """Those of the answers that the judge was shown: people are shown some only."""
        return [p for of_clip in self.answers.values() for p in of_clip if has_verdict(p, self.judge)]

    @property
    def taxonomy(self) -> Taxonomy:
        """The label set: a built-in one, with its synonyms, where the labels are equal."""
        labels, built_in = tuple(self.labels), (DFEW, MAFW, RAVDESS, MELD, MER, MERR)
        neutral = str(at(self.config, "data.neutral") or "neutral")
        return next((t for t in built_in if t.labels == labels), Taxonomy("labels", labels, neutral=neutral))

    @property
    def metric_settings(self) -> MetricSettings:
        """How its metrics were computed."""
        return MetricSettings(**self.metrics.get("metrics", {}))

    @cached_property
    def videos(self) -> dict[str, str]:
        """Clip id -> its file; empty for predictions that came without clips."""
        file = self.folder / "clips.jsonl"
        return {row["id"]: row["video"] for row in _read_jsonl(file)} if file.is_file() else {}

    @cached_property
    def notes(self) -> dict[str, list[str]]:
        """Clip id -> what was done about its defects ("mask: has no sound track")."""
        file, notes = self.folder / "media.jsonl", defaultdict(list)
        for row in _read_jsonl(file) if file.is_file() else ():
            notes[row["clip"]].append(f"{row['action']}: {row['reason']}")
        return dict(notes)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """env.json: code and hardware; empty for a run without it."""
        file = self.folder / "env.json"
        environment: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        return environment

    @cached_property
    def curves(self) -> Curves:
        """What training logged, by metric: this run, or the one that trained the checkpoint it evaluates."""
        checkpoint = at(self.config, "policy.checkpoint")
        folders = [self.folder, *([Path(checkpoint).parent] if checkpoint else [])]
        return next((read_curves(folder) for folder in folders if (folder / "logs").is_dir()), {})


@dataclass(frozen=True)
class Unfinished:
    """A run without metrics.json: it is running, was interrupted, or failed; the same command resumes it."""

    folder: Path
    arm: str
    seed: int | None
    answers: int  # rows in predictions.jsonl
    changed: datetime  # when its last file was written


def _read_jsonl(file: Path) -> list[dict[str, Any]]:
    return list(read_json_lines(file))


def finished_runs(folders: Iterable[Path]) -> list[Result]:
    """Every finished run below `folders`, whatever its stage; one whose files are damaged is left out with a warning."""
    results = []
    for run in sorted({file.parent for folder in folders for file in folder.glob("**/metrics.json")}):
        try:
            results.append(Result(run, _read_metrics(run / "metrics.json"), _read_config(run)))
        except DocumentError as error:
            _log.warning("erv.report: left out: %s", error)
    return results


def _read_metrics(file: Path) -> dict[str, Any]:
    """The figures of a run; DocumentError for a file without what every run writes."""
    metrics: dict[str, Any] = read_json(file)
    if missing := [name for name in ("arm", "seed") if name not in metrics]:
        raise DocumentError(f"{file}: has no {', '.join(missing)}")
    return metrics


def unfinished_runs(folders: Iterable[Path]) -> list[Unfinished]:
    """Every run below `folders` that has not finished; one whose config is damaged is left out with a warning."""
    unfinished = []
    for run in sorted({file.parent for folder in folders for file in folder.glob("**/config.yaml")}):
        if not (run / "metrics.json").is_file():
            try:
                unfinished.append(_unfinished(run))
            except DocumentError as error:
                _log.warning("erv.report: left out: %s", error)
    return unfinished


def _unfinished(folder: Path) -> Unfinished:
    config, answers = _read_config(folder), folder / "predictions.jsonl"
    count = answers.read_bytes().count(b"\n") if answers.is_file() else 0
    changed = max(file.stat().st_mtime for file in folder.rglob("*"))
    return Unfinished(folder, str(config.get("name")), config.get("seed"), count, datetime.fromtimestamp(changed))


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.yaml"
    return modern(read_yaml(file)) if file.is_file() else {}
