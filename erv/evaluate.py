"""`python -m erv.evaluate checkpoint=RUN data=NAME judge=NAME`: answers of a policy, verdicts on them, and their figures.

`predictions=FILE` instead of a checkpoint judges what another model said. Every batch of answers and every verdict is on disk
before the next one is begun: the same command again goes on where it was interrupted. `devices=N` makes answers in N
processes; `shard=k/n` makes one share of them here, and the same command without it merges, judges and counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from erv import config
from erv.cli.command import command
from erv.cli.shards import share, spread
from erv.errors import ConfigError

if TYPE_CHECKING:
    from erv.evaluation.settings import EvaluationSettings


def plan(cfg: DictConfig) -> Path | None:
    """Where the run of `cfg` lies, once all that it needs is there; unknown before predictions made elsewhere are read."""
    from erv.runtime.session import planned

    _require(cfg)
    if cfg.predictions is not None:
        return None
    _set_length(cfg)
    return planned(cfg)[1].folder


@command("evaluate", plan)
def main(cfg: DictConfig) -> None:
    """Evaluate what `cfg` names; a run that is done is not done again."""
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
    """A policy answers as long as it was trained to, unless told otherwise."""
    from erv.runtime.evaluation import answer_length

    if OmegaConf.select(cfg, "evaluation.max_new_tokens") is None:
        OmegaConf.update(cfg, "evaluation.max_new_tokens", answer_length(config.plain(cfg)))


def evaluate_policy(cfg: DictConfig) -> None:
    """Sample the answers of a checkpoint, then judge and count them."""
    from erv.evaluation.console import metric_lines, print_costs
    from erv.evaluation.predictions import read_rows
    from erv.runtime import session
    from erv.runtime.evaluation import evaluate, evaluated_clips, export, write_answers

    part = share(cfg.shard)
    _set_length(cfg)
    with session.open_stage(cfg, part) as (run, parts), session.refuse_incomplete():
        plan: EvaluationSettings = parts.make("evaluation")
        clips = evaluated_clips(parts, plan)
        if cfg.dry_run:
            there = read_rows(Path(parts.folder))
            print_costs(parts.judges, list(there.values()), len(plan.answer_keys(clips)) - len(there), plan)
        elif part is not None:
            if run is not None:
                write_answers(run.folder, parts, plan, clips, part)
        elif run is not None:
            missing = set(plan.answer_keys(clips)) - read_rows(run.folder).keys()
            if cfg.devices > 1 and missing:
                devices = int(cfg.devices)
                spread("erv.evaluate", devices, *([f"shard={k}/{devices}"] for k in range(devices)))
            metrics = evaluate(run, parts)
            print("\n".join(metric_lines(metrics)))
            session.finish_run(run, parts, metrics)
        if cfg.export_human_task and not cfg.dry_run and part is None:
            export(Path(parts.folder), parts.taxonomy, int(cfg.human_items), parts.seed)


if __name__ == "__main__":
    main()
