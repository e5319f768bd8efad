"""Training text for the verifier: pseudo-labels and augmentation by a language model."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Labeler": "erv.labeling.labeler",
        "TextAugmentation": "erv.labeling.augmentation",
    },
)
