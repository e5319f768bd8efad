"""Group relative policy optimisation as pure functions of tensors, without a framework.

advantages           rewards of G completions per prompt -> advantages
loss                 the clipped policy loss with its KL term, and TRL's variants of it
importance_sampling  corrections for samples of another precision or of an older policy
"""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "ImportanceCorrection": "erv.grpo.importance_sampling",
        "Objective": "erv.grpo.loss:GRPOLoss",
    },
)
