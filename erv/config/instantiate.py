"""Make objects of a composed Hydra config. The only place that instantiates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from erv.config.history import modern
from erv.config.targets import locate, parameters_of
from erv.errors import ConfigError


def plain(cfg: Any) -> Any:
    """`resolved`, where nothing may be missing."""
    return resolved(cfg, throw_on_missing=True)


def resolved(cfg: Any, throw_on_missing: bool) -> Any:
    """The config as dicts, lists and values, every interpolation resolved, every component under its public name."""
    if not OmegaConf.is_config(cfg):
        return modern(cfg)
    try:
        return modern(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=throw_on_missing))
    except OmegaConfBaseException as error:
        raise ConfigError(f"the config cannot be resolved: {error}") from error


def build(node: Any, **provided: Any) -> Any:
    """Instantiate the `_target_` of `node`, nested ones first, with `provided` added to its arguments."""
    from hydra.utils import instantiate

    tree = plain(node)
    for target in _targets(tree):
        locate(target)
    # Hydra would turn a provided record into a config of its own; a partial never sees it
    make = instantiate({**tree, "_partial_": True}, _convert_="all")
    try:
        return make(**provided)
    except ValueError as error:  # a constructor that refuses a setting
        raise ConfigError(f"{tree['_target_']}: {error}") from error


def _targets(node: Any) -> Iterator[str]:
    for value in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
        yield from _targets(value)
    if isinstance(node, Mapping) and "_target_" in node:
        yield node["_target_"]


def parameters_among(node: Any, names: Iterable[str]) -> list[str]:
    """Which of `names` the target of `node` takes as parameters: what the command has to make and to pass."""
    parameters = parameters_of(plain(node)["_target_"]).by_name
    return [name for name in names if name in parameters]
