"""Runs, read back from their folders: the evaluated ones, and those that did not finish."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from erv.config.history import modern
from erv.evaluation.metrics.learning_curves import Curves, read_curves
from erv.evaluation.metrics.summary import Settings
from erv.report.config_diff import at
from erv.taxonomy import DFEW, MAFW, MELD, MER, MERR, RAVDESS, Taxonomy
from erv.types import Decoding, Prediction

FIGURES = ("war", "uar", "eea", "epc", "fcr")


@dataclass(frozen=True)
class Result:
    """One finished run. `settings` are the keys in which the runs shown together differ, `label` is the row it is in."""

    folder: Path
    metrics: Mapping[str, Any]
    config: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def arm(self) -> str:
        """The arm, as the run was named."""
        return str(self.metrics["arm"])

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.metrics["seed"])

    @property
    def decoding(self) -> Decoding:
        """The answers whose figures are shown: the sampled ones, greedy ones where there are no others (far noisier)."""
        return "sampled" if self.metrics.get("sampled") else "greedy"

    @property
    def figures(self) -> Mapping[str, Any]:
        """The figures of those answers."""
        figures: Mapping[str, Any] = self.metrics[self.decoding]
        return figures

    @property
    def judge(self) -> str | None:
        """Who read the explanations; None when nobody did."""
        judge: str | None = self.metrics["judge"]
        return judge

    @property
    def corpus(self) -> str | None:
        """What it was measured on, in words; None for answers of unknown origin."""
        corpus = self.config.get("data") or {}
        if "_target_" not in corpus:
            return None
        fold = f" fold {corpus['fold']}" if corpus.get("fold") is not None else ""
        return str(corpus["_target_"]).rsplit(".", 1)[-1] + fold

    @property
    def labels(self) -> list[str]:
        """The corpus' label set in its order."""
        return list(self.figures["per_class"])

    @cached_property
    def predictions(self) -> list[Prediction]:
        """The rows of predictions.jsonl."""
        return [Prediction.from_row(row) for row in _lines(self.folder / "predictions.jsonl")]

    @cached_property
    def answers(self) -> dict[str, list[Prediction]]:
        """Clip id -> the answers that the figures are about."""
        found: dict[str, list[Prediction]] = defaultdict(list)
        for p in self.predictions:
            if p.decoding == self.decoding:
                found[p.clip_id].append(p)
        return dict(found)

    @property
    def read(self) -> list[Prediction]:
        """Those of them that the judge was shown: people read some only."""
        every = (p for found in self.answers.values() for p in found)
        return [p for p in every if any(v.judge == self.judge for v in p.verdicts)]

    @property
    def taxonomy(self) -> Taxonomy:
        """The corpus' label set: a built-in one, with its synonyms, where the labels are its."""
        labels, known = tuple(self.labels), (DFEW, MAFW, RAVDESS, MELD, MER, MERR)
        neutral = str(at(self.config, "data.neutral") or "neutral")
        return next((t for t in known if t.labels == labels), Taxonomy("labels", labels, neutral=neutral))

    @property
    def counting(self) -> Settings:
        """How its figures were counted."""
        return Settings(**self.metrics.get("metrics", {}))

    @cached_property
    def videos(self) -> dict[str, str]:
        """Clip id -> its file; empty for predictions that came without clips."""
        file = self.folder / "clips.jsonl"
        return {row["id"]: row["video"] for row in _lines(file)} if file.is_file() else {}

    @cached_property
    def notes(self) -> dict[str, list[str]]:
        """Clip id -> what was done about its defects ("mask: has no sound track")."""
        file, found = self.folder / "media.jsonl", defaultdict(list)
        for row in _lines(file) if file.is_file() else ():
            found[row["clip"]].append(f"{row['action']}: {row['reason']}")
        return dict(found)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """What env.json says of code and hardware; empty for a run that has none."""
        file = self.folder / "env.json"
        found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        return found

    @cached_property
    def curves(self) -> Curves:
        """What training logged, by metric: this run, or the one that trained what it evaluates."""
        checkpoint = at(self.config, "policy.checkpoint")
        places = [self.folder, *([Path(checkpoint).parent] if checkpoint else [])]
        return next((read_curves(place) for place in places if (place / "logs").is_dir()), {})


@dataclass(frozen=True)
class Unfinished:
    """A run without metrics.json: it still works, was interrupted, or failed; the same command goes on with it."""

    folder: Path
    arm: str
    seed: int | None
    answers: int
    changed: datetime


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def finished(folders: Iterable[Path]) -> list[Result]:
    """Every finished run below `folders`, whatever its stage."""
    found = sorted({file.parent for folder in folders for file in folder.glob("**/metrics.json")})
    return [Result(folder, json.loads((folder / "metrics.json").read_text()), _config(folder)) for folder in found]


def unfinished(folders: Iterable[Path]) -> list[Unfinished]:
    """Every run below `folders` that has not finished."""
    found = sorted({file.parent for folder in folders for file in folder.glob("**/config.yaml")})
    return [_unfinished(folder) for folder in found if not (folder / "metrics.json").is_file()]


def _unfinished(folder: Path) -> Unfinished:
    config, answers = _config(folder), folder / "predictions.jsonl"
    count = answers.read_bytes().count(b"\n") if answers.is_file() else 0
    changed = max(file.stat().st_mtime for file in folder.rglob("*"))
    seed = config.get("seed")
    return Unfinished(folder, str(config.get("name")), seed, count, datetime.fromtimestamp(changed))


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.yaml"
    config = yaml.load(file.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if file.is_file() else {}  # noqa: S506 - both are safe
    return modern(config) if isinstance(config, dict) else {}
