"""`python -m erv.doctor [data=NAME] [policy=NAME] [trainer=NAME] [key=value …]`: is everything here that training needs?

Without more, it describes the machine. `data=NAME` reads and decodes a data set as training would (`sample=50`: that many
clips of each split only), and writes a manifest with hashes. `policy=NAME` works out the memory of a training step without
allocating it. `data=NAME policy=NAME policy.checkpoint=… cache=build` fills the tower cache, with `devices=N` in N processes.

With `--json` the same comes as one object. Exit code 1 when training would fail.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from erv import config
from erv.cli.command import command
from erv.doctor import environment
from erv.errors import ConfigError
from erv.utils.sanitize import visible

_AS_JSON = "--json" in sys.argv


@command("doctor")
def main(cfg: DictConfig) -> None:
    """Print what is here, what the data set holds and what a training step needs."""
    if cfg.cache not in (None, "build"):
        raise ConfigError(f"cache is build, or left out; got {cfg.cache!r}")
    if cfg.cache == "build":
        from erv.doctor.cache import fill

        fill(cfg)
        return
    found: dict[str, Any] = {"environment": environment.describe(cfg.paths)}
    lines = environment.page(found["environment"])
    if cfg.get("data") is not None:
        found["data"], more = _data(cfg)
        lines += more
    if cfg.get("policy") is not None:
        found["policy"], more = _policy(cfg)
        lines += more
    print(json.dumps(found, indent=1, ensure_ascii=False) if _AS_JSON else visible("\n".join(lines)))
    if found.get("policy", {}).get("fits_here") is False or found.get("data", {}).get("fails"):
        sys.exit(1)


def _data(cfg: DictConfig) -> tuple[dict[str, Any], list[str]]:
    from erv.doctor import data
    from erv.types import MediaSpec

    config.check({"data": config.plain(cfg.data), "media": config.plain(cfg.media)})
    if cfg.sample is not None and (not isinstance(cfg.sample, int) or cfg.sample < 1):
        raise ConfigError(f"sample is the number of clips of each split to decode, or null for all; got {cfg.sample!r}")
    media = config.build(cfg.media)
    frames = config.plain(cfg.policy.config)["num_frames"] if cfg.get("policy") else MediaSpec().num_frames
    spec = MediaSpec(num_frames=frames, modalities=tuple(media.modalities))
    found = data.describe(config.build(cfg.data), media, spec, cfg.sample, Path(cfg.paths.runs) / "manifests")
    return found, data.page(found)


def _policy(cfg: DictConfig) -> tuple[dict[str, Any], list[str]]:
    from erv.doctor import memory as policy

    try:
        found = policy.describe(cfg)
    except ValueError as error:  # sizes or settings that cannot be
        raise ConfigError(f"policy: {error}") from error
    return found, policy.page(found)


if __name__ == "__main__":
    if _AS_JSON:
        sys.argv.remove("--json")  # Hydra's command line knows keys only
    main()
