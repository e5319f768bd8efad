"""`python -m erv.evaluate checkpoint=RUN data=NAME judge=NAME`: answers of a policy, verdicts on them, and their figures.

`predictions=FILE` instead of a checkpoint judges what another model said. Every batch of answers and every verdict is on disk
before the next one is begun: the same command again goes on where it was interrupted. `devices=N` makes answers in N
processes; `shard=k/n` makes one share of them here, and the same command without it merges, judges and counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from erv import config
from erv.command import command, overrides
from erv.config import ConfigError
from erv.judging import export, spoken, tell_costs
from erv.measure import Evaluation
from erv.predictions import read_parts


@command("evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluate what `cfg` names; a run that is done is not done again."""
    if cfg.predictions is not None:
        from erv.elsewhere import evaluate_file

        evaluate_file(cfg)
    elif OmegaConf.select(cfg, "policy.checkpoint") is None:
        raise ConfigError("nothing to evaluate: set checkpoint=RUN (or a model's folder), or predictions=FILE")
    elif cfg.get("data") is None:
        raise ConfigError("set data=NAME: the clips to answer (data=dfew, data=synthetic, …)")
    else:
        evaluate_policy(cfg)


def evaluate_policy(cfg: DictConfig) -> None:
    """Sample the answers of a checkpoint, then judge and count them."""
    from erv import stage
    from erv.parts import answer_length

    part = stage.share(cfg.shard)
    if OmegaConf.select(cfg, "evaluation.max_new_tokens") is None:
        OmegaConf.update(cfg, "evaluation.max_new_tokens", answer_length(config.plain(cfg)))
    with stage.open_stage(cfg, part) as (run, parts), stage.refuse_incomplete():
        plan: Evaluation = parts.make("evaluation")
        clips = stage.evaluated_clips(parts, plan)
        if cfg.dry_run:
            there = read_parts(Path(parts.folder))
            tell_costs(parts.judges, list(there.values()), len(plan.keys(clips)) - len(there), plan)
        elif part is not None:
            if run is not None:
                stage.write_answers(run.folder, parts, plan, clips, part)
        elif run is not None:
            missing = set(plan.keys(clips)) - read_parts(run.folder).keys()
            if cfg.devices > 1 and missing:
                _spread(int(cfg.devices))
            metrics = stage.evaluate(run, parts)
            print("\n".join(spoken(metrics)))
            stage.finish_run(run, parts, metrics)
        if cfg.export_human_task and not cfg.dry_run and part is None:
            export(Path(parts.folder), parts.taxonomy, int(cfg.human_items), parts.seed)


def _spread(devices: int) -> None:
    """Make the answers in `devices` processes, on a GPU each where there are any; ConfigError when one fails.

    A launcher's choice of GPUs stays: the processes share what CUDA_VISIBLE_DEVICES leaves.
    """
    from torch import cuda

    visible = [g for g in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if g] or list(
        map(str, range(cuda.device_count()))
    )
    command = [sys.executable, "-m", "erv.evaluate", *overrides()]
    processes = []
    for k in range(devices):
        gpu = {"CUDA_VISIBLE_DEVICES": visible[k % len(visible)]} if visible else {}
        processes.append(subprocess.Popen([*command, f"shard={k}/{devices}"], env={**os.environ, **gpu}))
    codes = [process.wait() for process in processes]
    failed = [str(k) for k, code in enumerate(codes) if code]
    if failed:
        raise ConfigError(f"share {', '.join(failed)} of {devices} failed, see above; the same command again goes on")


if __name__ == "__main__":
    main()
