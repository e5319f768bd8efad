"""What train, evaluate and predict have in common: a run opened from its config, and the evaluation that ends it."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from lightning.fabric.utilities.rank_zero import rank_zero_only as lightning_rank_zero_only
from lightning.pytorch import seed_everything
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from erv import config
from erv.config.composition import Composition, overrides
from erv.config.instantiate import ConfigError
from erv.data.clip_reader import Samples, UnusableClips
from erv.data.datasets.base import CorpusError, CorpusMissing
from erv.data.media.decode_pool import DecodersDie
from erv.data.media.feature_cache import CacheTooLarge
from erv.distributed import ranks
from erv.engine.generate import TooLong
from erv.evaluation.evaluator import Evaluation, FailedVerdicts
from erv.evaluation.generate import answers, check_room
from erv.evaluation.judging import conclude, context
from erv.evaluation.predictions import IncompletePredictions, PredictionFile, keep_aside, key_of, part_file, read_parts
from erv.runs.resolve import adopt_verifier, resolve_checkpoints, training_files
from erv.runs.run import Run
from erv.runtime import leakage
from erv.runtime.components import PROVIDED, Parts
from erv.runtime.preflight import missing
from erv.types import Clip
from erv.utils.io import refusal, write_json
from erv.verifier.metrics import UnfitVerifier

_log = logging.getLogger(__name__)
ORIGIN = "predictions.origin.json"  # what the rows of predictions.jsonl were made with
Shard = tuple[int, int]  # which share of how many


@contextmanager
def open_stage(cfg: DictConfig, shard: Shard | None = None) -> Iterator[tuple[Run | None, Parts]]:
    """Check the config, find the run's folder and hold it; the run is None when it is done already.

    What a user can put right (a missing corpus, an unfit verifier, a judge's key, …) becomes a ConfigError. A process that
    makes a share only holds that share, and leaves the folder to the one that it works for.
    """
    tree, run = planned(cfg)
    with user_errors():
        parts = Parts(tree, run.folder)
        if parts.ranks.size > 1 and parts.device == "cuda":
            torch.cuda.set_device(parts.ranks.device)
        if not parts.ranks.leads:
            follow(tree, parts)
            yield (None if run.done else run), parts
        elif run.done:
            _log.info("done already: %s", run.folder)
            yield None, parts
        elif shard is not None:
            run.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(run.folder / f".lock-{shard[0]}-of-{shard[1]}"):
                seed_everything(tree["seed"], workers=True, verbose=False)
                yield run, parts
        else:
            if is_evaluated(tree):
                _ = parts.judges, parts.settings  # what cannot be is said before anything is trained
                leakage.refuse(parts)
            with run.open(tree, overrides()):
                seed_everything(tree["seed"], workers=True, verbose=False)
                _log.info("run %s", run.folder)
                yield run, parts


def planned(cfg: DictConfig) -> tuple[dict[str, Any], Run]:
    """Check the config and all it needs; the config with its references resolved, and the run it makes.

    One ConfigError lists every problem. Nothing is written, so that the jobs of a grid can be planned before one starts.
    """
    composition = Composition.current()
    found = config.found_in(cfg, PROVIDED, composition.origins)
    tree = config.plain(cfg) if not OmegaConf.missing_keys(cfg) else {}
    if tree and not any("_target_" in text for text in found):
        found += [*ranks.problems(tree), *missing(tree, composition)]
    if found:
        raise ConfigError(config.listed("this cannot run:", found))
    quiet(tree)
    with user_errors():
        corpus = config.build(tree["data"])
        for warning in corpus.warnings():
            _log.warning("%s", warning)
        adopted = adopt_verifier(tree) if tree["stage"] == "evaluate" else {}
        identities = adopted | resolve_checkpoints(tree) | training_files(tree) | {"data": corpus.digest()}
    signature = config.signature(cfg, identities)
    return tree, Run(Path(tree["paths"]["runs"]) / tree["group"] / tree["name"] / signature)


@contextmanager
def user_errors() -> Iterator[None]:
    """What a user can put right becomes a ConfigError: a missing corpus, clips that cannot be used, a full disk, …"""
    try:
        yield
    except (CorpusMissing, CorpusError, UnusableClips, CacheTooLarge, DecodersDie, UnfitVerifier, TooLong) as error:
        raise ConfigError(str(error)) from error
    except Exception as error:
        if (refused := refusal(error)) is None:
            raise
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
        raise ConfigError(
            f"the disk refuses to be written or read: {refused}\n  make room or set paths.runs (ERV_RUNS) to another disk; what "
            f"was done is kept, and the same command goes on from there{notes}"
        ) from error


def quiet(tree: Mapping[str, Any]) -> None:
    """As many CPU threads as the config says, and the libraries' tips and notes about their own settings go."""
    torch.set_num_threads(int(tree["launch"]["threads"]))
    for name in ("lightning.pytorch", "lightning.fabric", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger(name).propagate = False  # it has a handler of its own
    logging.getLogger("lightning.fabric.strategies.launchers").setLevel(logging.INFO)  # says which rank has failed
    for message in (".*treespec.*", ".*does not have many workers.*", ".*not resumable.*",
                    ".*sync_dist=True.*", ".*before the ``update`` method.*"):  # fmt: skip
        warnings.filterwarnings("ignore", message=message)


def follow(tree: Mapping[str, Any], parts: Parts) -> None:
    """In a process that only trains: what it would write and say, rank 0 does."""
    for found in (rank_zero_only, lightning_rank_zero_only):
        found.rank = parts.ranks.rank  # loggers ask before the trainer is there
    logging.getLogger().setLevel(logging.ERROR)
    seed_everything(tree["seed"], workers=True, verbose=False)


def evaluated_clips(parts: Parts, plan: Evaluation) -> list[Clip]:
    """The clips that the plan is about; which of them can be read, `write_answers` finds out."""
    return parts.corpus.clips(plan.split)[: plan.limit]


def is_evaluated(tree: Mapping[str, Any]) -> bool:
    """Whether the run ends with an evaluation on clips."""
    return "_target_" in (tree.get("evaluation") or {})


def screen_evaluation(parts: Parts) -> None:
    """Read the evaluation clips before training begins: what cannot be used or does not fit is said now, not in days.

    Towers that are not trained see them as they will in the end, so that nothing is computed twice.
    """
    if is_evaluated(parts.tree):
        plan, policy = parts.make("evaluation"), parts.policy.at("inference")
        if samples := parts.reading.samples(evaluated_clips(parts, plan), policy):
            check_room(policy, samples[0], parts.modalities, plan)


def evaluate(run: Run, parts: Parts) -> dict[str, Any]:
    """Answers to the evaluation split, read by the verifier and the judges; the files of the run's folder and the figures."""
    plan: Evaluation = parts.make("evaluation")
    clips = write_answers(run.folder, parts, plan, evaluated_clips(parts, plan))
    seen_against = context(run.folder, parts.taught)
    found = conclude(run.folder, clips, plan, parts.settings, parts.taxonomy, parts.judges, parts.reward, seen_against)
    return {"media": parts.reading.tally(), **found}


def write_answers(
    folder: Path, parts: Parts, plan: Evaluation, clips: list[Clip], shard: Shard | None = None
) -> list[Clip]:
    """Sample what is not there yet, all or one share of it; every batch is on disk before the next one is begun.

    Returns the clips that can be used: those that the settings leave out for their defects have no answer.
    """
    mine = clips if shard is None else clips[shard[0] :: shard[1]]
    policy = parts.policy.at("inference")
    policy.model.to(parts.device).eval()  # Lightning leaves it on the CPU
    samples = parts.reading.samples(mine, policy)
    _refuse_other_origin(folder, parts, plan)
    there = read_parts(folder).keys()
    file = PredictionFile(part_file(folder, shard))
    for decoding, count in plan.decodings.items():
        absent = [any((clip.id, decoding, i) not in there for i in range(count)) for clip in samples.clips]
        todo = _only(samples, [place for place, yes in enumerate(absent) if yes])
        with tqdm(total=len(todo), desc=f"answers ({decoding})", unit="clip", disable=not todo) as bar:
            for found in answers(policy, todo, parts.modalities, plan, decoding, parts.taxonomy, parts.seed):
                file.append(p for p in found if key_of(p) not in there)
                bar.update(len(found) // count)
    return list(samples.clips)


def _only(samples: Samples, places: list[int]) -> Samples:
    """Some of `samples`, read when they are wanted as well."""
    return Samples([samples.clips[i] for i in places], lambda i, turn: samples.read(places[i], turn), samples.encode)


def _refuse_other_origin(folder: Path, parts: Parts, plan: Evaluation) -> None:
    """Rows made by other weights or in another way belong to another evaluation: they are put aside, and all are made anew."""
    made_by = {"policy": parts.policy.sha256(), "seed": parts.seed, "modalities": list(parts.modalities)}
    made_by |= {
        key: value for key, value in asdict(plan).items() if key not in ("batch_size", "limit", "max_failed", "on_leak")
    }
    with FileLock(folder / ".lock-origin"):  # shares start at the same time
        file = folder / ORIGIN
        if not file.is_file() or json.loads(file.read_text()) != made_by:
            kept = keep_aside(folder)
            if kept:
                _log.warning(
                    "the answers in %s are of other weights; they lie in %s now, and are made anew", folder, kept
                )
            write_json(file, made_by)


def finish_run(run: Run, parts: Parts, measured: Mapping[str, Any]) -> None:
    """Write metrics.json: from then on the run is done."""
    run.finish({**parts.identity(), **measured})
    _log.info("done: %s", run.folder)


def share(text: str | None) -> Shard | None:
    """(k, n) of `k/n`; ConfigError for anything else."""
    if text is None:
        return None
    first, _, last = str(text).partition("/")
    if not (first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise ConfigError(f"shard is k/n with k from 0 to n - 1, such as 0/4; got {text!r}")
    return int(first), int(last)


@contextmanager
def refuse_incomplete() -> Iterator[None]:
    """End with a message and exit code 1 when an evaluation is not complete: nothing is wrong with the config."""
    try:
        yield
    except (FailedVerdicts, IncompletePredictions) as error:
        sys.exit(f"erv: {error}")
