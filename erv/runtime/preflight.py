"""What a run needs that is not in its config: data, checkpoints, keys, disk, memory. Looked at before anything is trained."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from erv import config
from erv.config.composition import Composition
from erv.config.rules import grpo_settings_problem, validation_interval_problem
from erv.config.validate import at
from erv.data.datasets.base import CorpusError, CorpusMissing
from erv.data.datasets.labels_only import LabelsCorpus
from erv.data.media.augmentation import Augmentation
from erv.distributed.ranks import _number
from erv.distributed.strategies import SHARING, processes, strategy
from erv.errors import ConfigError
from erv.runs.resolve import CHECKPOINT_KEYS, find_model
from erv.taxonomy import counterpart

_PRECISIONS = ("32-true", "bf16-mixed")
_WEIGHTS = ("*.safetensors", "*.bin")
_CHECKPOINTS = 4  # at once: the last two, the best and the one being written
_COPIES = (
    1 + 3 * _CHECKPOINTS
)  # of a model's weights that a run may write: the model, and checkpoints with two moments each
# Settings whose classes import no framework, so that their own rules for values can be asked at once.
_LIGHT_SETTINGS = (
    "media",
    "augment",
    "evaluation",
    "metrics",
    "reward.format",
    "reward.answer",
    "reward.explanation",
    "verifier.data.noise",
)


def input_problems(tree: Mapping[str, Any], composition: Composition) -> list[str]:
    """What the run needs and does not find, and values that cannot be: data, checkpoints, keys, disk space, intervals."""
    return [
        *_values(tree),
        *_data(tree, composition),
        *_checkpoints(tree),
        *_untrained_verifier(tree, composition),
        *_keys(tree),
        *_lora(tree),
        *_stage(tree),
        *_accumulation(tree),
        *_validation(tree),
        *_disk(tree),
    ]


def _stage(tree: Mapping[str, Any]) -> Iterator[str]:
    """Keys that contradict one another by the rules of the stage."""
    if not tree.get("algo"):
        return
    trained = at(tree, "policy.train") or ()
    if tree["stage"] == "grpo" and (message := grpo_settings_problem(tree["algo"], trained)):
        yield message
    elif tree.get("policy") and tree["stage"] != "towers":
        augmented = bool(tree.get("augment")) and config.build(tree["augment"]) != Augmentation()
        if message := config.build(tree["media"]).cache_conflict(trained, augmented):
            yield message


def _values(tree: Mapping[str, Any]) -> Iterator[str]:
    for key in _LIGHT_SETTINGS:
        node = at(tree, key)
        if isinstance(node, Mapping) and "_target_" in node:
            try:
                config.build(node)
            except ConfigError as error:
                yield str(error)


def _data(tree: Mapping[str, Any], composition: Composition) -> Iterator[str]:
    if not tree.get("data"):
        yield (
            "no data is chosen: set data=NAME of a corpus, data=manifest data.file=FILE for your own clips, or, to train a "
            "verifier on text alone, data=labels data.taxonomy=NAME"
        )
        return
    if config.locate(tree["data"]["_target_"]) is LabelsCorpus and tree["stage"] != "verifier":
        yield (
            f"data=labels is a label set without clips, which only stage verifier can do with; stage {tree['stage']} reads "
            "clips: set data=NAME of a corpus such as data=dfew, or data=manifest data.file=FILE for your own clips"
        )
        return
    try:
        config.build(tree["data"]).require()
    except (ConfigError, CorpusMissing, CorpusError) as error:
        name = composition.choices.get("data")
        typed = [o for o in composition.overrides if o.startswith("data.")]
        look = f"\nlook with: {' '.join(['python -m erv.doctor', f'data={name}', *typed])}" if name else ""
        yield f"{error}{look}"


def _checkpoints(tree: Mapping[str, Any]) -> Iterator[str]:
    for key in CHECKPOINT_KEYS:
        if not (reference := at(tree, key)):
            continue
        try:
            folder, _ = find_model(reference, tree["seed"])
        except ConfigError as error:
            yield f"{key}: {error}"
            continue
        if key.startswith("verifier"):
            yield from _taxonomy(tree, Path(folder))


def _untrained_verifier(tree: Mapping[str, Any], composition: Composition) -> Iterator[str]:
    """Only the verifier's own training begins with an untrained one; a reward or an evaluation by it would be noise."""
    if tree["stage"] == "verifier" or at(tree, "verifier.model._target_") != "erv.verifier.build_verifier":
        return
    name = composition.choices.get("verifier")
    yield (
        f"verifier={name} is one to be trained, and {tree['stage']} reads sentences with a trained one: set verifier=trained "
        f"verifier.model.checkpoint=FOLDER, or train it first (any size is loaded) with\n"
        f"  python -m erv.train +exp=verifier_roberta verifier={name} group={tree['group']} seed={tree['seed']}"
    )


def _taxonomy(tree: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """The verifier has to have an emotion for every label of the data; what only the hub knows is not looked at here."""
    file = folder / "config.json"
    if at(tree, "verifier.model._target_") != "erv.verifier.load_verifier" or not file.is_file():
        return
    named = json.loads(file.read_text()).get("id2label") or {}
    try:
        labels = config.build(tree["data"]).taxonomy.labels
        if all(str(name).startswith("LABEL_") for name in named.values()):
            return
        for label in labels:
            for part in label.split("_"):
                counterpart(part, list(named.values()))
    except (CorpusMissing, CorpusError):
        return  # said elsewhere
    except ValueError as error:
        yield f"verifier.model.checkpoint={folder}: {error}"


def _keys(tree: Mapping[str, Any]) -> Iterator[str]:
    """Keys of judges and of loggers come from the environment."""
    for name, judge in (tree.get("judge") or {}).items():
        variable = at(judge, "llm.key_variable")
        if variable and not os.environ.get(variable) and not tree.get("dry_run"):
            yield (
                f"judge {name!r} needs its key, and {variable} is not set: export it, or set judge.{name}.llm.key_variable=null "
                "for an endpoint that wants none"
            )


def _lora(tree: Mapping[str, Any]) -> Iterator[str]:
    if tree["stage"] == "grpo" and (probability := at(tree, "policy.lora.lora_dropout")):
        yield (
            f"GRPO compares log-probs of two passes, so adapters have no dropout; got policy.lora.lora_dropout={probability}: "
            "set it to 0 or leave it out"
        )


def _accumulation(tree: Mapping[str, Any]) -> Iterator[str]:
    """Gradient accumulation: validation and checkpoints lie between optimiser steps, where no gradient is underway."""
    count = at(tree, "trainer.accumulate_grad_batches") or 1
    if count == 1:
        return
    if tree["stage"] == "grpo":
        yield (
            f"GRPO cuts every batch into micro-batches of algo.token_budget tokens and takes one step with all of them; got "
            f"trainer.accumulate_grad_batches={count}: leave it out, and set algo.batch_size to the clips of a step"
        )
    for key in ("checkpoint.every", "trainer.val_check_interval"):
        every = at(tree, key)
        if isinstance(every, int) and every % count:
            yield (
                f"{key} must divide by trainer.accumulate_grad_batches, so that no gradient is underway then; got {key}={every} "
                f"and {count}: set {key}={-(-every // count) * count}"
            )


def _validation(tree: Mapping[str, Any]) -> Iterator[str]:
    """Where the length of the run is told; one in epochs is known once its clips have been looked at."""
    for key in ("algo.iterations", "trainer.limit_train_batches"):
        if message := validation_interval_problem(at(tree, "trainer.val_check_interval"), at(tree, key)):
            yield f"{message}, or a larger {key}"


def _disk(tree: Mapping[str, Any]) -> Iterator[str]:
    """Room for what training writes, where the size of the model is known."""
    if not tree.get("algo") or not at(tree, "policy.checkpoint"):
        return
    try:
        folder = Path(find_model(at(tree, "policy.checkpoint"), tree["seed"])[0])
    except ConfigError:
        return  # said elsewhere
    size = sum(file.stat().st_size for pattern in _WEIGHTS for file in folder.glob(pattern))
    runs = Path(tree["paths"]["runs"]).absolute()
    free = shutil.disk_usage(next(place for place in (runs, *runs.parents) if place.exists())).free
    if _COPIES * size > free:
        yield (
            f"a run of this model writes up to {_COPIES * size / 1e9:.1f} GB (model, and {_CHECKPOINTS} checkpoints with their "
            f"optimiser states), and {runs} has {free / 1e9:.1f} GB free: set paths.runs (ERV_RUNS) to a larger disk or make room"
        )


def trainer_problems(tree: Mapping[str, Any]) -> list[str]:
    """What is wrong with a training run's config, or with how its processes were started."""
    trainer, algo = tree.get("trainer") or {}, tree.get("algo") or {}
    size = processes(trainer)
    found = imprecise(trainer)
    if size > 1 and not isinstance(trainer.get("strategy"), Mapping):
        found.append(
            f"trainer.devices={trainer.get('devices')} and trainer.num_nodes={trainer.get('num_nodes', 1)} are {size} processes, "
            f"and trainer.strategy={trainer.get('strategy', 'auto')} does not share out their work; set trainer=ddp"
        )
    batch = algo.get("batch_size")
    if size > 1 and isinstance(batch, int) and batch % size:
        near = [n for n in (batch // size * size, -(-batch // size) * size) if n]
        found.append(
            f"algo.batch_size is the batch of all processes together and must divide by their number; got "
            f"algo.batch_size={batch} for {size} processes (trainer.devices x trainer.num_nodes); set algo.batch_size="
            f"{' or '.join(map(str, near))}, or another trainer.devices"
        )
    found += _not_shared_out(tree) if strategy(trainer) in SHARING else []
    started = _number("WORLD_SIZE", default=size) if "TORCHELASTIC_RUN_ID" in os.environ else size
    if started != size:
        found.append(
            f"torchrun started {started} processes and the config says {size} (trainer.devices x trainer.num_nodes); make them "
            "equal: trainer=ddp, trainer.devices as --nproc-per-node, trainer.num_nodes as --nnodes"
        )
    return found


def imprecise(trainer: Mapping[str, Any]) -> list[str]:
    """What is wrong with trainer.precision."""
    given = str(trainer.get("precision", "32-true"))
    if given in _PRECISIONS:
        return []
    return [
        f"trainer.precision is {' or '.join(_PRECISIONS)}, got {given}: what is trained stays in fp32, as bf16 rounds away every "
        "step of less than 1/512 of a weight, and fp16 would want its loss scaled; to need less memory set "
        "trainer.precision=bf16-mixed and policy.dtype=bfloat16 (frozen weights), with policy.lora={r: 16} or trainer=fsdp2"
    ]


def _not_shared_out(tree: Mapping[str, Any]) -> list[str]:
    """What trainers that share weights out cannot do."""
    name = strategy(tree.get("trainer"))
    if tree.get("stage") not in ("sft", "grpo"):
        return [
            f"trainer={name} shares a policy's weights out, in the stages sft and grpo; got stage={tree.get('stage')}: what it "
            "trains fits on any device, set trainer=ddp"
        ]
    trained = [part for part in ("vision_tower", "audio_tower") if part in (tree.get("policy") or {}).get("train", ())]
    if trained:
        return [
            f"trainer={name} trains no towers, and policy.train has {', '.join(trained)}: leave them out, or set trainer=ddp"
        ]
    return []
