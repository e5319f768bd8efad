"""Training stages (GRPO, SFT, verifier, tower warm-up) as LightningModules, with their data, loggers and callbacks."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "DataLoading": "erv.lit.data:Loading",
        "GRPO": "erv.lit.grpo",
        "Optimizer": "erv.lit.optim:Optim",
        "SFT": "erv.lit.sft",
        "TowerWarmup": "erv.lit.towers",
        "VerifierTraining": "erv.lit.verifier",
        "WandbLogger": "erv.lit.wandb_run:WandbRun",
        "csv_logger": "erv.lit.logging",
        "tensorboard_logger": "erv.lit.logging",
    },
)
