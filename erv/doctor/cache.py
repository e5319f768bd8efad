"""Filling the tower cache ahead of training: `cache=build`."""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from erv import config
from erv.errors import ConfigError


def fill(cfg: DictConfig) -> None:
    """Compute the towers' outputs of every clip of the corpus that lacks them; ConfigError for what cannot be used.

    Any number of processes may do this at once, on any number of machines that see the folder: each takes what no other is at.
    """
    from erv.cli.shards import run_in_processes
    from erv.runtime.planning import disk_errors

    for key in ("data", "policy"):
        if cfg.get(key) is None:
            raise ConfigError(f"cache=build needs {key}=NAME: clips to read, and the policy whose towers read them")
    devices = int(cfg.devices)
    if devices > 1:
        run_in_processes("erv.doctor", devices, ["devices=1"])
        return
    with disk_errors():
        _fill(config.plain(cfg))


def _fill(tree: dict[str, object]) -> None:
    import tempfile
    from pathlib import Path

    import torch

    from erv.config.schema import PROVIDED
    from erv.data.datasets.base import SPLITS
    from erv.runs.resolve import resolve_checkpoints
    from erv.runtime.components import Parts

    config.check({key: tree[key] for key in ("data", "media", "policy")}, PROVIDED)
    torch.set_num_threads(int(tree["launch"]["threads"]))  # type: ignore[index]
    resolve_checkpoints(tree)
    with tempfile.TemporaryDirectory() as folder:  # a run's folder that nobody needs
        parts = Parts({**tree, "group": "doctor", "name": "cache", "stage": "evaluate"}, Path(folder))
        parts.corpus.require()
        clips = [clip for split in SPLITS for clip in parts.corpus.clips(split)]
        samples = parts.reading.samples(clips)
        counts = parts.reading.tally()
    print(f"{len(samples):,} of {len(clips):,} clips are in {parts.media.cache}", file=sys.stderr)
    for split, found in counts.items():
        print(f"{split}: {found}", file=sys.stderr)
