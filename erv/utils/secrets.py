"""Secrets (API keys, tokens, passwords): read from the environment only, and kept out of configs, logs and run folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

_NAME = re.compile(r"(^|[_.])(api_?key|access_key|token|secret|password|passwd|credentials?)$", re.IGNORECASE)
_MIN_LENGTH = 12  # characters; a shorter value may occur in ordinary text by chance


def is_secret(name: str) -> bool:
    """Whether a config key or variable of this name holds a secret: `openai_api_key`, `HF_TOKEN`; not `token_budget`."""
    return _NAME.search(name) is not None


def refused(tree: Any, path: str = "") -> Iterator[str]:
    """Yield an error message for every secret in a config, recognised by its key or its value; no message repeats the secret.

    `path` is the dotted key of `tree`.
    """
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from refused(value, f"{path}.{key}".lstrip("."))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from refused(value, f"{path}.{index}")
    elif isinstance(tree, str) and tree:
        variables = [name for name, value in _environment_secrets().items() if value in tree]
        if variables:
            yield f"{path!r} holds the value of {variables[0]}, and would be written down; leave it in the environment"
        elif is_secret(path):
            yield f"{path!r} is a secret, and would be written down; set it in the environment (OPENAI_API_KEY, …)"


def refused_arguments(arguments: list[str]) -> list[str]:
    """The same for the arguments of a command line; to be called before Hydra writes them into the run's folder."""
    pairs = (argument.lstrip("+~").partition("=") for argument in arguments)
    return [problem for key, _, value in pairs for problem in refused(value, key)]


def masked(text: str) -> str:
    """Replace the value of every secret environment variable in `text` by `***`."""
    for value in _environment_secrets().values():
        text = text.replace(value, "***")
    return text


def _environment_secrets() -> dict[str, str]:
    """{name: value} of the environment variables that hold secrets."""
    return {name: value for name, value in os.environ.items() if is_secret(name) and len(value) >= _MIN_LENGTH}
