"""Configs: composed by Hydra, checked as a whole, signed, and made into objects."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "ConfigError": "erv.errors",
        "build": "erv.config.instantiate",
        "check": "erv.config.validate",
        "did_you_mean": "erv.errors",
        "locate": "erv.config.targets",
        "plain": "erv.config.instantiate",
        "signature": "erv.config.run_signature",
        "parameters_among": "erv.config.instantiate",
    },
)
