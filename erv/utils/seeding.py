"""Seeds derived from what they are for."""

from __future__ import annotations

import hashlib


def prompt_seed(*parts: object) -> int:
    """A seed for one prompt from the run's seed, the iteration and the clip: nothing else may change what it gets."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
