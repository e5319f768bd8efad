"""The embedded corpus: real mp4 files with a picture, a voice, labels, rationales and a grammar that knows the truth."""

from erv.data.datasets.synthetic.corpus import SyntheticCorpus

__all__ = ["SyntheticCorpus"]
