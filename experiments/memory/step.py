"""What an update adds in memory: the doctor's estimate beside what the CPU's allocator handed out.

    python experiments/memory/step.py --policy tiny|humanomni_0_5b [--cases sft,grpo,sft_checkpointing,grpo_checkpointing]
        [--precision 32-true|bf16-mixed] [--clips 4] [--group 4] [--tokens 64] [--header]

Runs `erv.training.SFT` and `erv.training.GRPO` under a Lightning trainer with random weights and random tower features. The
second update is measured, as the gradient of the first lies in memory by then; torch's profiler reports every allocation, those
inside of kernels too. GRPO has its answers given, and a micro-batch for each clip. Prints a row of a table for each case.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.data import DataLoader

from erv.cli.command import conf_folder
from erv.data.clip_reader import Sample
from erv.engine.generate import Rollout
from erv.grpo import Objective
from erv.policy import Policy
from erv.policy.humanomni.config import HumanOmniConfig
from erv.policy.humanomni.model import HumanOmni
from erv.policy.humanomni.processor import Processor
from erv.policy.humanomni.tokenizer import train_bert_tokenizer, train_tokenizer
from erv.policy.policy import DEFAULT_TRAIN
from erv.rationale import compose
from erv.taxonomy import DFEW
from erv.training.callbacks.modes import TrainingMode
from erv.training.grpo import GRPO
from erv.training.memory import TEXT_TOKENS, Setup, estimate, prompt_tokens
from erv.training.optim import OptimizerSettings
from erv.training.sft import SFT
from erv.types import Clip, RewardParts

CASES = ("sft", "sft_checkpointing", "grpo", "grpo_checkpointing")
COLUMNS = (
    "policy", "precision", "stage", "checkpointing", "gradients, MB", "with activations: estimated", "measured", "ratio",
    "activations alone: estimated", "measured", "ratio",
)  # fmt: skip
WORD = " brow"
MARK = "the update begins"
# Left out are most layers of the towers (not run) and of BERT (frozen), and six of seven positions of a prompt.
SMALLER = {
    "tiny": {},
    "humanomni_0_5b": {
        "num_frames": 1,
        "bert_config": {"num_hidden_layers": 1},
        "vision_config": {"hidden_size": 768, "image_size": 224, "patch_size": 16, "num_hidden_layers": 1},
        "audio_config": {
            "d_model": 1280,
            "encoder_attention_heads": 20,
            "encoder_layers": 1,
            "max_source_positions": 60,
            "num_mel_bins": 128,
        },
    },
}


class Stateless(OptimizerSettings):
    """Gradient descent: the optimiser's states are no part of an update, and take twice the weights' memory."""

    def build(self, parameters: Iterable[nn.Parameter], steps: int) -> Any:
        """The optimiser and a constant schedule."""
        optimiser = torch.optim.SGD([p for p in parameters if p.requires_grad], lr=self.lr)
        return optimiser, torch.optim.lr_scheduler.ConstantLR(optimiser)


class Meter(pl.Callback):
    """What the second update adds, with its gradients, to what was alive before: from `start` to the optimiser's step."""

    def __init__(self) -> None:
        # from the first step on: it reports no memory as freed that it did not see allocated
        self.profiler: Any = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self.step = self.gradients = self.added = 0

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """SFT's update is the whole step."""
        self.step = batch_idx
        if batch_idx == 0:
            self.profiler.start()
        if isinstance(module, SFT):
            self.start(module)

    def start(self, module: Any) -> None:
        """The update begins."""
        if self.step == 1:
            self.gradients = sum(p.grad.nbytes for p in module.model.parameters() if p.grad is not None)
            with record_function(MARK):
                pass

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Any) -> None:
        """The update is over."""
        if self.step == 1:
            self.profiler.stop()
            events = sorted(self.profiler.profiler.kineto_results.events(), key=lambda e: e.start_ns())
            begin = next(e.start_ns() for e in events if e.name() == MARK)
            memory = [e for e in events if e.name() == "[memory]"]
            alive = sum(e.nbytes() for e in memory if e.start_ns() < begin)
            peaks = accumulate((e.nbytes() for e in memory if e.start_ns() >= begin), initial=alive)
            self.added = max(peaks) - alive + self.gradients


class MeasuredSFT(SFT):
    """SFT as it is."""

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """As erv.training.datamodule does: batches hold records."""
        return batch


class MeasuredGRPO(GRPO):
    """GRPO with answers of the greatest length given; sampling is no part of an update."""

    def rollout(self, batch: list[Sample], iteration: int, attempt: int = 0) -> Rollout:
        """Random answers, short ones in the first update."""
        shape = (
            len(batch) * self.rollout_settings.group_size,
            self.rollout_settings.max_new_tokens if iteration > 1 else 2,
        )
        tokens = torch.randint(len(self.policy.processor.tokenizer), shape)
        return Rollout(tokens, torch.ones_like(tokens), torch.zeros(shape), torch.ones(len(tokens), dtype=torch.bool))

    def meter_updates(self, meter: Meter) -> None:
        """Tell `meter` when an update begins."""
        accumulate = self.gradient.accumulate

        def metered(*arguments: Any) -> Any:
            meter.start(self)
            return accumulate(*arguments)

        self.gradient.accumulate = metered  # type: ignore[method-assign]

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """As erv.training.datamodule does: batches hold records."""
        return batch


class RandomReward:
    """A random number: what the text is worth has no part in memory."""

    weights = {"random": 1.0}  # noqa: RUF012

    def __call__(self, texts: Sequence[str], golds: Sequence[str], *_: Any) -> list[RewardParts]:
        """One reward a text."""
        values = torch.rand(len(texts)).tolist()
        return [RewardParts(value, {"random": value}) for value in values]


def make(name: str, checkpointing: bool) -> Policy:
    """The policy `name` of conf/policy with random weights, the vocabulary as configured, and prompts as long as the doctor's."""
    torch.manual_seed(0)
    config = yaml.safe_load((conf_folder() / "policy" / f"{name}.yaml").read_text())["config"]
    sizes = HumanOmniConfig(**{**config, **SMALLER[name]})
    model = HumanOmni(sizes).set_trainable(DEFAULT_TRAIN)
    if checkpointing:
        model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    texts = [compose(WORD * 9, label) for label in DFEW.labels] * 20
    tokenizer, bert = train_tokenizer(texts), train_bert_tokenizer(texts)
    image, bins = sizes.vision_config.image_size, sizes.audio_config.num_mel_bins

    def with_question(words: int) -> Processor:
        return Processor(tokenizer, bert, image, sizes.num_frames, bins, sizes.audio_seconds, "W" + WORD * words)

    def text_tokens(processor: Processor) -> int:
        return sum(i >= 0 for i in processor.prompt().ids)

    missing = TEXT_TOKENS - text_tokens(with_question(0))
    processor = with_question(missing)
    assert text_tokens(processor) == TEXT_TOKENS, f"{text_tokens(processor)} tokens"
    return Policy(model, processor)


def samples(policy: Policy, count: int, tokens: int) -> list[Sample]:
    """Clips with tower features; the first one's answer has `tokens` tokens, and each further one a token less."""
    sizes, processor = policy.model.config, policy.processor
    video = (sizes.num_frames, sizes.grid**2, sizes.vision_config.hidden_size)
    audio = (sizes.audio_tokens, sizes.audio_config.d_model)
    words = tokens - len(processor.target_ids(compose("W", "sad")))
    rationales = ["W" + WORD * (words - place) for place in range(count)]
    assert len(processor.target_ids(compose(rationales[0], "sad"))) == tokens
    return [
        (
            Clip(id=str(place), video="", label="sad", split="train", rationale=rationale, source="memory"),
            {"video": torch.randn(video), "audio": torch.randn(audio)},
        )
        for place, rationale in enumerate(rationales)
    ]


def measure(name: str, case: str, given: argparse.Namespace) -> tuple[Setup, HumanOmniConfig, int]:
    """The setup of a case, the policy's sizes, and the bytes measured."""
    stage, _, checkpointing = case.partition("_")
    policy = make(name, bool(checkpointing))
    sizes, batch, modalities = policy.model.config, samples(policy, given.clips, given.tokens), ("video", "audio")
    optim, meter = Stateless(1e-6), Meter()
    setup = Setup(
        train=DEFAULT_TRAIN, prompts=given.clips, group_size=1, new_tokens=given.tokens, sampled=False, reference=False,
        gradient_checkpointing=bool(checkpointing), precision=given.precision,
    )  # fmt: skip
    module: SFT | MeasuredGRPO
    if stage == "sft":
        module = MeasuredSFT(policy, DFEW, optim, modalities, given.clips, epochs=1)
    else:
        budget = prompt_tokens(sizes) + given.group * given.tokens
        setup = replace(setup, group_size=given.group, token_budget=budget, sampled=True, reference=True)
        reward: Any = RandomReward()
        module = MeasuredGRPO(
            policy, reward, DFEW, optim, modalities, 0, Objective(beta=0.04), 2, given.clips, given.group, given.tokens,
            token_budget=budget,
        )  # fmt: skip
        module.meter_updates(meter)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, precision=given.precision, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
            callbacks=[TrainingMode(), meter], gradient_clip_val=1.0 if stage == "sft" else None,
        )  # fmt: skip
        trainer.fit(module, DataLoader([batch[:1], batch], batch_size=None, collate_fn=None))
    return setup, sizes, meter.added


def main() -> None:
    """Measure the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", choices=tuple(SMALLER), default="tiny")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    for key, default in (("clips", 4), ("group", 4), ("tokens", 64), ("threads", 1)):
        parser.add_argument(f"--{key}", type=int, default=default)
    parser.add_argument("--header", action="store_true", help="print the table's head instead")
    given = parser.parse_args()
    if given.header:
        print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * 4 + " ---: |" * (len(COLUMNS) - 4))
        return
    torch.set_num_threads(given.threads)
    for case in given.cases.split(","):
        setup, sizes, measured = measure(given.policy, case, given)
        gc.collect()
        parts = estimate(sizes, setup)
        gradients, activations = parts["gradients"], parts["activations"]
        figures = [f"{gradients / 1e6:,.1f}"]
        for expected, seen in ((gradients + activations, measured), (activations, measured - gradients)):
            figures += [f"{expected / 1e6:,.1f}", f"{seen / 1e6:,.1f}", f"{expected / seen:.2f}"]
        stage, _, checkpointing = case.partition("_")
        row = [given.policy, given.precision, stage, "on" if checkpointing else "off", *figures]
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
