"""Data sets, and the decoding of their clips."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Augmentation": "erv.data.media.augmentation",
        "ClipFiles": "erv.data.datasets.clip_files",
        "DFEW": "erv.data.datasets.dfew:DFEWCorpus",
        "EMER": "erv.data.datasets.mer2023:EMERCorpus",
        "Instructions": "erv.data.datasets.r1omni:InstructionCorpus",
        "LabelsOnly": "erv.data.datasets.labels_only:LabelsCorpus",
        "MAFW": "erv.data.datasets.mafw:MAFWCorpus",
        "MELD": "erv.data.datasets.meld:MELDCorpus",
        "MERR": "erv.data.datasets.mer2023:MERRCorpus",
        "Manifest": "erv.data.datasets.manifest:ManifestCorpus",
        "MediaSettings": "erv.data.media.settings",
        "Mixture": "erv.data.datasets.mixture",
        "RAVDESS": "erv.data.datasets.ravdess:RAVDESSCorpus",
        "Synthetic": "erv.data.datasets.synthetic:SyntheticCorpus",
    },
)
