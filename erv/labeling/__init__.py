"""Training text for the verifier that a language model labels or writes."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Labeler": "erv.labeling.labeler:Labelling",
        "TextAugmentation": "erv.labeling.augmentation:Augmentation",
    },
)
