"""`python -m erv.evaluate checkpoint=RUN data=NAME judge=NAME`: generate a policy's answers, judge them, compute the metrics.

`predictions=FILE` instead of a checkpoint evaluates the answers of another model. Every batch of answers and every verdict is on
disk before the next one is begun: the same command again resumes where it was interrupted. `devices=N` generates in N processes;
`shard=k/n` generates one shard here, and the same command without it merges the shards, judges and computes the metrics.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from erv import config
from erv.cli.command import command
from erv.cli.shards import parse_shard, run_in_processes
from erv.errors import ConfigError

if TYPE_CHECKING:
    from erv.evaluation.settings import EvaluationSettings


def plan(cfg: DictConfig) -> Path | None:
    """The folder of the run, after checking that its inputs exist; None for predictions made elsewhere, which are read first."""
    from erv.runtime.planning import plan_run

    _require(cfg)
    if cfg.predictions is not None:
        return None
    _set_length(cfg)
    return plan_run(cfg)[1].folder


@command("evaluate", plan)
def main(cfg: DictConfig) -> None:
    """Evaluate a policy or a file of predictions; a finished run is not repeated."""
    _require(cfg)
    if cfg.predictions is not None:
        from erv.runtime.external_predictions import evaluate_file

        evaluate_file(cfg)
    else:
        evaluate_policy(cfg)


def _require(cfg: DictConfig) -> None:
    if cfg.predictions is None and OmegaConf.select(cfg, "policy.checkpoint") is None:
        raise ConfigError("nothing to evaluate: set checkpoint=RUN (or a model's folder), or predictions=FILE")
    if cfg.predictions is None and cfg.get("data") is None:
        raise ConfigError("set data=NAME: the clips to answer (data=dfew, data=synthetic, …)")


def _set_length(cfg: DictConfig) -> None:
    """Default `evaluation.max_new_tokens` to the length of the policy's training."""
    from erv.runtime.run_context import answer_length

    if OmegaConf.select(cfg, "evaluation.max_new_tokens") is None:
        OmegaConf.update(cfg, "evaluation.max_new_tokens", answer_length(config.plain(cfg)))


def evaluate_policy(cfg: DictConfig) -> None:
    """Generate the answers of a checkpoint, judge them and compute the metrics."""
    from erv.evaluation.console import metric_lines, print_costs
    from erv.evaluation.predictions import read_rows
    from erv.runtime import session
    from erv.runtime.evaluation import evaluate, evaluated_clips, write_answers
    from erv.runtime.human_task import export

    shard = parse_shard(cfg.shard)
    _set_length(cfg)
    with session.open_stage(cfg, shard) as (run, parts), session.refuse_incomplete():
        settings: EvaluationSettings = parts.make("evaluation")
        clips = evaluated_clips(parts, settings)
        if cfg.dry_run:
            answered = read_rows(Path(parts.folder))
            missing = len(settings.answer_keys(clips)) - len(answered)
            print_costs(parts.judges, list(answered.values()), missing, settings)
        elif shard is not None:
            if run is not None:
                write_answers(run.folder, parts, settings, clips, shard)
        elif run is not None:
            incomplete = bool(set(settings.answer_keys(clips)) - read_rows(run.folder).keys())
            if cfg.devices > 1 and incomplete:
                devices = int(cfg.devices)
                run_in_processes("erv.evaluate", devices, *([f"shard={k}/{devices}"] for k in range(devices)))
            metrics = evaluate(run, parts)
            print("\n".join(metric_lines(metrics)))
            session.finish_run(run, parts, metrics)
        if cfg.export_human_task and not cfg.dry_run and shard is None:
            export(Path(parts.folder), parts.taxonomy, int(cfg.human_items), parts.seed)


if __name__ == "__main__":
    main()
