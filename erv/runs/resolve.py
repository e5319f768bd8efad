"""Resolve what a config refers to: the runs that trained its policy and its verifier, and the files that it trains on."""

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

CHECKPOINT_KEYS = ("policy.checkpoint", "verifier.model.checkpoint")  # config keys that may refer to other runs
# how a path begins; runs/ and models/ could also be the owner in a hub id, but are this project's folders
_PATH_PREFIXES = (".", "/", "~", "runs/", "models/")
_HOW_TO_SET = (
    "set the key to a run's folder, a folder of runs, the folder of a model (it has a config.json), or a hub id such as "
    "owner/name"
)
_log = logging.getLogger(__name__)


def resolve_checkpoints(tree: dict[str, Any]) -> dict[str, str]:
    """Replace the references to other runs in the config `tree` by model folders, in place.

    Returns:
        {key: identity} of each checkpoint, for the run signature; see `find_model`.
    """
    identities = {}
    for key in CHECKPOINT_KEYS:
        *parents, last = key.split(".")
        node: Any = tree
        for parent in parents:
            node = (node or {}).get(parent)
        if node and node.get(last):
            node[last], identities[key] = find_model(node[last], tree["seed"])
    return identities


def training_config(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the run that trained the policy of `tree`, in today's key names; empty for weights that no run made."""
    policy = (tree.get("policy") or {}).get("checkpoint")
    file = Path(find_model(policy, tree["seed"])[0]).parent / "config.yaml" if policy else None
    return modern(yaml.safe_load(file.read_text()) or {}) if file is not None and file.is_file() else {}


def adopt_verifier(tree: dict[str, Any]) -> dict[str, str]:
    """If the config `tree` names no verifier, set the verifier and the reward of the policy's training, in place.

    An evaluation then reads sentences as the training did, without the user having to name the verifier.

    Returns:
        {"adopted": run of the verifier} for the run signature; empty if nothing was changed.
    """
    trained = {} if (tree.get("verifier") or {}).get("model") else training_config(tree)
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
    """SHA-256 of the verifier's training files by config key, for the run signature.

    Files below data.root are left out: the corpus' own digest is part of the signature. The value is the hash itself if the
    key names one file, and a JSON list of hashes if it names a folder or a file for each split.
    """
    sources = ((tree.get("verifier") or {}).get("data") or {}).get("files") or {}
    root = tree["data"].get("root")
    hashes = {}
    for name, source in sources.items():
        try:
            tables = table_files(source) if source else []
        except ValueError:
            continue  # reported when the verifier's data are read
        files = [file for file, _ in tables if not (root and Path(root) in file.parents)]
        sha256 = [file_sha256(file) for file in files]
        if files:
            hashes[f"verifier.data.files.{name}"] = sha256[0] if source == str(files[0]) else json.dumps(sha256)
    return hashes


def find_model(reference: str, seed: int) -> tuple[str, str]:
    """Find the model that a checkpoint key refers to.

    Args:
        reference: A run's folder, a folder of runs (of which exactly one finished run must have this seed), a folder that a
            model was saved in, or a hub id such as "org/name". "~" is the home folder.
        seed: The seed of the present run.

    Returns:
        What to load (a folder or a hub id), and its identity for the run signature: the signature of the run that made it, or
        the reference itself.

    Raises:
        ConfigError: If the reference is none of these.
    """
    path = Path(reference).expanduser()
    if (path / METRICS).is_file():
        return str(path / MODEL), path.name
    if (path / "config.json").is_file():
        return os.path.expanduser(reference), reference
    if path.is_dir():
        return _finished_run_in(path, seed)
    if path.exists():
        raise ConfigError(f"{reference!r} is a file, and a checkpoint is a folder; {_HOW_TO_SET}")
    if reason := _why_path(reference, path):
        raise ConfigError(
            f"{reference!r} does not exist; it is taken for a path since {reason}{_how_to_make(path, seed)}"
        )
    # imported here since it takes 0.1 s; the package exports these names lazily, which mypy does not see
    from huggingface_hub.utils import HFValidationError, validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(reference)
    except HFValidationError as error:
        raise ConfigError(
            f"{reference!r} is no folder here, and not a hub id either ({error}); {_HOW_TO_SET}"
        ) from error
    return reference, reference


def _finished_run_in(path: Path, seed: int) -> tuple[str, str]:
    """(Model folder, signature) of the only finished run with this seed in a folder of runs."""
    runs = sorted(file.parent for file in path.glob(f"*/{METRICS}"))
    matching = [run for run in runs if _seed_of(run) == seed]
    if len(matching) == 1:
        return str(matching[0] / MODEL), matching[0].name
    if matching:
        listed = "\n  ".join(str(run) for run in matching)
        raise ConfigError(f"several finished runs with seed {seed} below {path}; name one of them:\n  {listed}")
    seeds = ", ".join(sorted({str(_seed_of(run)) for run in runs})) or "none"
    raise ConfigError(
        f"no finished run with seed {seed} in the folder {str(path)!r} (seeds there: {seeds}), which is no model's folder "
        f"either (it has no config.json){_how_to_make(path, seed)}"
    )


def _why_path(reference: str, path: Path) -> str | None:
    """Why a reference that does not exist on this machine must be a path; None if it may be a hub id."""
    if reference.startswith(_PATH_PREFIXES):
        return f"it begins with {next(prefix for prefix in _PATH_PREFIXES if reference.startswith(prefix))}"
    if reference.count("/") > 1:
        return "a hub id has at most one /"
    if "/" in reference and path.parent.is_dir():
        return f"the folder {str(path.parent)!r} exists"
    return None


def _how_to_make(path: Path, seed: int) -> str:
    """The end of an error message about the missing runs `<runs>/<group>/<name>`: commands that train them, or what to set."""
    group, stage = path.parent.name, path.name.partition("_")[0]
    names = experiments()
    if f"{stage}_{group}" in names:
        choices = [f"{stage}_{group}"]
    else:
        choices = [f"{name} group={shlex.quote(group)}" for name in names if name.startswith(f"{stage}_")]
    if not choices:
        return f"; {_HOW_TO_SET}"
    commands = "".join(f"  python -m erv.train +exp={choice} seed={seed}\n" for choice in choices)
    return f"; make it with{' one of' if len(choices) > 1 else ''}\n{commands}or {_HOW_TO_SET}"


def _seed_of(run: Path) -> int | None:
    value = json.loads((run / METRICS).read_text()).get("seed")
    return int(value) if value is not None else None
