"""The policy that the KL term holds on to."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def frozen_copy(model: M) -> M:
    """A copy that is never trained; the weights that `model` does not train either are shared, not copied.

    With LoRA only the adapters are copied.
    """
    shared = [p for p in model.parameters() if not p.requires_grad]
    reference: M = copy.deepcopy(model, {id(p): p for p in shared})
    return reference.requires_grad_(False).eval()
