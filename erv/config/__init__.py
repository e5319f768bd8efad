"""Configs: composed by Hydra, checked as a whole, signed, and made into objects."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "ConfigError": "erv.config.validate",
        "build": "erv.config.instantiate",
        "check": "erv.config.instantiate",
        "did_you_mean": "erv.config.validate",
        "locate": "erv.config.validate",
        "plain": "erv.config.instantiate",
        "signature": "erv.config.instantiate",
        "wanted": "erv.config.instantiate",
    },
)
