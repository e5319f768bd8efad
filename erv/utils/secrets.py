"""Secrets (API keys, tokens, passwords) come from the environment and go nowhere else: not into configs, logs or folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

_NAME = re.compile(r"(^|[_.])(api_?key|access_key|token|secret|password|passwd|credentials?)$", re.IGNORECASE)
_SHORTEST = 12  # characters; shorter values are words that texts may hold by chance


def is_secret(name: str) -> bool:
    """Whether a key or variable of this name holds a secret: `openai_api_key`, `HF_TOKEN`; not `token_budget`."""
    return _NAME.search(name) is not None


def refused(tree: Any, path: str = "") -> Iterator[str]:
    """What is wrong with a config that holds secrets, by key and by value; the messages do not repeat them."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from refused(value, f"{path}.{key}".lstrip("."))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from refused(value, f"{path}.{index}")
    elif isinstance(tree, str) and tree:
        variables = [name for name, value in _variables().items() if value in tree]
        if variables:
            yield f"{path!r} holds the value of {variables[0]}, and would be written down; leave it in the environment"
        elif is_secret(path):
            yield f"{path!r} is a secret, and would be written down; set it in the environment (OPENAI_API_KEY, …)"


def refused_arguments(arguments: list[str]) -> list[str]:
    """The same for a command line, before anything of it is written."""
    pairs = (argument.lstrip("+~").partition("=") for argument in arguments)
    return [problem for key, _, value in pairs for problem in refused(value, key)]


def masked(text: str) -> str:
    """`text` with `***` for every secret of the environment."""
    for value in _variables().values():
        text = text.replace(value, "***")
    return text


def _variables() -> dict[str, str]:
    return {name: v for name, v in os.environ.items() if is_secret(name) and len(v) >= _SHORTEST}
