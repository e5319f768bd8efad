"""What a config's `_target_` may name: the public classes and functions of ERV, and classes of Lightning and torch.optim.

A config names the public API (`erv.training.GRPO`), not the file that a class lies in.

Classes of the user's own come from the packages that the environment variable ERV_PLUGINS names (docs/extending.md). No config
can name them, so that a config from elsewhere runs no code but ERV's.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
from collections.abc import Iterable, Sequence
from typing import Any

from erv.config.history import RENAMED_TARGETS
from erv.config.static_signature import Parameters, Unreadable, parameters_by_import, read_parameters
from erv.errors import ConfigError, did_you_mean

# The public components. A class that is not here cannot be built from a config, wherever it lies.
COMPONENTS = (
    *RENAMED_TARGETS.values(),
    "erv.llm.Chat",
    "erv.policy.load_policy",
    "erv.verifier.Loss",
    "erv.verifier.Sentences",
    "erv.verifier.build_verifier",
    "erv.verifier.load_verifier",
)
# Classes that are written in these packages may be built too.
LIBRARIES = (
    *(
        f"lightning.pytorch.{name}"
        for name in ("trainer", "strategies", "callbacks", "loggers", "profilers", "plugins")
    ),
    "torch.optim",
)
_LIBRARY_ROOTS = tuple(sorted({package.partition(".")[0] for package in LIBRARIES}))
PLUGINS = "ERV_PLUGINS"


def plugins() -> tuple[str, ...]:
    """The packages of the user's own whose classes and functions a config may name."""
    return tuple(name.strip() for name in os.environ.get(PLUGINS, "").split(",") if name.strip())


def import_plugins() -> None:
    """Import the packages of the user's own, which may register metrics; ConfigError for one that cannot be imported."""
    for name in plugins():
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever the user's code raises
            raise ConfigError(
                f"{PLUGINS}={os.environ[PLUGINS]}: {name} cannot be imported ({type(error).__name__}: {error}); run the command "
                "where it can, or set PYTHONPATH to the folder that it lies in"
            ) from error


def parameters_of(target: object) -> Parameters:
    """The parameters of the class or function that a `_target_` names; ConfigError as in `locate`.

    Nothing is imported where the source tells them.
    """
    packages = _refuse_name(target)
    try:
        parameters = read_parameters(str(target))
    except Unreadable:
        return parameters_by_import(locate(target))
    if target not in COMPONENTS and not _is_allowed(parameters.module, parameters.is_class, packages):
        raise ConfigError(_refusal(target, packages))
    return parameters


def locate(target: object) -> Any:
    """The class or function that a `_target_` names; ConfigError for one that a config may not build, or that does not exist."""
    packages = _refuse_name(target)
    try:
        component = pkgutil.resolve_name(str(target))
    except Exception as error:  # a module may raise anything when it is imported or asked for a name
        raise ConfigError(f"{target!r} cannot be imported: {error}") from error
    is_class = isinstance(component, type)
    module = getattr(component, "__module__", None) if is_class or inspect.isfunction(component) else None
    if target not in COMPONENTS and not _is_allowed(module or "", is_class, packages):
        raise ConfigError(_refusal(target, packages))
    return component


def _refuse_name(target: object) -> tuple[str, ...]:
    """ConfigError for a name that can be refused before anything is imported; else the packages of the user's own."""
    packages = plugins()
    if not isinstance(target, str) or not (target in COMPONENTS or _lies_in(target, (*_LIBRARY_ROOTS, *packages))):
        raise ConfigError(_refusal(target, packages))
    return packages


def _is_allowed(module: str, is_class: bool, packages: Sequence[str]) -> bool:
    """Whether a config may build what is written in `module`.

    What a module has only imported is not of its package: `my_lab.os.system` is no component of my_lab.
    """
    return (is_class and _lies_in(module, LIBRARIES)) or _lies_in(module, packages)


def _lies_in(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _refusal(target: object, packages: Sequence[str]) -> str:
    owner = str(target).partition(".")[0]
    own = ""
    if packages:
        own = f", and what is written in {', '.join(packages)} ({PLUGINS})"
    elif isinstance(target, str) and owner.isidentifier() and owner not in ("erv", *_LIBRARY_ROOTS):
        own = f"; for code of your own in a package {owner}, begin the command with {PLUGINS}={owner}"
    return (
        f"{target!r} is not allowed: targets are the components of ERV ({COMPONENTS[0]}, …, as in conf/) and classes of "
        f"{', '.join(LIBRARIES)}{own}{did_you_mean(str(target), COMPONENTS)}"
    )
