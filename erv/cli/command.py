"""The commands' common front: Hydra's command line with one-page errors instead of tracebacks."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from omegaconf import DictConfig, OmegaConf

from erv.cli.launcher import PARENT, GridFailed, Task, register
from erv.config.composition import conf_folder, config_dir, keys_of
from erv.config.schema import ROOT
from erv.distributed import signals
from erv.distributed.ranks import end_with
from erv.errors import ConfigError, did_you_mean
from erv.utils import secrets
from erv.utils.sanitize import visible

T = TypeVar("T")


def command(
    config_name: str, plan: Callable[[DictConfig], Path | None] | None = None
) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Make `main(cfg)` the command `erv.<config_name>`: Hydra's command line, with one-page errors (exit code 2).

    `plan(cfg)` checks all that can be known before a run begins and tells its folder; a grid (`-m`) plans every job before
    it starts the first one.
    """

    def decorate(main: Callable[[DictConfig], None]) -> Callable[[], None]:
        @functools.wraps(main)
        def run() -> None:
            if {"--help", "-h"} & set(sys.argv[1:]):
                from erv.cli.help import page

                print(page(config_name, sys.modules[main.__module__].__doc__ or "", conf_folder()))
                return
            if grid := os.environ.pop(PARENT, None):
                end_with(int(grid))  # a grid that was killed can then be started again
            signals.listen(signals.stop)
            import hydra
            from hydra.errors import HydraException

            os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to the handler below
            sys.argv[1:] = [_left_out(argument) for argument in sys.argv[1:]]
            if problems := secrets.refused_arguments(sys.argv[1:]):
                sys.exit(_refuse("\n  ".join(problems)))
            register()
            task = Task(f"erv.{config_name}", _chosen(main), _chosen(plan) if plan else None)
            try:
                hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=config_name)(task)()
            except ConfigError as error:
                sys.exit(_refuse(str(error)))
            except HydraException as error:
                sys.exit(_refuse(_explain_override(error, config_name)))
            except GridFailed as error:
                sys.exit(f"\nerv: {visible(str(error))}")
            except signals.Stopped as end:
                signals.tell(end)
                raise

        return run

    return decorate


def _chosen(main: Callable[[DictConfig], T]) -> Callable[[DictConfig], T]:
    """`main`, for configs with an experiment."""

    @functools.wraps(main)
    def chosen(cfg: DictConfig) -> T:
        if OmegaConf.is_missing(cfg, "name"):
            names = sorted(file.stem for file in (conf_folder() / "exp").glob("*.yaml"))
            raise ConfigError(f"no experiment is chosen; add +exp=NAME with one of {', '.join(names)}")
        return main(cfg)

    return chosen


def _left_out(argument: str) -> str:
    """`judge=null` as Hydra understands it: the files say null for a group that is left out, its command line wants []."""
    group, _, value = argument.partition("=")
    return f"{group}=[]" if value == "null" and (conf_folder() / group).is_dir() else argument


def _refuse(message: str) -> int:
    print(f"\nerv: {visible(message)}", file=sys.stderr)
    return 2


def _explain_override(error: Exception, config_name: str) -> str:
    """Hydra's own message, and for an unknown key or option the nearest ones."""
    from hydra.errors import OverrideParseException

    message = str(error.__cause__ or error) if "Could not override" not in str(error) else str(error)
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        return f"{message}\n  a value that holds more than plain letters needs quotes of its own: \"{key}='{value}'\""
    option = re.search(r"Could not find '(\w+)/([^']+)'", message)
    if option:
        group, name = option.groups()
        options = [file.stem for file in (conf_folder() / group).glob("*.yaml")]
        if options:
            return f"there is no {group}={name}{did_you_mean(name, options)}\n  {group} is one of {', '.join(sorted(options))}"
    match = re.search(r"Could not override '([^']+)'.\nTo append", str(error))
    if match is None:
        return message
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    key = match.group(1)
    others = [
        arg for arg in sys.argv[1:] if "=" in arg and not arg.startswith("-") and arg.split("=")[0].lstrip("+~") != key
    ]
    if own := config_dir():
        others.append(f"hydra.searchpath=[file://{own}]")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        tree = OmegaConf.to_container(compose(config_name, overrides=_first_values(others)))
    known = [*ROOT, *keys_of(tree)] if isinstance(tree, Mapping) else []
    hint = f"--cfg job lists all keys; a key that is really new needs +{key}=…"
    return f"unknown key {key!r}{did_you_mean(key, known)}\n  {hint}"


def _first_values(arguments: list[str]) -> list[str]:
    """The arguments of a sweep without what is swept over, so that one config can be composed of them."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(arguments)
    first = [(o, next(iter(o.sweep_string_iterator()), None) if o.is_discrete_sweep() else None) for o in parsed]
    return [f"{o.get_key_element()}={value}" if value is not None else str(o.input_line) for o, value in first]
