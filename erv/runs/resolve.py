"""What a config points at: the runs that made its policy and its verifier, and the files that it trains on."""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from erv.config.composition import experiments
from erv.config.history import modern
from erv.errors import ConfigError
from erv.runs.run import METRICS, MODEL
from erv.utils.io import file_sha256
from erv.utils.tables import table_files

_LOCAL = (".", "/", "~", "runs/", "models/")  # how paths begin; of these only the last two could be owners on the hub
_SET = (
    "set the key to a run's folder, a folder of runs, the folder of a model (it has a config.json), or a hub id such as "
    "owner/name"
)

_log = logging.getLogger(__name__)
CHECKPOINTS = ("policy.checkpoint", "verifier.model.checkpoint")  # keys that may point at other runs


def resolve_checkpoints(tree: dict[str, Any]) -> dict[str, str]:
    """Replace references to other runs in `tree` by model folders; returns what each is, for the signature."""
    identities = {}
    for key in CHECKPOINTS:
        *parents, last = key.split(".")
        node: Any = tree
        for parent in parents:
            node = (node or {}).get(parent)
        if node and node.get(last):
            node[last], identities[key] = find_model(node[last], tree["seed"])
    return identities


def training_config(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the run that trained the policy of `tree`; empty for weights that come from elsewhere."""
    policy = (tree.get("policy") or {}).get("checkpoint")
    file = Path(find_model(policy, tree["seed"])[0]).parent / "config.yaml" if policy else None
    return modern(yaml.safe_load(file.read_text()) or {}) if file is not None and file.is_file() else {}


def adopt_verifier(tree: dict[str, Any]) -> dict[str, str]:
    """Where `tree` names no verifier, take that of the policy's training, and its reward; returns what it is, for the signature.

    So that an evaluation reads sentences as the training did, without being told where the verifier lies.
    """
    trained = {} if tree.get("verifier") else training_config(tree)
    model = ((trained.get("verifier") or {}).get("model") or {}).get("checkpoint")
    if not model or not trained.get("reward"):
        return {}
    if not Path(model).is_dir():
        _log.warning("the verifier of the policy's training is not at %s, so no verifier reads the explanations", model)
        return {}
    tree["verifier"], tree["reward"] = trained["verifier"], trained["reward"]
    _log.info("explanations are read by the verifier of the policy's training, %s", model)
    return {"adopted": Path(model).parent.name}


def training_files(tree: Mapping[str, Any]) -> dict[str, str]:
    """The hashes of the verifier's training files, for the signature; those of the corpus itself are known by the corpus."""
    files = ((tree.get("verifier") or {}).get("data") or {}).get("files") or {}
    root = tree["data"].get("root")
    hashes = {}
    for name, source in files.items():
        try:
            tables = table_files(source) if source else []
        except ValueError:
            continue  # told with the verifier's data
        own = [file for file, _ in tables if not (root and Path(root) in file.parents)]
        sha256 = [file_sha256(file) for file in own]
        if own:
            hashes[f"verifier.data.files.{name}"] = sha256[0] if source == str(own[0]) else json.dumps(sha256)
    return hashes


def find_model(reference: str, seed: int) -> tuple[str, str]:
    """What a checkpoint key points at: (folder or hub id to load, identity for the signature).

    A reference is a run's folder, a folder of runs (of which exactly one finished run with this `seed` must exist), a
    folder that a model was saved in, or a hub id such as "org/name". "~" is the home folder.
    """
    path = Path(reference).expanduser()
    if (path / METRICS).is_file():
        return str(path / MODEL), path.name
    if (path / "config.json").is_file():
        return os.path.expanduser(reference), reference
    if path.is_dir():
        return _finished_in(path, seed)
    if path.exists():
        raise ConfigError(f"{reference!r} is a file, and a checkpoint is a folder; {_SET}")
    if reason := _taken_for_path(reference, path):
        raise ConfigError(
            f"{reference!r} does not exist; it is taken for a path since {reason}{_made_with(path, seed)}"
        )
    # imported here since it takes 0.1 s; the package exports these names lazily, which mypy does not see
    from huggingface_hub.utils import HFValidationError, validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(reference)
    except HFValidationError as error:
        raise ConfigError(f"{reference!r} is no folder here, and not a hub id either ({error}); {_SET}") from error
    return reference, reference


def _finished_in(path: Path, seed: int) -> tuple[str, str]:
    """The one finished run with this seed in a folder of runs."""
    runs = sorted(file.parent for file in path.glob(f"*/{METRICS}"))
    matching = [run for run in runs if _seed(run) == seed]
    if len(matching) == 1:
        return str(matching[0] / MODEL), matching[0].name
    if matching:
        listed = "\n  ".join(str(run) for run in matching)
        raise ConfigError(f"several finished runs with seed {seed} below {path}; name one of them:\n  {listed}")
    seeds = ", ".join(sorted({str(_seed(run)) for run in runs})) or "none"
    raise ConfigError(
        f"no finished run with seed {seed} in the folder {str(path)!r} (seeds there: {seeds}), which is no model's folder "
        f"either (it has no config.json){_made_with(path, seed)}"
    )


def _taken_for_path(reference: str, path: Path) -> str | None:
    """Why a reference to nothing on this machine cannot have meant a hub id; None where it can."""
    if reference.startswith(_LOCAL):
        return f"it begins with {next(start for start in _LOCAL if reference.startswith(start))}"
    if reference.count("/") > 1:
        return "a hub id has at most one /"
    if "/" in reference and path.parent.is_dir():
        return f"the folder {str(path.parent)!r} exists"
    return None


def _made_with(path: Path, seed: int) -> str:
    """The end of a message: the commands that make the runs `<runs>/<group>/<name>`, where there are any, or what to set."""
    group, stage = path.parent.name, path.name.partition("_")[0]
    known = experiments()
    if f"{stage}_{group}" in known:
        chosen = [f"{stage}_{group}"]
    else:
        chosen = [f"{name} group={shlex.quote(group)}" for name in known if name.startswith(f"{stage}_")]
    if not chosen:
        return f"; {_SET}"
    commands = "".join(f"  python -m erv.train +exp={choice} seed={seed}\n" for choice in chosen)
    return f"; make it with{' one of' if len(chosen) > 1 else ''}\n{commands}or {_SET}"


def _seed(run: Path) -> int | None:
    value = json.loads((run / METRICS).read_text()).get("seed")
    return int(value) if value is not None else None
