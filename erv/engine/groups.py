"""Groups of a rollout: which of them to train on, and putting new samples in the place of old ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import torch.nn.functional as F
from torch import Tensor

from erv.engine.generate import Rollout


def rows_of(prompts: Sequence[int], group_size: int) -> list[int]:
    """Rows of the completions of `prompts` in anything prompt-major."""
    return [b * group_size + g for b in prompts for g in range(group_size)]


def replaced(old: Rollout, new: Rollout, rows: Sequence[int]) -> Rollout:
    """`old` with `rows` taken from `new`, whose rows they are in this order; widths may differ."""
    width = max(old.tokens.shape[1], new.tokens.shape[1])

    def joined(before: Tensor, after: Tensor) -> Tensor:
        if before.ndim == 2:
            before, after = (F.pad(t, (0, width - t.shape[1])) for t in (before, after))
        result = before.clone()
        result[list(rows)] = after
        return result

    # new columns are padded with 0, whatever the padding token is: nothing reads outside the mask
    return replace(old, **{f.name: joined(getattr(old, f.name), getattr(new, f.name)) for f in fields(Rollout)})


def trained_mask(rollout: Rollout, without_overlong: bool) -> Tensor:
    """The tokens that are trained on, `[N, C]`: those sampled, and none of an unfinished completion by option."""
    return rollout.mask * rollout.finished[:, None] if without_overlong else rollout.mask
