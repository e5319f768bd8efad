"""The folder that a trained verifier is used from, here and elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erv.verifier.classifier import CHOSEN, Verifier


def export(verifier: Verifier, folder: Path, chosen: Mapping[str, Any], card: str) -> None:
    """Write weights, tokenizer, label names, the chosen threshold and temperature, and the model card.

    `Verifier.save` says what loads it; what was chosen is in its `config.erv` too.
    """
    verifier.model.config.erv = dict(chosen)
    verifier.save(folder)
    (folder / CHOSEN).write_text(json.dumps(chosen, indent=1) + "\n")
    (folder / "README.md").write_text(card)
