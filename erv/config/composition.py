"""How a config was put together: what was typed, and which file, or the command line, set each key."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

TYPED = "the command line"


def conf_folder() -> Path:
    """The folder of the YAML files: erv/conf in an installed wheel, conf/ beside erv/ in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


@dataclass(frozen=True)
class Composition:
    """`overrides` as Hydra understood them, `config_name` the command's file, `choices` the option of each group."""

    overrides: tuple[str, ...] = ()
    config_name: str = ""
    choices: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, hydra: Any) -> Composition:
        """From the `hydra` node of a composed config."""
        choices = {str(group): str(choice) for group, choice in hydra.runtime.choices.items() if choice is not None}
        return cls(tuple(hydra.overrides.task), str(hydra.job.config_name), choices)

    @classmethod
    def current(cls) -> Composition:
        """That of the running command; an empty one outside of a command."""
        from hydra.core.hydra_config import HydraConfig

        return cls.of(HydraConfig.get()) if HydraConfig.initialized() else cls()

    def origins(self) -> dict[str, str]:
        """What set each dotted key last, the files in the order that Hydra merges them in."""
        from hydra.core.global_hydra import GlobalHydra
        from hydra.types import RunMode

        if not self.config_name:
            return {}
        loader: Any = GlobalHydra.instance().config_loader()
        chosen = loader.compute_defaults_list(self.config_name, list(self.overrides), RunMode.RUN).defaults
        found: dict[str, str] = {}
        for default in chosen:
            package = f"{default.package}." if default.package else ""
            if default.config_path is None or package.startswith("hydra."):
                continue
            loaded = loader.repository.load_config(default.config_path)
            where = _spoken(loaded.path, default.config_path)
            tree = OmegaConf.to_container(loaded.config, resolve=False)
            found |= {f"{package}{key}": where for key in keys_of(tree) if key != "defaults"}
        return found | {key: TYPED for key in map(_key, self.overrides) if key}


def overrides() -> list[str]:
    """What the user typed, as Hydra understood it."""
    return list(Composition.current().overrides)


def config_dir() -> str | None:
    """The folder of configs of the user's own (`--config-dir`)."""
    words = sys.argv[1:]
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, joined, value = word.partition("=")
        if name in ("--config-dir", "-cd"):
            return str(Path(value if joined else following).absolute())
    return None


def _spoken(root: str, config_path: str) -> str:
    """A file of a search path, as the user would write it."""
    file = Path(root.removeprefix("file://")) / f"{config_path.removesuffix('.yaml')}.yaml"
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)


def _key(override: str) -> str:
    match = re.match(r"[+~]*([\w.]+)=", override)
    return match.group(1) if match else ""


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
    """What a config file says of itself in its first comment that is no directive."""
    lines = (line.strip() for line in file.read_text().splitlines())
    return next((line[1:].strip() for line in lines if line.startswith("#") and "@package" not in line), "")
