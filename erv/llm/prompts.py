"""Prompts as versioned files, and texts as data inside them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """The text of a prompt file without its comment lines, and a version that changes whenever the text does."""

    version: str
    text: str

    @classmethod
    def load(cls, folder: Path, name: str) -> Prompt:
        """The prompt `name` of `folder`; ValueError listing the prompts there when it is absent."""
        file = folder / f"{name}.txt"
        if not file.is_file():
            known = ", ".join(sorted(f.stem for f in folder.glob("*.txt")))
            raise ValueError(f"there is no prompt {name!r}; set it to one of {known}")
        lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        text = "\n".join(lines).strip()
        return cls(f"{name}@{hashlib.sha256(text.encode()).hexdigest()[:8]}", text)

    def fill(self, **values: str) -> str:
        """The text with each `{name}` replaced; never used for texts from outside, which go through `data`."""
        filled = self.text
        for name, value in values.items():
            filled = filled.replace(f"{{{name}}}", value)
        return filled


def data(**values: Any) -> str:
    """Texts as one JSON object: however a text is written, it cannot close the string that it stands in.

    The message holds nothing else, and the prompt says that its strings are data to be read, never instructions. A "<", with
    which most models' control tokens begin, is written as JSON's escape for it.
    """
    return json.dumps(values, ensure_ascii=False).replace("<", "\\u003c")
