"""HumanOmni, its processor, and loading and saving both."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "CheckpointError": "erv.policy.humanomni.checkpoint",
        "Policy": "erv.policy.policy",
        "export_policy": "erv.policy.policy",
        "load_policy": "erv.policy.policy",
        "save_policy": "erv.policy.policy",
    },
)
