"""Lazy exports: public names of a package that are imported on first use (PEP 562)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make `__getattr__`, `__dir__` and `__all__` of a package that exports names of its modules.

    Nothing is imported before a name is used: a command that only reads reports must not wait for torch.

    Args:
        package: The package's name, for error messages.
        modules: {public name: "module"}, or {public name: "module:name"} where the name in the module differs.

    Example:
        __getattr__, __dir__, __all__ = lazy_exports(__name__, {"SFT": "erv.training.sft"})
    """

    def getattr_(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = modules[name].partition(":")
        return getattr(importlib.import_module(module), attribute or name)

    names = sorted(modules)
    return getattr_, lambda: names, names
