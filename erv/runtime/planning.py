"""Everything that can be known of a run before a framework is imported: its checked config, its inputs, its folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from erv import config
from erv.config.composition import Composition
from erv.config.schema import PROVIDED
from erv.config.validate import as_list, problems_of
from erv.errors import ConfigError
from erv.runs.resolve import adopt_verifier, resolve_checkpoints, training_files
from erv.runs.run import Run
from erv.runtime import preflight
from erv.utils.io import disk_error

_log = logging.getLogger(__name__)


def plan_run(cfg: DictConfig) -> tuple[dict[str, Any], Run]:
    """Check the config and all that it needs; the config with its references resolved, and the run it makes.

    One ConfigError lists every problem. Nothing is written, so that the jobs of a grid can be planned before one starts.
    """
    composition = Composition.current()
    problems = problems_of(cfg, PROVIDED, composition.origins)
    tree = config.plain(cfg) if not OmegaConf.missing_keys(cfg) else {}
    if tree and not any("_target_" in text for text in problems):
        problems += [*preflight.trainer_problems(tree), *preflight.input_problems(tree, composition)]
    if problems:
        raise ConfigError(as_list("this cannot run:", problems))
    with disk_errors():
        corpus = config.build(tree["data"])
        for warning in corpus.warnings():
            _log.warning("%s", warning)
        adopted = adopt_verifier(tree) if tree["stage"] == "evaluate" else {}
        identities = adopted | resolve_checkpoints(tree) | training_files(tree) | {"data": corpus.digest()}
    signature = config.signature(cfg, identities)
    return tree, Run(Path(tree["paths"]["runs"]) / tree["group"] / tree["name"] / signature)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn an error of a full or broken disk into a ConfigError that says what to do."""
    try:
        yield
    except Exception as error:
        if (reason := disk_error(error)) is None:
            raise
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
        raise ConfigError(
            f"the disk refuses to be written or read: {reason}\n  make room or set paths.runs (ERV_RUNS) to another disk; what "
            f"was done is kept, and the same command goes on from there{notes}"
        ) from error
