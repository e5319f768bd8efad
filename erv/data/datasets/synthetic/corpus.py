"""The embedded corpus on disk: clips, manifest, the verifier's sentences and the oracle's grammar."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import ClassVar

from filelock import FileLock

from erv.data.datasets.synthetic import generate, grammar, labels
from erv.taxonomy import DFEW
from erv.types import Clip, Split
from erv.utils.io import write_json, write_lines

VERSION = 1  # raise it whenever the same seed gives other files


class SyntheticCorpus:
    """Drawn faces with synthetic voices in the seven DFEW classes; made under `root` when it is not there yet.

    `manifest.jsonl` has one clip a line with the sha256 of its file, `labels.jsonl` and `audit.jsonl` the verifier's
    sentences, `grammar.json` the phrases of each emotion (for the oracle judge only); `corpus.json`, written last, says what
    was made.
    """

    name: ClassVar[str] = "synthetic"
    taxonomy = DFEW

    def __init__(
        self, root: str, seed: int = 0, clips: int = 3000, dev: int = 400, test: int = 600, workers: int | None = None,
        limit: int | None = None, dev_limit: int | None = None,
    ) -> None:  # fmt: skip
        if dev + test >= clips:
            raise ValueError(f"dev + test must leave clips to train on: {dev} + {test} of {clips}; raise data.clips")
        self.root = Path(root)
        self.workers = workers or len(os.sched_getaffinity(0))
        self.limits = {"train": limit, "dev": dev_limit}
        self.parameters = {"version": VERSION, "seed": seed, "clips": clips, "dev": dev, "test": test}

    def require(self) -> None:
        """Nothing: the corpus makes itself."""

    def prepare(self) -> None:
        """Make the corpus unless it is there; refuse a folder that holds another one."""
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / ".lock"):
            done = self.root / "corpus.json"
            if not done.is_file():
                self._make(done)
            found = json.loads(done.read_text())
            other = {k: (found.get(k), v) for k, v in self.parameters.items() if found.get(k) != v}
            if other:
                listed = ", ".join(f"{key}={there} there, {here} asked for" for key, (there, here) in other.items())
                raise ValueError(f"{self.root} holds another corpus: {listed}; use another root or delete the folder")
            audit = self.root / "audit.jsonl"  # came later than the rest, which older folders have already
            if not audit.is_file():
                write_lines(audit, labels.audit_rows(self.parameters["seed"]))

    def _make(self, done: Path) -> None:
        p = self.parameters
        rows = list(generate.make_clips(str(self.root), p["seed"], p["clips"], p["dev"], p["test"], self.workers))
        write_lines(self.root / "manifest.jsonl", rows)
        write_lines(self.root / "labels.jsonl", labels.rows(p["seed"]))
        (self.root / "grammar.json").write_text(json.dumps({"phrases": grammar.phrases()}, indent=1))
        write_json(done, p)

    def clips(self, split: Split) -> list[Clip]:
        """The clips of `split`, with `video` as a path that opens from here; the first `limit` and `dev_limit` of them."""
        rows = [json.loads(line) for line in (self.root / "manifest.jsonl").read_text().splitlines()]
        keep = [{k: v for k, v in row.items() if k != "sha256"} for row in rows if row["split"] == split]
        return [Clip(**{**row, "video": str(self.root / row["video"])}) for row in keep[: self.limits.get(split)]]

    def digest(self) -> str:
        """What it is made of; the same parameters make the same bytes."""
        return json.dumps([self.parameters, self.limits], sort_keys=True)

    def identity(self, clip: Clip) -> str:
        """Ids hold the seed."""
        return f"{self.name}/{clip.id}"

    def warnings(self) -> list[str]:
        """None: the corpus is what it was made to be."""
        return []
