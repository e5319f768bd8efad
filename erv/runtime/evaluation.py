"""The evaluation that ends a run: answers to the clips of a split, and the metrics of these."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm import tqdm

from erv.cli.shards import Shard
from erv.data.clip_reader import Samples
from erv.evaluation.evaluator import evaluate_folder
from erv.evaluation.generate import check_prompt_fits, generate_predictions
from erv.evaluation.predictions import PredictionFile, key_of, move_aside, read_rows, shard_file
from erv.evaluation.settings import EvaluationSettings
from erv.runs.run import Run
from erv.runtime.components import Parts
from erv.runtime.run_context import context
from erv.types import Clip
from erv.utils.io import write_json

_log = logging.getLogger(__name__)

ORIGIN = "predictions.origin.json"  # what the rows of predictions.jsonl were made with


def evaluated_clips(parts: Parts, plan: EvaluationSettings) -> list[Clip]:
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
            check_prompt_fits(policy, samples[0], parts.modalities, plan)


def evaluate(run: Run, parts: Parts) -> dict[str, Any]:
    """Answers to the evaluation split, read by the verifier and the judges; the files of the run's folder and the figures."""
    plan: EvaluationSettings = parts.make("evaluation")
    clips = write_answers(run.folder, parts, plan, evaluated_clips(parts, plan))
    seen_against = context(run.folder, parts.taught)
    found = evaluate_folder(
        run.folder, clips, plan, parts.settings, parts.taxonomy, parts.judges, parts.reward, seen_against
    )
    return {"media": parts.reading.tally(), **found}


def write_answers(
    folder: Path, parts: Parts, plan: EvaluationSettings, clips: list[Clip], shard: Shard | None = None
) -> list[Clip]:
    """Sample what is not there yet, all or one share of it; every batch is on disk before the next one is begun.

    Returns the clips that can be used: those that the settings leave out for their defects have no answer.
    """
    mine = clips if shard is None else clips[shard[0] :: shard[1]]
    policy = parts.policy.at("inference")
    policy.model.to(parts.device).eval()  # Lightning leaves it on the CPU
    samples = parts.reading.samples(mine, policy)
    _refuse_other_origin(folder, parts, plan)
    there = read_rows(folder).keys()
    file = PredictionFile(shard_file(folder, shard))
    for decoding, count in plan.decodings.items():
        absent = [any((clip.id, decoding, i) not in there for i in range(count)) for clip in samples.clips]
        todo = _only(samples, [place for place, yes in enumerate(absent) if yes])
        with tqdm(total=len(todo), desc=f"answers ({decoding})", unit="clip", disable=not todo) as bar:
            for found in generate_predictions(
                policy, todo, parts.modalities, plan, decoding, parts.taxonomy, parts.seed
            ):
                file.append(p for p in found if key_of(p) not in there)
                bar.update(len(found) // count)
    return list(samples.clips)


def _only(samples: Samples, places: list[int]) -> Samples:
    """Some of `samples`, read when they are wanted as well."""
    return Samples([samples.clips[i] for i in places], lambda i, turn: samples.read(places[i], turn), samples.encode)


def _refuse_other_origin(folder: Path, parts: Parts, plan: EvaluationSettings) -> None:
    """Rows made by other weights or in another way belong to another evaluation: they are put aside, and all are made anew."""
    made_by = {"policy": parts.policy.sha256(), "seed": parts.seed, "modalities": list(parts.modalities)}
    made_by |= {
        key: value for key, value in asdict(plan).items() if key not in ("batch_size", "limit", "max_failed", "on_leak")
    }
    with FileLock(folder / ".lock-origin"):  # shares start at the same time
        file = folder / ORIGIN
        if not file.is_file() or json.loads(file.read_text()) != made_by:
            kept = move_aside(folder)
            if kept:
                _log.warning(
                    "the answers in %s are of other weights; they lie in %s now, and are made anew", folder, kept
                )
            write_json(file, made_by)
