"""The Emotional Rationale Verifier (paper, ERV): classifier, training set, losses, scores, calibration and gate."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "LabelNoise": "erv.verifier.label_noise",
        "Loss": "erv.verifier.losses",
        "Sentences": "erv.verifier.dataset",
        "Verifier": "erv.verifier.classifier",
        "build_verifier": "erv.verifier.classifier",
        "load_verifier": "erv.verifier.classifier",
    },
)
