"""Entry point shared by the commands: Hydra's command line, with short error messages instead of tracebacks."""

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
from erv.config.targets import import_plugins
from erv.distributed import signals
from erv.distributed.ranks import end_with
from erv.errors import ConfigError, UserError, did_you_mean
from erv.utils import secrets
from erv.utils.sanitize import visible

T = TypeVar("T")


def command(
    config_name: str, plan: Callable[[DictConfig], Path | None] | None = None
) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Decorate `main(cfg)` as the command `python -m erv.<config_name>` with Hydra's command line.

    A `ConfigError`, or an override that Hydra rejects, ends the command with its message and exit code 2; failed jobs of a grid
    end it with exit code 1, a signal with 143 or 130. Any other exception keeps its traceback.

    Args:
        config_name: The config file of the command, conf/<config_name>.yaml.
        plan: Checks everything that can be checked before a run starts, and returns the run's folder (None if it is not
            known yet). A grid (`-m`) plans all of its jobs before it starts the first one.
    """

    def decorate(main: Callable[[DictConfig], None]) -> Callable[[], None]:
        @functools.wraps(main)
        def run() -> None:
            if {"--help", "-h"} & set(sys.argv[1:]):
                from erv.cli.help import help_page

                print(help_page(config_name, sys.modules[main.__module__].__doc__ or "", conf_folder()))
                return
            if grid_pid := os.environ.pop(PARENT, None):
                # a job that outlived a killed grid would hold the lock of its run's folder when the grid is started again
                end_with(int(grid_pid))
            signals.listen(signals.stop)
            import hydra
            from hydra.errors import HydraException

            os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints exceptions itself and exits with code 1
            sys.argv[1:] = [_translate_null_group(argument) for argument in sys.argv[1:]]
            if problems := secrets.refused_arguments(sys.argv[1:]):
                sys.exit(_refuse("\n  ".join(problems)))
            register()
            task = Task(f"erv.{config_name}", _require_experiment(main), _require_experiment(plan) if plan else None)
            try:
                import_plugins()
                hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=config_name)(task)()
            except UserError as error:
                sys.exit(_refuse(str(error)))
            except HydraException as error:
                sys.exit(_refuse(_explain_override(error, config_name)))
            except GridFailed as error:
                sys.exit(f"\nerv: {visible(str(error))}")
            except signals.Stopped as stopped:
                signals.tell(stopped)
                raise

        return run

    return decorate


def _require_experiment(function: Callable[[DictConfig], T]) -> Callable[[DictConfig], T]:
    """Wrap `function(cfg)` to raise ConfigError for a config without an experiment (its `name` is missing)."""

    @functools.wraps(function)
    def checked(cfg: DictConfig) -> T:
        if OmegaConf.is_missing(cfg, "name"):
            names = sorted(file.stem for file in (conf_folder() / "exp").glob("*.yaml"))
            raise ConfigError(f"no experiment is chosen; add +exp=NAME with one of {', '.join(names)}")
        return function(cfg)

    return checked


def _translate_null_group(argument: str) -> str:
    """Translate `judge=null` to `judge=[]`: a defaults list takes null for a group left out, the command line only []."""
    group, _, value = argument.partition("=")
    return f"{group}=[]" if value == "null" and (conf_folder() / group).is_dir() else argument


def _refuse(message: str) -> int:
    """Print an error message; returns the exit code."""
    print(f"\nerv: {visible(message)}", file=sys.stderr)
    return 2


def _explain_override(error: Exception, config_name: str) -> str:
    """Format an error of Hydra's command line; for an unknown key or option, with the nearest valid ones."""
    from hydra.errors import OverrideParseException

    message = str(error.__cause__ or error) if "Could not override" not in str(error) else str(error)
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        return f"{message}\n  a value that holds more than plain letters needs quotes of its own: \"{key}='{value}'\""
    unknown_option = re.search(r"Could not find '(\w+)/([^']+)'", message)
    if unknown_option:
        group, name = unknown_option.groups()
        options = [file.stem for file in (conf_folder() / group).glob("*.yaml")]
        if options:
            return f"there is no {group}={name}{did_you_mean(name, options)}\n  {group} is one of {', '.join(sorted(options))}"
    unknown_key = re.search(r"Could not override '([^']+)'.\nTo append", str(error))
    if unknown_key is None:
        return message
    # compose the config again without the rejected override: its keys are the candidates for a suggestion
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    key = unknown_key.group(1)
    others = [
        argument
        for argument in sys.argv[1:]
        if "=" in argument and not argument.startswith("-") and argument.split("=")[0].lstrip("+~") != key
    ]
    if folder := config_dir():
        others.append(f"hydra.searchpath=[file://{folder}]")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        tree = OmegaConf.to_container(compose(config_name, overrides=_first_values(others)))
    valid_keys = [*ROOT, *keys_of(tree)] if isinstance(tree, Mapping) else []
    hint = f"--cfg job lists all keys; a key that is really new needs +{key}=…"
    return f"unknown key {key!r}{did_you_mean(key, valid_keys)}\n  {hint}"


def _first_values(arguments: list[str]) -> list[str]:
    """Replace every sweep (`key=1,2`) by its first value, so that a single config can be composed."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    result = []
    for override in OverridesParser.create().parse_overrides(arguments):
        value = next(iter(override.sweep_string_iterator()), None) if override.is_discrete_sweep() else None
        result.append(str(override.input_line) if value is None else f"{override.get_key_element()}={value}")
    return result
