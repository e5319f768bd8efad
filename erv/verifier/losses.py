"""What a verifier is trained to minimise: losses of logits `[S, E]` and multi-hot targets `[S, E]`."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Name = Literal["bce", "asymmetric", "focal", "supcon+bce"]
Balance = Literal["none", "inverse", "effective"]
_EFFECTIVE = 0.999  # beta of the effective number of samples (Cui et al. 2019)


class Loss:
    """A multi-label loss, the mean over all entries `[S, E]`.

    "bce": binary cross-entropy (paper). "focal": entries weighted by (1 - p_t)^gamma (Lin et al. 2017). "asymmetric":
    negatives focused by `gamma_negative` after `clip` is taken off their probability, positives by `gamma_positive`
    (Ridnik et al. 2021). "supcon+bce": cross-entropy plus `contrast` times a contrastive loss that draws sentences together
    by the share of labels they have in common, at `temperature` (Khosla et al. 2020, for several labels).

    `balance` weights positive entries of a class by its frequency ("inverse") or its effective number of samples
    ("effective"), to a mean of 1 over classes that occur.
    """

    def __init__(
        self, name: Name = "bce", balance: Balance = "none", gamma: float = 2.0, gamma_negative: float = 4.0,
        gamma_positive: float = 1.0, clip: float = 0.05, contrast: float = 0.1, temperature: float = 0.1,
    ) -> None:  # fmt: skip
        if name not in get_args(Name):
            raise ValueError(f"algo.loss.name is one of {', '.join(get_args(Name))}, got {name!r}")
        if balance not in get_args(Balance):
            raise ValueError(f"algo.loss.balance is one of {', '.join(get_args(Balance))}, got {balance!r}")
        if temperature <= 0:
            raise ValueError(f"algo.loss.temperature is above 0, got {temperature}")
        self.name, self.balance, self.gamma = name, balance, gamma
        self.gamma_negative, self.gamma_positive, self.clip = gamma_negative, gamma_positive, clip
        self.contrast, self.temperature = contrast, temperature

    @property
    def needs_embeddings(self) -> bool:
        """Whether `__call__` wants the sentences' embeddings."""
        return self.name == "supcon+bce"

    def weights(self, targets: Tensor) -> Tensor | None:
        """The weight `[E]` of each class' positive entries, from the targets of all training rows; None for no balancing."""
        if self.balance == "none":
            return None
        counts = targets.sum(0)
        seen = counts > 0
        if self.balance == "inverse":
            weights = 1 / counts.clamp(min=1)
        else:
            weights = (1 - _EFFECTIVE) / (1 - _EFFECTIVE ** counts.clamp(min=1))
        return torch.where(seen, weights / weights[seen].mean(), torch.ones_like(weights))

    def __call__(
        self, logits: Tensor, targets: Tensor, embeddings: Tensor | None = None, weights: Tensor | None = None,
        embedded: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The loss, a scalar; `embeddings` `[S, D]` for "supcon+bce", `weights` `[E]` from `weights()`.

        `embedded` are the targets of `embeddings` where these are of more sentences than `logits`.
        """
        if self.name == "focal":
            return _entries(logits, targets, weights, self.gamma, self.gamma, 0.0)
        if self.name == "asymmetric":
            return _entries(logits, targets, weights, self.gamma_positive, self.gamma_negative, self.clip)
        loss = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)
        if self.name == "supcon+bce":
            if embeddings is None:
                raise ValueError("supcon+bce needs the sentences' embeddings")
            loss = loss + self.contrast * contrastive(
                embeddings, targets if embedded is None else embedded, self.temperature
            )
        return loss


def _entries(
    logits: Tensor, targets: Tensor, weights: Tensor | None, positive: float, negative: float, clip: float
) -> Tensor:  # fmt: skip
    """Cross-entropy of which each entry is focused by (1 - its probability of being right)^gamma."""
    p = logits.sigmoid()
    log_p = F.logsigmoid(logits)
    if clip > 0:
        shifted = (p - clip).clamp(min=0)
        log_q = torch.log1p(-shifted)
    else:
        shifted, log_q = p, F.logsigmoid(-logits)
    found = targets * (1 - p) ** positive * log_p
    if weights is not None:
        found = found * weights
    return -(found + (1 - targets) * shifted**negative * log_q).mean()


def contrastive(embeddings: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss of `[S, D]` with pairs weighted by the Jaccard index of their labels; 0 without a pair."""
    z = F.normalize(embeddings, dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_p = (z @ z.T / temperature).masked_fill(itself, float("-inf")).log_softmax(1).masked_fill(itself, 0.0)
    shared = targets @ targets.T
    union = targets.sum(1, keepdim=True) + targets.sum(1) - shared
    pairs = (shared / union.clamp(min=1)).masked_fill(itself, 0.0)
    anchors = pairs.sum(1) > 0
    if not anchors.any():
        return z.sum() * 0.0
    return -((pairs * log_p).sum(1)[anchors] / pairs.sum(1)[anchors]).mean()
