"""Multi-label losses of logits `[S, E]` and multi-hot targets `[S, E]`, for training a verifier."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Name = Literal["bce", "asymmetric", "focal", "supcon+bce"]
Balance = Literal["none", "inverse", "effective"]
_EFFECTIVE_BETA = 0.999  # of the effective number of samples (Cui et al. 2019)


class Loss:
    """A multi-label loss, averaged over all entries `[S, E]`.

    Args:
        name: "bce" is binary cross-entropy (paper). "focal" weights entries by (1 - p_t)^gamma (Lin et al. 2017).
            "asymmetric" focuses negatives by `gamma_negative`, after `clip` was subtracted from their probability, and
            positives by `gamma_positive` (Ridnik et al. 2021). "supcon+bce" is cross-entropy plus `contrast` times a
            supervised contrastive loss (Khosla et al. 2020, for several labels: pairs count by the share of labels that they
            have in common).
        balance: Weights of the classes' positive entries: "inverse" by frequency or "effective" by effective number of
            samples, to a mean of 1 over the classes that occur; "none" weights nothing.
        gamma: Focusing parameter of "focal", at least 0.
        gamma_negative: Focusing parameter of "asymmetric" for negatives.
        gamma_positive: Focusing parameter of "asymmetric" for positives.
        clip: Probability margin of "asymmetric", in [0, 1).
        contrast: Weight of the contrastive loss.
        temperature: Temperature of the contrastive loss, above 0.
    """

    def __init__(
        self,
        name: Name = "bce",
        balance: Balance = "none",
        gamma: float = 2.0,
        gamma_negative: float = 4.0,
        gamma_positive: float = 1.0,
        clip: float = 0.05,
        contrast: float = 0.1,
        temperature: float = 0.1,
    ) -> None:
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
        """Whether `__call__` needs the sentences' embeddings."""
        return self.name == "supcon+bce"

    def weights(self, targets: Tensor) -> Tensor | None:
        """Compute the weight `[E]` of each class' positive entries from the targets of all training rows.

        A class without positive entries has weight 1. Returns None without balancing.
        """
        if self.balance == "none":
            return None
        counts = targets.sum(0)
        occurs = counts > 0
        if self.balance == "inverse":
            weights = 1 / counts.clamp(min=1)
        else:
            weights = (1 - _EFFECTIVE_BETA) / (1 - _EFFECTIVE_BETA ** counts.clamp(min=1))
        return torch.where(occurs, weights / weights[occurs].mean(), torch.ones_like(weights))

    def __call__(
        self,
        logits: Tensor,
        targets: Tensor,
        embeddings: Tensor | None = None,
        weights: Tensor | None = None,
        embedding_targets: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss, a scalar.

        Args:
            logits: `[S, E]`.
            targets: Multi-hot `[S, E]`.
            embeddings: `[R, D]`, needed for "supcon+bce".
            weights: `[E]`, from `weights()`.
            embedding_targets: `[R, E]`, where the embeddings are of more sentences than the logits (those of all processes).
        """
        if self.name == "focal":
            return _focused_cross_entropy(logits, targets, weights, self.gamma, self.gamma, 0.0)
        if self.name == "asymmetric":
            return _focused_cross_entropy(logits, targets, weights, self.gamma_positive, self.gamma_negative, self.clip)
        loss = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)
        if self.name == "supcon+bce":
            if embeddings is None:
                raise ValueError("supcon+bce needs the sentences' embeddings")
            labels = targets if embedding_targets is None else embedding_targets
            loss = loss + self.contrast * contrastive(embeddings, labels, self.temperature)
        return loss


def _focused_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    gamma_positive: float,
    gamma_negative: float,
    clip: float,
) -> Tensor:
    """Compute cross-entropy with each entry weighted by (1 - probability of its target)^gamma."""
    p = logits.sigmoid()
    log_p = F.logsigmoid(logits)
    if clip > 0:
        # p - clip is at most 1 - clip, so the logarithm is finite
        p_negative = (p - clip).clamp(min=0)
        log_q = torch.log1p(-p_negative)
    else:
        # log(1 - p) is -inf in float32 for large logits; logsigmoid(-z) is the same, and finite
        p_negative, log_q = p, F.logsigmoid(-logits)
    positives = targets * (1 - p) ** gamma_positive * log_p
    if weights is not None:
        positives = positives * weights
    return -(positives + (1 - targets) * p_negative**gamma_negative * log_q).mean()


def contrastive(embeddings: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Compute the supervised contrastive loss of embeddings `[S, D]` and multi-hot targets `[S, E]`.

    A pair of sentences counts by the Jaccard index of its labels. The loss is the mean over the sentences that share a label
    with another one, and 0 if there is none.
    """
    z = F.normalize(embeddings, dim=1)
    diagonal = torch.eye(len(z), dtype=torch.bool, device=z.device)
    # a sentence is not its own candidate: -inf takes it out of the softmax, 0 keeps 0 * -inf = nan out of the sum below
    log_p = (z @ z.T / temperature).masked_fill(diagonal, float("-inf")).log_softmax(1).masked_fill(diagonal, 0.0)
    intersection = targets @ targets.T
    union = targets.sum(1, keepdim=True) + targets.sum(1) - intersection
    pairs = (intersection / union.clamp(min=1)).masked_fill(diagonal, 0.0)
    anchors = pairs.sum(1) > 0
    if not anchors.any():
        return z.sum() * 0.0  # with gradient: every process must take part in the backward pass
    return -((pairs * log_p).sum(1)[anchors] / pairs.sum(1)[anchors]).mean()
