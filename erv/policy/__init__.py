"""Policies: multimodal language models that read a clip and answer with a rationale and an emotion.

base        what a policy family has to provide
policy      a model with its processor: loading, saving, exporting, the reference copy
checkpoint  weights and tokenizers in a folder or on the hub
lora        adapters on the language model
humanomni/  the family of HumanOmni, R1-Omni and ERV
"""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "CheckpointError": "erv.policy.checkpoint",
        "Policy": "erv.policy.policy",
        "export_policy": "erv.policy.policy",
        "load_policy": "erv.policy.policy",
        "save_policy": "erv.policy.policy",
    },
)
