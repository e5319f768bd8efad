"""HumanOmni, its processor, and loading and saving both."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "CheckpointError": "erv.policy.checkpoint",
        "Policy": "erv.policy.load",
        "export_policy": "erv.policy.load",
        "load_policy": "erv.policy.load",
        "save_policy": "erv.policy.load",
    },
)
