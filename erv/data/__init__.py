"""Data sets, and the decoding of their clips."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Augmentation": "erv.media.augment:Augment",
        "ClipFiles": "erv.corpora.loose:LooseClips",
        "DFEW": "erv.corpora.dfew:DFEWCorpus",
        "EMER": "erv.corpora.mer:EMERCorpus",
        "Instructions": "erv.corpora.instructions:InstructionCorpus",
        "LabelsOnly": "erv.corpora.text:LabelsCorpus",
        "MAFW": "erv.corpora.mafw:MAFWCorpus",
        "MELD": "erv.corpora.meld:MELDCorpus",
        "MERR": "erv.corpora.mer:MERRCorpus",
        "Manifest": "erv.corpora.manifest:ManifestCorpus",
        "MediaSettings": "erv.media.settings",
        "Mixture": "erv.corpora.mixture",
        "RAVDESS": "erv.corpora.ravdess:RAVDESSCorpus",
        "Synthetic": "erv.corpora.synthetic:SyntheticCorpus",
    },
)
