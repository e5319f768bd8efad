"""`python -m erv.evaluate +exp=NAME policy.checkpoint=…`: answers, verdicts and figures of a policy, without training."""

from __future__ import annotations

from omegaconf import DictConfig

from erv.command import command


@command("evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluate the policy that `cfg` names; a run that is done is not done again."""
    from erv.stage import evaluate, open_stage

    with open_stage(cfg) as (run, parts):
        if run is not None:
            run.finish({**parts.identity(), **evaluate(run, parts)})


if __name__ == "__main__":
    main()
