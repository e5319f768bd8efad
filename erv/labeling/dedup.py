"""Finding texts that differ in a few letters only."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

_GRAM = 4  # characters


class Distinct:
    """Texts of which no two are nearly the same: the Jaccard index of their sets of 4 characters stays below `similarity`.

    Case, punctuation and spacing do not count.
    """

    def __init__(self, texts: Iterable[str] = (), similarity: float = 0.7) -> None:
        if not 0 < similarity <= 1:
            raise ValueError(f"task.similarity is in (0, 1], got {similarity}; 1 rejects the same words only")
        self.similarity = similarity
        self._sizes: list[int] = []
        self._holders: dict[str, list[int]] = defaultdict(list)  # gram -> numbers of the texts that hold it
        for text in texts:
            self._keep(_grams(text))

    def add(self, text: str) -> bool:
        """Keep `text` unless one like it is kept already; whether it was kept."""
        grams = _grams(text)
        shared = Counter(number for gram in grams for number in self._holders.get(gram, ()))
        total = len(grams)
        if any(n / (total + self._sizes[number] - n) >= self.similarity for number, n in shared.items()):
            return False
        self._keep(grams)
        return True

    def _keep(self, grams: set[str]) -> None:
        for gram in grams:
            self._holders[gram].append(len(self._sizes))
        self._sizes.append(len(grams))


def _grams(text: str) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    plain = f" {' '.join(words)} "
    return {plain[i : i + _GRAM] for i in range(max(1, len(plain) - _GRAM + 1))}
