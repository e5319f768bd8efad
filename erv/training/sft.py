"""Supervised fine-tuning: the policy learns to answer `<think>…</think><answer>…</answer>` (paper, stage 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from erv.data.clip_reader import Sample
from erv.distributed.collectives import all_reduce_mean, all_reduce_numbers
from erv.policy.base import IGNORE_INDEX, PolicyBatch
from erv.policy.policy import Policy, save_policy
from erv.rationale import compose
from erv.taxonomy import Taxonomy
from erv.training.callbacks.nan_guard import NonFiniteCounter
from erv.training.optim import OptimizerSettings
from erv.training.stage import Stage
from erv.training.validation import Means
from erv.types import Clip


class SFT(Stage):
    """Minimises next-token cross-entropy on the rationale and answer of each clip.

    Args:
        modalities: what prompts show of a clip.
        batch_size: clips of a step, over all processes.
        answer_weight: weight of the tokens between the answer tags beside the others (paper: 1).
        emotion_head: weight of an auxiliary classifier on the mean media embeddings, dropped after training (paper: 0). A model
            without pretraining needs it, and a larger `answer_weight`, to use the clip at all within minutes.
        max_nonfinite: so many steps in a row that are not finite end the run.
    """

    inputs = "features"
    policy: Policy
    model: Any

    def __init__(
        self,
        policy: Policy,
        taxonomy: Taxonomy,
        optim: OptimizerSettings,
        modalities: Sequence[str],
        batch_size: int,
        epochs: int,
        answer_weight: float = 1.0,
        emotion_head: float = 0.0,
        max_nonfinite: int = 3,
    ) -> None:
        super().__init__()
        self.policy, self.taxonomy, self.optim, self.modalities = policy, taxonomy, optim, tuple(modalities)
        self.batch_size, self.epochs = batch_size, epochs
        self.answer_weight, self.emotion_weight = answer_weight, emotion_head
        self.nonfinite = NonFiniteCounter(max_nonfinite)
        self.model = policy.model
        width = policy.model.config.text_config.hidden_size
        self.head = nn.Linear(width * len(self.modalities), len(taxonomy.labels)) if emotion_head else None
        self.dev = Means("loss")

    def collate(self, batch: list[Sample]) -> tuple[PolicyBatch, Tensor]:
        """Prompts with their target texts, and the weight of each label `[B, L]`."""
        processor = self.policy.processor
        targets = [processor.target_ids(compose(clip.rationale or "", clip.label)) for clip, _ in batch]
        # the answer and its closing tag are the last tokens of a target
        tails = [len(processor.target_ids(f"{clip.label}</answer>")) for clip, _ in batch]
        rows = [features for _, features in batch]
        prompts = [processor.prompt_of(row, self.modalities) for row in rows]
        collated = processor.collate(prompts, rows, targets).to(self.device)
        ends = collated.attention_mask.sum(1, keepdim=True)
        positions = torch.arange(collated.input_ids.shape[1], device=self.device)[None]
        tail = torch.tensor(tails, device=self.device)[:, None]
        weights = torch.where((positions >= ends - tail) & (positions < ends), self.answer_weight, 1.0)
        return collated, weights

    def loss(self, batch: list[Sample]) -> tuple[Tensor, dict[str, Tensor]]:
        """The training loss and its terms; their means over the processes are those of the whole batch.

        Processes have different numbers of tokens, so each divides by the mean over the processes of their summed weights.
        """
        if not batch:
            all_reduce_mean(torch.zeros(2, device=self.device))
            return torch.zeros((), device=self.device), {}
        collated, weights = self.collate(batch)
        media = self.model.media(collated)
        embeds, mask, labels = self.model.embed(collated, media)
        if labels is None:
            raise RuntimeError("collate gave no labels")
        hidden = self.model.language_model.get_decoder()(
            inputs_embeds=embeds, attention_mask=mask.long()
        ).last_hidden_state
        predicts = F.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX) != IGNORE_INDEX  # only these positions need logits
        logits = self.model.language_model.lm_head(hidden[predicts]).float()
        nll = F.cross_entropy(logits, labels[:, 1:][predicts[:, :-1]], reduction="none")
        weight = weights[collated.labels != IGNORE_INDEX]
        tokens, clips = all_reduce_mean(torch.stack([weight.sum(), weight.new_tensor(len(batch))])).unbind()
        parts = {"loss/text": (nll * weight).sum() / tokens}
        if self.head is not None:
            gold = torch.tensor([self.taxonomy.index(clip.label) for clip, _ in batch], device=self.device)
            weight = len(batch) / clips * self.emotion_weight
            parts["loss/emotion"] = F.cross_entropy(self.head(self.means(batch, media)), gold) * weight
        return torch.stack(list(parts.values())).sum(), parts

    def means(self, batch: list[Sample], media: dict[str, Tensor]) -> Tensor:
        """Mean media embeddings of each clip `[B, D * modalities]`, zero for a modality that it lacks."""
        columns = []
        for name in self.modalities:
            has = torch.tensor([name in features for _, features in batch], device=self.device)
            column = torch.zeros(len(batch), self.model.config.text_config.hidden_size, device=self.device)
            if has.any():
                column = column.index_put((has.nonzero()[:, 0],), media[name].mean(1).float())
            columns.append(column)
        return torch.cat(columns, dim=1)

    def check_data(self, clips: Sequence[Clip]) -> None:
        """Raise ValueError when clips have no rationale to imitate."""
        without = [clip for clip in clips if clip.rationale is None]
        if without:
            raise ValueError(
                f"SFT imitates rationales, and {len(without):,} of {len(clips):,} training clips have none, first "
                f"{without[0].id} ({without[0].source}); use a corpus with rationales, such as data=emer_cold_start or your own "
                "data=manifest"
            )

    @property
    def row_length(self) -> Callable[[Clip], int]:
        """Tokens of the text that is imitated."""
        return lambda clip: len(self.policy.processor.target_ids(compose(clip.rationale or "", clip.label)))

    def configure_model(self) -> None:
        """Shard the weights; gradients become means, as Lightning takes the steps."""
        self.sharding.shard([self.model, self.head], mean_gradients=True)

    def training_step(self, batch: list[Sample], _: int) -> Tensor:
        """The loss of a batch."""
        self.sharding.prepare_forward(self.model)
        self.sharding.require_equal_modalities({name for _, features in batch for name in features})
        loss, parts = self.loss(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch), sync_dist=True)
        named = {f"train/{name}": value for name, value in parts.items()}
        self.log_dict(named, batch_size=len(batch), sync_dist=True)
        return loss

    def validation_step(self, batch: list[Sample], _: int) -> None:
        """The same loss on the dev split; a process may have no clip of the last batch."""
        clips = all_reduce_numbers([len(batch)], self.device)[0]
        self.dev.update({"loss": self.loss(batch)[0]}, clips)

    def on_validation_epoch_end(self) -> None:
        """Log the dev loss over all processes."""
        self.log("dev/loss", self.dev.compute()["loss"], prog_bar=True)
        self.dev.reset()

    def save(self, folder: str) -> None:
        """Write the policy."""
        save_policy(self.policy, folder)
