"""No model is evaluated on clips that it, or what it was made from, was trained on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from erv.config.validate import at
from erv.errors import ConfigError
from erv.evaluation.settings import EvaluationSettings
from erv.runs import provenance
from erv.runs.resolve import CHECKPOINT_KEYS
from erv.runtime.components import Parts
from erv.types import Clip

_log = logging.getLogger(__name__)


def note_training(parts: Parts, model: str, clips: Sequence[Clip]) -> None:
    """Write beside a model what it, and those it was made from, were trained on; no clips are those of a verifier's sentences."""
    start = at(parts.tree, "policy.checkpoint") if clips else None
    name, seen = parts.corpus.name, [parts.corpus.identity(clip) for clip in clips]
    if not clips:
        seen = [clip if "/" in clip else f"{name}/{clip}" for clip in parts.labelled.clips]
    before = (provenance.read(start) if start else None) or []
    own = provenance.Training(parts.tree["stage"], Path(parts.folder).name, tuple(sorted(set(seen))))
    provenance.write(model, [*before, own])


def refuse(parts: Parts) -> None:
    """ConfigError (or, by choice, a warning) when a model of this run was trained on clips that it is evaluated on."""
    plan: EvaluationSettings = parts.make("evaluation")
    evaluated = {parts.corpus.identity(clip) for clip in parts.corpus.clips(plan.split)[: plan.limit]}
    for key in CHECKPOINT_KEYS:
        node = at(parts.tree, key)
        known = provenance.read(node) if node else []
        if known is None:
            _log.warning("nobody knows what %s=%s was trained on: it may have seen the evaluation clips", key, node)
        for line in provenance.overlaps(known or [], evaluated):
            message = f"the evaluation clips are no clean test of {key}={node}: {line}"
            if plan.on_leak == "error":
                raise ConfigError(f"{message}; use other weights or another fold, or set evaluation.on_leak=warn")
            _log.warning("%s", message)
