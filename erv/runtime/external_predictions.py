"""Predictions made elsewhere, judged and counted as our own: no policy is loaded, and without a verifier no transformers."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from erv import config
from erv.config.composition import overrides
from erv.data.datasets.base import CorpusError, CorpusMissing
from erv.errors import ConfigError
from erv.evaluation.console import metric_lines, print_costs
from erv.evaluation.evaluator import CLIPS_FILE, FailedVerdicts, evaluate_predictions
from erv.evaluation.metrics.summary import MetricSettings
from erv.evaluation.predictions import PREDICTIONS_FILE, IncompletePredictions, check_complete, key_of, read_external
from erv.evaluation.settings import EvaluationSettings
from erv.runs.provenance import reward_verifiers
from erv.runs.run import METRICS, Run
from erv.runtime.human_task import export
from erv.runtime.judges import judges_of, refuse_training_verifier
from erv.runtime.run_context import context
from erv.taxonomy import Taxonomy, named_taxonomy
from erv.types import Clip, Prediction
from erv.utils.documents import read_json_lines
from erv.utils.io import file_sha256

if TYPE_CHECKING:
    from erv.rewards.composite import CompositeReward

_log = logging.getLogger(__name__)


def evaluate_file(cfg: DictConfig) -> None:
    """Judge and count predictions made elsewhere."""
    reads = cfg.get("verifier") is not None
    unused = {"policy"} if reads else {"policy", "reward"}
    cfg = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in unused])
    config.check(cfg, ("taxonomy", "verifier", "verifier_labels"))
    tree = config.plain(cfg)
    names, clips = _clips(tree)
    plan: EvaluationSettings = config.build(tree["evaluation"])
    file = _file(Path(tree["predictions"]))
    try:
        found = read_external(file, {clip.id: clip.label for clip in clips}, names)
        _refuse_incomplete(found, _expected(clips[: plan.limit], file), bool(cfg.partial), str(file))
        judges = judges_of(tree, names)
        refuse_training_verifier(judges, reward_verifiers(file.parent if file.name == PREDICTIONS_FILE else None))
        settings: MetricSettings = config.build(tree["metrics"])
        settings.require(names)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if cfg.dry_run:
        print_costs(judges, found, 0, plan)
        return
    run = Run(Path(tree["paths"]["runs"]) / tree["group"] / tree["name"] / config.signature(cfg, _made_of(tree, file)))
    if run.done:
        _log.info("done already: %s", run.folder)
    else:
        answered = {p.clip_id for p in found}
        clips = [clip for clip in clips if clip.id in answered]
        with run.open(tree, overrides(), devices=False):
            try:
                reward, seen_against = _reward(tree, run), context(file.parent)
                metrics = evaluate_predictions(
                    run.folder, found, plan, settings, names, judges, reward, seen_against, clips
                )
            except FailedVerdicts as error:
                sys.exit(f"erv: {error}")
            _finish(run, tree, metrics | {"predictions": str(file), "evaluation": _how(file, plan, found)})
    if cfg.export_human_task:
        export(run.folder, names, int(cfg.human_items), tree["seed"])


def _finish(run: Run, tree: dict[str, Any], metrics: dict[str, Any]) -> None:
    print("\n".join(metric_lines(metrics)))
    run.finish(
        {"arm": tree["name"], "stage": tree["stage"], "seed": tree["seed"], "signature": run.folder.name, **metrics}
    )
    _log.info("done: %s", run.folder)


def _how(file: Path, plan: EvaluationSettings, found: Sequence[Prediction]) -> dict[str, Any]:
    """How the answers were made: as the run says that they are of; of others' only the split and their number is known."""
    told = file.parent / METRICS
    if file.name == PREDICTIONS_FILE and told.is_file():
        how: dict[str, Any] = json.loads(told.read_text()).get("evaluation") or {}
        return how
    unknown = dict.fromkeys(("temperature", "top_p", "max_new_tokens"))
    return {**asdict(plan), **unknown, "samples": max(p.sample for p in found) + 1}


def _reward(tree: dict[str, Any], run: Run) -> CompositeReward | None:
    """The reward with the config's verifier, which reads the sentences; None without one."""
    if not tree.get("verifier"):
        return None
    from erv.runs.resolve import resolve_checkpoints
    from erv.runtime.components import Parts

    resolve_checkpoints(tree)
    return Parts(tree, run.folder).reward


def _clips(tree: dict[str, Any]) -> tuple[Taxonomy, list[Clip]]:
    """The label set, and the clips that predictions are expected for; none without data."""
    if not tree.get("data"):
        if not tree.get("taxonomy"):
            raise ConfigError(
                "set data=NAME, the clips the predictions are of, or taxonomy=dfew where rows hold 'gold'"
            )
        try:
            return named_taxonomy(tree["taxonomy"]), []
        except ValueError as error:
            raise ConfigError(str(error)) from error
    try:
        corpus = config.build(tree["data"])
        corpus.prepare()
        return corpus.taxonomy, corpus.clips(tree["evaluation"]["split"])
    except (CorpusMissing, CorpusError) as error:
        raise ConfigError(str(error)) from error


def _made_of(tree: dict[str, Any], file: Path) -> dict[str, str]:
    """What the figures are made of besides the config: the file, and the sheets of people."""
    sheets = [s for node in (tree.get("judge") or {}).values() for s in node.get("sheets", ())]
    return {"predictions": file_sha256(file)} | {f"sheet {i}": file_sha256(s) for i, s in enumerate(sheets)}


def _file(path: Path) -> Path:
    """The predictions that `path` points at: a file, a run's folder, or a folder of runs with one run in it."""
    if not path.is_dir() or (path / PREDICTIONS_FILE).is_file():
        return path / PREDICTIONS_FILE if path.is_dir() else path
    found = sorted(path.glob(f"*/{PREDICTIONS_FILE}"))
    if len(found) != 1:
        listed = "\n  ".join(str(file.parent) for file in found) or "none"
        raise ConfigError(
            f"predictions={path} is no run, and the runs in it with predictions are\n  {listed}\nname one"
        )
    return found[0]


def _expected(clips: Sequence[Clip], file: Path) -> list[str]:
    """The clips that must have an answer: those of the split, without those that the run which wrote the file left out."""
    listed = file.parent / CLIPS_FILE
    if file.name != PREDICTIONS_FILE or not listed.is_file():
        return [clip.id for clip in clips]
    used = {row["id"] for row in read_json_lines(listed)}
    return [clip.id for clip in clips if clip.id in used]


def _refuse_incomplete(found: Sequence[Prediction], clips: Sequence[str], partial: bool, where: str) -> None:
    """IncompletePredictions for an answer that stands there twice, and unless `partial` for clips without one."""
    keys = [key_of(p) for p in found]
    twice = sorted(key for key, count in Counter(keys).items() if count > 1)
    if twice:
        raise IncompletePredictions(
            f"{where}: {len(twice)} clips are answered twice, first {twice[0][0]}; delete the rows that do not belong, or number "
            "several samples of a clip by 'sample'"
        )
    if clips and not partial:
        wanted = [(c, d, s) for d, s in sorted({key[1:] for key in keys}) for c in clips]
        try:
            check_complete(keys, wanted, where)
        except IncompletePredictions as error:
            raise IncompletePredictions(f"{error}; partial=true measures what is there") from error
