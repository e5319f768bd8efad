"""The embedded corpus: generated mp4 files with a face, a voice, labels and rationales, and the grammar of their sentences.

A demo and the tests run on it without any data set: the oracle judge knows from the grammar which emotion a sentence names.
"""

from erv.data.datasets.synthetic.corpus import SyntheticCorpus

__all__ = ["SyntheticCorpus"]
