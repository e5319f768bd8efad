"""How a config was composed: the overrides that were typed, and which file, or the command line, set each key."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

TYPED = "the command line"  # the origin of a key that an override set


def conf_folder() -> Path:
    """The folder of the YAML files: erv/conf in an installed wheel, conf/ beside erv/ in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


@dataclass(frozen=True)
class Composition:
    """What a config was composed from.

    Attributes:
        overrides: The overrides of the command line, as Hydra parsed them.
        config_name: The name of the command's config file.
        choices: The chosen option of each config group.
    """

    overrides: tuple[str, ...] = ()
    config_name: str = ""
    choices: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, hydra: Any) -> Composition:
        """Read it from the `hydra` node of a composed config."""
        choices = {str(group): str(choice) for group, choice in hydra.runtime.choices.items() if choice is not None}
        return cls(tuple(hydra.overrides.task), str(hydra.job.config_name), choices)

    @classmethod
    def current(cls) -> Composition:
        """The composition of the running command; an empty one outside of a command."""
        from hydra.core.hydra_config import HydraConfig

        return cls.of(HydraConfig.get()) if HydraConfig.initialized() else cls()

    def origins(self) -> dict[str, str]:
        """{dotted key: the file that set it last, or TYPED}; files are merged in the order of Hydra's defaults list."""
        from hydra.core.global_hydra import GlobalHydra
        from hydra.types import RunMode

        if not self.config_name:
            return {}
        loader: Any = GlobalHydra.instance().config_loader()
        defaults = loader.compute_defaults_list(self.config_name, list(self.overrides), RunMode.RUN).defaults
        origins: dict[str, str] = {}
        for default in defaults:
            package = f"{default.package}." if default.package else ""
            if default.config_path is None or package.startswith("hydra."):
                continue
            loaded = loader.repository.load_config(default.config_path)
            file = _displayed_path(loaded.path, default.config_path)
            tree = OmegaConf.to_container(loaded.config, resolve=False)
            origins |= {f"{package}{key}": file for key in keys_of(tree) if key != "defaults"}
        return origins | {key: TYPED for key in map(_key_of, self.overrides) if key}


def overrides() -> list[str]:
    """The overrides of the running command, as Hydra parsed them."""
    return list(Composition.current().overrides)


def config_dir() -> str | None:
    """The user's own folder of configs (`--config-dir`), as an absolute path; None without one."""
    arguments = sys.argv[1:]
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in ("--config-dir", "-cd"):
            return str(Path(value if equals else following).absolute())
    return None


def keys_of(node: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys of nested dicts, inner nodes included."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from keys_of(value, f"{prefix}{key}.")


def experiments() -> dict[str, str]:
    """The experiments by name, with the first comment of each file."""
    files = sorted((conf_folder() / "exp").glob("*.yaml"))
    return {file.stem: first_comment(file) for file in files}


def first_comment(file: Path) -> str:
    """The first comment line of a config file that is not a Hydra directive; it describes the file."""
    lines = (line.strip() for line in file.read_text().splitlines())
    return next((line[1:].strip() for line in lines if line.startswith("#") and "@package" not in line), "")


def _displayed_path(search_path: str, config_path: str) -> str:
    """The path of a config file, relative to the working folder if it lies below."""
    file = Path(search_path.removeprefix("file://")) / f"{config_path.removesuffix('.yaml')}.yaml"
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)


def _key_of(override: str) -> str:
    """The dotted key of `key=value`, without + and ~; "" for anything else."""
    match = re.match(r"[+~]*([\w.]+)=", override)
    return match.group(1) if match else ""
