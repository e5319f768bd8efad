"""Group relative policy optimisation as pure functions of tensors: advantages, loss, importance sampling."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "ImportanceCorrection": "erv.grpo.importance_sampling:Correction",
        "Objective": "erv.grpo.loss",
    },
)
