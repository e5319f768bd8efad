"""Training stages (GRPO, SFT, verifier, tower warm-up) as LightningModules, with their data, loggers and callbacks."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "DataLoading": "erv.training.datamodule",
        "GRPO": "erv.training.grpo",
        "Optimizer": "erv.training.optim:OptimizerSettings",
        "SFT": "erv.training.sft",
        "TowerWarmup": "erv.training.tower_warmup",
        "VerifierTraining": "erv.training.verifier",
        "WandbLogger": "erv.training.loggers.wandb",
        "csv_logger": "erv.training.loggers.local",
        "tensorboard_logger": "erv.training.loggers.local",
    },
)
