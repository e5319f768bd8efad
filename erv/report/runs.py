"""Finished runs, read back from their folders."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from erv.records import Prediction

FIGURES = ("war", "uar", "eea", "epc", "fcr")
# Keys that differ between runs of one arm without being another setting: seeds, places, and what is not signed.
_NOT_SETTINGS = ("seed", "name", "group", "paths", "logger", "launch", "data.seed", "data.root", "media.cache",
                 "media.workers", "policy.checkpoint", "verifier.model.checkpoint", "verifier.data.files",
                 "judge.oracle.grammar",
                 "checkpoint")  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One evaluated run. `label` is its arm, with the settings in which it differs from the other runs of that arm."""

    folder: Path
    metrics: Mapping[str, Any]
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
    def figures(self) -> Mapping[str, Any]:
        """The figures of the sampled answers (greedy ones are far noisier)."""
        figures: Mapping[str, Any] = self.metrics["sampled"]
        return figures

    def row(self) -> dict[str, Any]:
        """The run as one flat object: identity, figures and intervals as fractions, and the greedy figures."""
        greedy = self.metrics.get("greedy")
        return {
            "arm": self.arm, "label": self.label, "seed": self.seed, "signature": self.metrics["signature"],
            "clips": self.metrics["clips"], "judge": self.metrics["judge"], "folder": str(self.folder),
            **{name: self.figures[name] for name in FIGURES},
            "intervals": {name: self.figures["intervals"][name] for name in FIGURES},
            "right_answer_wrong_reason": self.figures["right_answer_wrong_reason"],
            "format_rate": self.figures["format_rate"], "verdict_status": self.figures["verdict_status"],
            "greedy": {name: greedy[name] for name in FIGURES} if greedy else None,
        }  # fmt: skip

    @cached_property
    def predictions(self) -> list[Prediction]:
        """The rows of predictions.jsonl."""
        lines = (self.folder / "predictions.jsonl").read_text().splitlines()
        return [Prediction.from_row(json.loads(line)) for line in lines]

    def per_clip(self, figure: str) -> dict[str, float]:
        """Clip id -> mean over its samples of "war" or "fcr"."""
        judge = self.metrics["judge"]
        if judge is None and figure == "fcr":
            return {}
        found: dict[str, list[bool]] = defaultdict(list)
        for p in self.predictions:
            if p.decoding == "sampled":
                faithful = figure == "war" or {v.judge: v.emotion for v in p.verdicts}[judge] == p.gold
                found[p.clip_id].append(p.answer == p.gold and faithful)
        return {clip: sum(values) / len(values) for clip, values in found.items()}

    def curve(self, metric: str) -> tuple[list[float], list[float]]:
        """(steps, values) of a logged metric over all starts of the run; what a resumed run repeated counts once."""
        points: dict[float, float] = {}
        for file in sorted((self.folder / "logs").glob("version_*/metrics.csv"), key=lambda f: int(f.parent.name[8:])):
            with file.open() as lines:
                for row in csv.DictReader(lines):
                    if row.get(metric):
                        points[float(row["step"])] = float(row[metric])
        return list(points), list(points.values())


def load(folders: Iterable[Path]) -> list[Result]:
    """Every evaluated run below `folders`, by label and seed."""
    files = {file.parent for folder in folders for file in folder.glob("**/metrics.json")}
    found = [Result(folder, json.loads((folder / "metrics.json").read_text())) for folder in sorted(files)]
    results = [
        Result(r.folder, r.metrics, label) for r, label in labelled([r for r in found if "sampled" in r.metrics])
    ]
    return sorted(results, key=lambda r: (_rank(r.arm), r.label, r.seed))


def _rank(arm: str) -> tuple[int, str]:
    """The order of a paper's table: SFT first, then the arms by name."""
    return (0 if arm == "sft" else 1, arm)


def labelled(results: list[Result]) -> Iterator[tuple[Result, str]]:
    """Each result with its arm and the settings in which it differs from the other runs of that arm."""
    by_arm: dict[str, list[tuple[Result, dict[str, Any]]]] = defaultdict(list)
    for result in results:
        by_arm[result.arm].append((result, _settings(result.folder)))
    for arm, members in by_arm.items():
        keys = {key for _, settings in members for key in settings}
        varying = sorted(k for k in keys if len({json.dumps(settings.get(k)) for _, settings in members}) > 1)
        for result, settings in members:
            listed = ", ".join(f"{_short(key)}={settings.get(key)}" for key in varying)
            yield result, f"{arm} ({listed})" if listed else arm


def _short(key: str) -> str:
    return key.removeprefix("reward.explanation.").removeprefix("verifier.data.")


def _settings(folder: Path) -> dict[str, Any]:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    return {k: v for k, v in _flat(config) if not any(k == n or k.startswith(f"{n}.") for n in _NOT_SETTINGS)}


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _flat(value, f"{prefix}{key}.")
    else:
        yield prefix.rstrip("."), node
