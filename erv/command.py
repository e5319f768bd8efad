"""The commands' common front: Hydra's command line with one-page errors instead of tracebacks."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from erv import secrets
from erv.config import ROOT_KEYS, ConfigError, did_you_mean


def conf_folder() -> Path:
    """The folder of the YAML files: erv/conf in an installed wheel, conf/ beside erv/ in a checkout."""
    package = Path(__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def command(config_name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Make `main(cfg)` a command: Hydra's command line, with one-page errors instead of tracebacks (exit code 2)."""

    def decorate(main: Callable[[DictConfig], None]) -> Callable[[], None]:
        @functools.wraps(main)
        def run() -> None:
            import hydra
            from hydra.errors import HydraException

            def chosen(cfg: DictConfig) -> None:
                if OmegaConf.is_missing(cfg, "name"):
                    names = sorted(file.stem for file in (conf_folder() / "exp").glob("*.yaml"))
                    raise ConfigError(f"no experiment is chosen; add +exp=NAME with one of {', '.join(names)}")
                main(cfg)

            os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to the handler below
            sys.argv[1:] = [_left_out(argument) for argument in sys.argv[1:]]
            if problems := secrets.refused_arguments(sys.argv[1:]):
                sys.exit(_refuse("\n  ".join(problems)))
            try:
                hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=config_name)(chosen)()
            except ConfigError as error:
                sys.exit(_refuse(str(error)))
            except HydraException as error:
                sys.exit(_refuse(_explain_override(error, config_name)))

        return run

    return decorate


def _left_out(argument: str) -> str:
    """`judge=null` as Hydra understands it: the files say null for a group that is left out, its command line wants []."""
    group, _, value = argument.partition("=")
    return f"{group}=[]" if value == "null" and (conf_folder() / group).is_dir() else argument


def _refuse(message: str) -> int:
    print(f"\nerv: {message}", file=sys.stderr)
    return 2


def _explain_override(error: Exception, config_name: str) -> str:
    """Hydra's own message, and for an unknown key the nearest keys of the config it was meant for."""
    message = str(error.__cause__ or error) if "Could not override" not in str(error) else str(error)
    match = re.search(r"Could not override '([^']+)'.\nTo append", str(error))
    if match is None:
        return message
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    key = match.group(1)
    others = [
        arg for arg in sys.argv[1:] if "=" in arg and not arg.startswith("-") and arg.split("=")[0].lstrip("+~") != key
    ]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        known = [*ROOT_KEYS, *_keys(OmegaConf.to_container(compose(config_name, overrides=others)))]
    hint = f"--cfg job lists all keys; a key that is really new needs +{key}=…"
    return f"unknown key {key!r}{did_you_mean(key, known)}\n  {hint}"


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _keys(value, f"{prefix}{key}.")


def overrides() -> list[str]:
    """What the user typed, as Hydra understood it."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
