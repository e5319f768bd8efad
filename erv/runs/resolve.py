"""What a config points at: the runs that made its policy and its verifier, and the files that it trains on."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from erv.config.targets import modern
from erv.evaluation.evaluator import LONGEST
from erv.runs.run import find_model
from erv.utils.io import file_sha256
from erv.utils.tables import table_files

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


def answer_length(tree: Mapping[str, Any]) -> int:
    """The most tokens of an answer where `tree` does not say: as in the policy's training, else the default."""
    trained = training_config(tree).get("evaluation") or {}
    return int(trained.get("max_new_tokens") or LONGEST)


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
