"""GRPO's engine on a real language model: rollout, self-check and updates on MELD's dialogues, a few steps on a CPU.

    python experiments/real_lm/grpo_meld.py --model SMOLLM2 --meld MELD [--verifier ERV] [--steps 2]

SMOLLM2 is a folder or hub id of any causal language model with a chat template (HuggingFaceTB/SmolLM2-135M-Instruct), MELD
the folder with train_sent_emo.csv. Prints one line a step. It shows that the engine takes real weights, not that they
learn: without SFT the model never writes the tags, so format and answer earn nothing.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from erv.engine.layers import supports_shared_prefix
from erv.grpo.loss import GRPOLoss
from erv.policy.humanomni.prompts import Prompt
from erv.rewards.answer import AnswerReward
from erv.rewards.composite import CompositeReward
from erv.rewards.explanation import ExplanationReward
from erv.rewards.format import FormatReward
from erv.taxonomy import MELD
from erv.training import grpo_update
from erv.training.callbacks.modes import TrainingMode
from erv.training.grpo import GRPO
from erv.training.optim import OptimizerSettings
from erv.types import Clip
from erv.verifier import load_verifier

CONTEXT = 3  # lines of dialogue in a prompt
INSTRUCTION = (
    "Which emotion does the last line of this dialogue convey? Answer in this form only: "
    "<think>one or two sentences on what shows it</think><answer>one of: " + ", ".join(MELD.labels) + "</answer>"
)

Sample = tuple[Clip, dict[str, Tensor]]


@dataclass(frozen=True)
class Batch:
    """Token ids `[B, P]`, padded on the right, and their mask."""

    ids: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return replace(self, ids=self.ids.to(device), mask=self.mask.to(device))


class TextModel(nn.Module):
    """A causal language model with the interface that GRPO asks of a policy's model."""

    def __init__(self, decoder: PreTrainedModel) -> None:
        super().__init__()
        self.language_model = decoder

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.language_model.device

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor, None]:
        """Embeddings `[B, P, D]` and mask of the prompts."""
        return self.language_model.get_input_embeddings()(batch.ids), batch.mask, None


class TextProcessor:
    """Chat prompts of a tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.eos_ids = [tokenizer.eos_token_id]
        self.pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    def ids(self, dialogue: str) -> Tensor:
        """Token ids of the prompt about one dialogue."""
        chat = [{"role": "user", "content": f"{INSTRUCTION}\n\n{dialogue}"}]
        text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return torch.tensor(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt_of(self, features: dict[str, Tensor], modalities: Sequence[str]) -> Prompt:
        """The prompt of one sample."""
        return Prompt(tuple(features["ids"].tolist()), "")

    def collate(self, prompts: Sequence[Prompt], features: Sequence[dict[str, Tensor]]) -> Batch:
        """Pad the samples' ids."""
        rows = [row["ids"] for row in features]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.pad_id)
        lengths = torch.tensor([len(row) for row in rows])
        return Batch(ids, torch.arange(ids.shape[1])[None] < lengths[:, None])

    def decode(self, ids: Sequence[int]) -> str:
        """Ids as text."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()


@dataclass(frozen=True)
class TextPolicy:
    """A model and its processor."""

    model: TextModel
    processor: TextProcessor


class Reported(GRPO):
    """GRPO that prints a line a step; nothing is computed differently."""

    def training_step(self, batch: list[Any], index: int) -> None:
        """One iteration, timed."""
        start = time.process_time()
        super().training_step(batch, index)
        print(f"step {index + 1}: {time.process_time() - start:.1f} CPU seconds", flush=True)

    def record(self, batch: Any, scored: Any, advantage: Any, metrics: Any, iteration: int) -> None:
        """Print what the step gave."""
        figures = {name: f"{float(metrics[name]):.3g}" for name in ("loss", "kl", "grad_norm") if name in metrics}
        tokens = float(scored.rollout.mask.sum(1).float().mean())
        print(f"  {tokens:.0f} tokens an answer, {figures}; first answer: {scored.texts[0][:160]!r}", flush=True)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Leave batches as they are: they hold records."""
        return batch


def dialogues(file: Path, processor: TextProcessor) -> list[Sample]:
    """Every line of MELD's file with the lines before it, as GRPO's samples."""
    lines: dict[str, list[str]] = defaultdict(list)
    samples = []
    with file.open(newline="", encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            dialogue = lines[row["Dialogue_ID"]]
            dialogue.append(f"{row['Speaker']}: {row['Utterance'].strip()}")
            clip = Clip(f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}", "", row["Emotion"], "train")
            samples.append((clip, "\n".join(dialogue[-CONTEXT:])))
    random.Random(0).shuffle(samples)
    return [(clip, {"ids": processor.ids(text)}) for clip, text in samples[:64]]


def timed_check(*arguments: Any) -> float:
    """The self-check, with its figure and its time printed."""
    start = time.process_time()
    difference = CHECK(*arguments)
    print(
        f"  self-check: relative difference {difference:.1e}, {time.process_time() - start:.1f} CPU seconds", flush=True
    )
    return difference


CHECK = grpo_update.verify_shared_prefix


def main() -> None:
    """Run a few steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--meld", required=True, type=Path)
    parser.add_argument("--verifier")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=60)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    decoder = AutoModelForCausalLM.from_pretrained(chosen.model, dtype=torch.float32)
    print(f"{type(decoder).__name__}, shared prefix: {supports_shared_prefix(decoder)}")
    policy: Any = TextPolicy(TextModel(decoder), TextProcessor(AutoTokenizer.from_pretrained(chosen.model)))
    verifier = load_verifier(chosen.verifier) if chosen.verifier else None
    explanation, labels = (ExplanationReward(), verifier.labels) if verifier else (None, None)
    reward = CompositeReward(MELD, FormatReward(), AnswerReward(), explanation, verifier, labels)
    samples = dialogues(chosen.meld / "train_sent_emo.csv", policy.processor)
    batches = [samples[i * chosen.prompts : (i + 1) * chosen.prompts] for i in range(chosen.steps)]
    grpo_update.verify_shared_prefix = timed_check
    module = Reported(
        policy,
        reward,
        MELD,
        OptimizerSettings(1e-6, "constant"),
        modalities=(),
        seed=0,
        objective=GRPOLoss(beta=0.04),
        iterations=chosen.steps,
        batch_size=chosen.prompts,
        group_size=chosen.group,
        max_new_tokens=chosen.tokens,
    )
    before = [p.detach().clone() for p in decoder.parameters()]
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[TrainingMode()],
        )
        trainer.fit(module, DataLoader(batches, batch_size=None, collate_fn=None))
    changed = sum(not torch.equal(a, b) for a, b in zip(before, decoder.parameters(), strict=True))
    print(f"{changed} of {len(before)} weight tensors changed")


if __name__ == "__main__":
    main()
