"""Near-duplicate texts: those that differ in a few letters only."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

_GRAM = 4  # characters


class NearDuplicateFilter:
    """A set of texts that takes no near-duplicate: their sets of character 4-grams have a Jaccard index below `similarity`.

    Case, punctuation and spacing do not count.
    """

    def __init__(self, texts: Iterable[str] = (), similarity: float = 0.7) -> None:
        if not 0 < similarity <= 1:
            raise ValueError(f"task.similarity is in (0, 1], got {similarity}; 1 rejects the same words only")
        self.similarity = similarity
        self._sizes: list[int] = []  # number of grams of each text
        # An inverted index, gram -> indices of the texts that have it: only texts that share a gram are compared.
        self._index: dict[str, list[int]] = defaultdict(list)
        for text in texts:
            self._insert(_grams(text))

    def add(self, text: str) -> bool:
        """Add `text` unless it is a near-duplicate; returns whether it was added."""
        grams = _grams(text)
        shared = Counter(other for gram in grams for other in self._index.get(gram, ()))  # size of each intersection
        size = len(grams)
        if any(n / (size + self._sizes[other] - n) >= self.similarity for other, n in shared.items()):
            return False
        self._insert(grams)
        return True

    def _insert(self, grams: set[str]) -> None:
        for gram in grams:
            self._index[gram].append(len(self._sizes))
        self._sizes.append(len(grams))


def _grams(text: str) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    normalised = f" {' '.join(words)} "
    return {normalised[i : i + _GRAM] for i in range(max(1, len(normalised) - _GRAM + 1))}
