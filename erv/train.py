"""`python -m erv.train +exp=NAME`: train one stage (towers, verifier, sft, grpo), then measure the trained model.

The same command again resumes an interrupted run, and does nothing when the run is done.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from erv import config
from erv.cli.command import command
from erv.distributed import ranks, signals
from erv.runtime import memory_check

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from erv.runs.run import Run
    from erv.runtime.components import Parts
    from erv.training.datamodule import StepData
    from erv.training.stage import Stage

_log = logging.getLogger(__name__)


def plan(cfg: DictConfig) -> Path:
    """The folder of the run of `cfg`; ConfigError if anything that it needs is missing."""
    from erv.runtime.planning import plan_run

    return plan_run(cfg)[1].folder


@command("train", plan)
def main(cfg: DictConfig) -> None:
    """Train and measure the stage of `cfg`."""
    ranks.end_with_leader()
    from erv.runtime.session import open_stage, refuse_incomplete

    with open_stage(cfg) as (run, parts), refuse_incomplete():
        if run is not None:
            stage, data = fit(run, parts)
            if parts.ranks.leads:
                finish(run, parts, stage, data)


def fit(run: Run, parts: Parts) -> tuple[Stage, StepData]:
    """Train, from the last checkpoint if there is one, and write the model; rank 0 writes."""
    from erv.distributed.ddp import end_process_group
    from erv.distributed.sharding import sharding_of
    from erv.runs.run import MODEL
    from erv.runtime import leakage
    from erv.runtime.evaluation import screen_evaluation
    from erv.training.callbacks.checkpoint import AtomicCheckpointIO
    from erv.training.datamodule import ClipData

    tree = parts.tree
    memory_check.require(tree, parts.ranks.size)
    if rewarded := "reward" in config.parameters_among(tree["algo"], ["reward"]):
        parts.check_verifier()
        parts.note_verifier()
    screen_evaluation(parts)
    stage: Stage = parts.make("algo")
    for part, (size, trained) in stage.part_sizes().items():
        _log.info("%-16s %15s parameters, %s", part, f"{size:,}", f"{trained:,} trained" if trained else "frozen")
    data = parts.data(stage)
    trainer: pl.Trainer = config.build(
        tree["trainer"],
        max_epochs=1,
        logger=parts.loggers(),
        default_root_dir=str(run.folder),
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        callbacks=callbacks(run, parts, rewarded),
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False,
    )
    ranks.announce_leader()
    trainer.fit(stage, data, ckpt_path=run.last_checkpoint, weights_only=True)
    state = sharding_of(trainer).full_state(stage.model)
    end_process_group(trainer)
    signals.listen(signals.stop)
    if not parts.ranks.leads:
        return stage, data
    if state is not None:
        stage.policy = parts.policy_of(state)
    model = str(run.folder / MODEL)
    stage.save(model)
    leakage.note_training(parts, model, data.clips() if isinstance(data, ClipData) else ())
    return stage, data


def callbacks(run: Run, parts: Parts, rewarded: bool) -> list[pl.Callback]:
    """The callbacks of a stage; `rewarded` if a reward scores completions while it trains."""
    from erv.training.callbacks.checkpoint import Checkpoints, VerifierCache
    from erv.training.callbacks.completions import CompletionsWriter
    from erv.training.callbacks.counters import Counters
    from erv.training.callbacks.modes import TrainingMode
    from erv.training.callbacks.nan_guard import NonFiniteGuard
    from erv.training.callbacks.preemption import Preemption
    from erv.training.callbacks.progress import TrainingProgress
    from erv.training.callbacks.seeding import StepSeed
    from erv.training.callbacks.watchdog import Watchdog
    from erv.training.validation import WholeWeightsInValidation

    checkpoints = Checkpoints(run.folder, parts.tree["checkpoint"]["every"])
    chosen = [
        checkpoints,
        NonFiniteGuard(),
        Preemption(checkpoints),
        TrainingMode(),
        StepSeed(parts.seed),
        Counters(),
        CompletionsWriter(run.folder),
        WholeWeightsInValidation(),
    ]
    if limit := parts.tree["launch"]["watchdog_s"]:
        chosen.append(Watchdog(limit))
    if rewarded and parts.verifier is not None:
        chosen.append(VerifierCache(parts.verifier))
    if parts.tree["trainer"].get("enable_progress_bar", True):
        chosen.append(TrainingProgress())
    return [*chosen, *(parts.make(f"callbacks.{name}") for name in parts.tree.get("callbacks") or ())]


def finish(run: Run, parts: Parts, stage: Stage, data: StepData) -> None:
    """Measure the trained model and write the figures; from then on the run is done."""
    from erv.evaluation.console import metric_lines
    from erv.runs.run import MODEL
    from erv.runtime.evaluation import evaluate
    from erv.runtime.session import finish_run
    from erv.training.loggers.local import finish_loggers, log_figures

    measured = stage.measure(data)
    if measured is None:
        measured = evaluate(run, parts) if parts.tree["evaluation"] else {}
        print("\n".join(metric_lines(measured)))
    log_figures(stage.trainer, measured)
    finish_loggers(stage.trainer, run.folder / MODEL)
    finish_run(run, parts, measured)


if __name__ == "__main__":
    main()
