"""The signature of a run: 12 hex digits over everything that changes its result. It names the run's folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from erv.config.history import as_first_signed
from erv.config.instantiate import plain
from erv.config.schema import READ_WHERE, UNSIGNED
from erv.config.validate import at


def signature(cfg: Any, identities: Mapping[str, str] | None = None) -> str:
    """Hash a config.

    Args:
        cfg: the composed config, its interpolations unresolved.
        identities: what the keys that point at other runs and files point at, by dotted key, so that a run started from
            another checkpoint is another run even when its path is the same.
    """
    # values that are made of paths must not depend on where these lie
    placeholders = {"paths": {key: f"<{key}>" for key in cfg.get("paths") or {}}, "group": "<group>"}
    tree = plain(OmegaConf.merge(cfg, placeholders))
    unread = [key for key, (other, value) in READ_WHERE.items() if at(tree, other) != value]
    for dotted in (*UNSIGNED, *unread):
        _remove(tree, dotted.split("."))
    text = json.dumps([as_first_signed(tree), dict(identities or {})], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _remove(tree: Any, keys: Sequence[str]) -> None:
    """Remove a dotted key; a star stands for any one key."""
    if not isinstance(tree, dict):
        return
    first, *rest = keys
    if not rest:
        tree.pop(first, None)
        return
    for key in list(tree) if first == "*" else [first]:
        _remove(tree.get(key), rest)
