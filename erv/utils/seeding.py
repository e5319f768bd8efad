"""Random seeds derived from names and numbers."""

from __future__ import annotations

import hashlib


def prompt_seed(*parts: object) -> int:
    """Hash `parts` (the run's seed, the iteration, the clip, …) to a seed of 63 bits.

    With a seed of its own, what a prompt gets depends on nothing else: not on the batch it is in, the process that samples it,
    or whether the run was resumed. SHA-256 since Python's `hash` of a text differs from process to process; 63 bits, so that the
    seed fits a signed 64-bit integer.
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
