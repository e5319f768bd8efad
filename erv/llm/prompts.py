"""Prompts as versioned files, and the quoting of untrusted texts in requests."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """The text of a prompt file without its comment lines."""

    version: str  # NAME@HASH; changes whenever the text does
    text: str

    @classmethod
    def load(cls, folder: Path, name: str) -> Prompt:
        """Load the prompt `name` of `folder`; ValueError listing the folder's prompts if it is absent."""
        file = folder / f"{name}.txt"
        if not file.is_file():
            available = ", ".join(sorted(f.stem for f in folder.glob("*.txt")))
            raise ValueError(f"there is no prompt {name!r}; set it to one of {available}")
        lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        text = "\n".join(lines).strip()
        return cls(f"{name}@{hashlib.sha256(text.encode()).hexdigest()[:8]}", text)

    def fill(self, **values: str) -> str:
        """Replace each `{name}`; only for trusted values: texts to be read go through `quote_as_json`."""
        filled = self.text
        for name, value in values.items():
            filled = filled.replace(f"{{{name}}}", value)
        return filled


def quote_as_json(**values: Any) -> str:
    """Encode untrusted texts as one JSON object, the whole message of the user, against prompt injection.

    Whatever a text holds, it cannot close the string that it is in, and the prompt says that strings are data to be read,
    never instructions. "<", with which most models' control tokens begin, is written as its JSON escape.
    """
    return json.dumps(values, ensure_ascii=False).replace("<", "\\u003c")
