"""Generation and log-probabilities for GRPO: sampling, key-value cache, shared prompt prefix."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Sampling": "erv.engine.sampling",
    },
)
