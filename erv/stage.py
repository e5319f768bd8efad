"""What train and evaluate have in common: a run opened from its config, and the evaluation that ends it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything
from omegaconf import DictConfig

from erv import config
from erv.command import overrides
from erv.config import ConfigError
from erv.corpora.base import CorpusError, CorpusMissing
from erv.lit.evaluation import Evaluation, judge_all, predict, read, reward_by_judge
from erv.lit.samples import UnusableClips
from erv.media.cache import CacheTooLarge
from erv.media.pool import DecodersDie
from erv.metrics.summary import summarise
from erv.parts import PROVIDED, Parts, resolve_checkpoints, training_files
from erv.records import Prediction
from erv.run import Run, write_lines
from erv.verifier import UnfitVerifier

_log = logging.getLogger(__name__)


@contextmanager
def open_stage(cfg: DictConfig) -> Iterator[tuple[Run | None, Parts]]:
    """Check the config, find the run's folder and hold it; the run is None when it is done already.

    What a user can put right (a missing corpus, an unfit verifier, …) becomes a ConfigError.
    """
    config.check(cfg, PROVIDED)
    _quiet()
    torch.set_num_threads(int(cfg.launch.threads))
    try:
        tree = config.plain(cfg)
        corpus = config.build(tree["data"])
        corpus.require()
        for warning in corpus.warnings():
            _log.warning("%s", warning)
        identities = resolve_checkpoints(tree) | training_files(tree) | {"data": corpus.digest()}
        signature = config.signature(cfg, identities)
        run = Run(Path(tree["paths"]["runs"]) / tree["group"] / tree["name"] / signature)
        parts = Parts(tree, run.folder)
        if run.done:
            _log.info("done already: %s", run.folder)
            yield None, parts
            return
        with run.open(tree, overrides()):
            seed_everything(tree["seed"], workers=True, verbose=False)
            _log.info("run %s", run.folder)
            yield run, parts
    except (CorpusMissing, CorpusError, UnusableClips, CacheTooLarge, DecodersDie, UnfitVerifier) as error:
        raise ConfigError(str(error)) from error


def _quiet() -> None:
    """Keep what the user should read readable: the libraries' tips and notes about their own settings go."""
    for name in ("lightning.pytorch", "lightning.fabric", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger(name).propagate = False  # it has a handler of its own
    for message in (".*treespec.*", ".*does not have many workers.*", ".*not resumable.*",
                    ".*in eval mode at the start.*"):  # fmt: skip
        warnings.filterwarnings("ignore", message=message)


def evaluate(run: Run, parts: Parts) -> dict[str, Any]:
    """Answers to the evaluation split, read by the verifier and the judge; predictions.jsonl, clips.jsonl and the figures."""
    plan: Evaluation = parts.make("evaluation")
    clips = parts.corpus.clips(plan.split)[: plan.limit]
    policy = parts.policy.at("inference")
    samples = parts.samples(clips, policy)
    judge = parts.judge
    if judge is None:
        _log.warning("no judge is set, so EEA, EPC and FCR are not measured")
    policy.model.to(parts.device).eval()  # Lightning leaves it on the CPU
    predictions: list[Prediction] = []
    figures: dict[str, Any] = {}
    for decoding in ("sampled", "greedy") if plan.greedy else ("sampled",):
        found = predict(policy, samples, parts.modalities, plan, decoding, parts.taxonomy, parts.seed)
        found = read(found, parts.reward)
        if judge is not None:
            found = judge_all(found, judge)
        figures[decoding] = summarise(found, parts.taxonomy, judge.name if judge else None)
        figures[decoding]["judge_reward"] = reward_by_judge(found, judge, parts.reward) if judge else None
        predictions += found
    write_lines(run.folder / "predictions.jsonl", [p.row() for p in predictions])
    write_lines(run.folder / "clips.jsonl", [{"id": c.id, "video": c.video, "label": c.label} for c in samples.clips])
    return {
        "clips": len(samples),
        "media": parts.media_tally(),
        "judge": judge.name if judge else None,
        "evaluation": asdict(plan),
        **figures,
    }
