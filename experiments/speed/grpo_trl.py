"""TRL's own GRPOTrainer on the text work: the published package, its methods timed from outside."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from typing import Any

import torch
from datasets import Dataset
from grpo_clock import Clock
from grpo_text import NEVER, VOCABULARY, even_share
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def tokenizer() -> PreTrainedTokenizerFast:
    """Word "12" is id 12, so that text and ids are the same thing."""
    ids = {"<pad>": 0, "<end>": NEVER, **{str(i): i for i in range(1, VOCABULARY)}}
    words = Tokenizer(models.WordLevel(ids, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>", padding_side="left")


class Timed(GRPOTrainer):
    """GRPOTrainer with a clock; nothing is computed differently."""

    clock: Clock
    lengths: set[tuple[int, int]]  # of prompts and completions

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        with self.clock.part("rollout"):
            found = super()._generate(*args, **kwargs)
        self.lengths |= {(len(prompt), len(ids)) for prompt, ids in zip(found[0], found[1], strict=True)}
        return found

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        with self.clock.part("reference" if model is self.ref_model else "forward"):
            return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)


class Laps(TrainerCallback):
    """Tells the clock where a step and its optimiser part begin and end."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.step, self.optimiser = clock, ExitStack(), ExitStack()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """First thing in a step."""
        self.step.enter_context(self.clock.step())

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """After clipping."""
        self.optimiser.enter_context(self.clock.part("backward"))

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Last thing in a step."""
        self.optimiser.close()
        self.step.close()


def run(model: Qwen2ForCausalLM, ids: torch.Tensor, group: int, length: int, steps: int, micro: int) -> Clock:
    """`steps` optimiser steps on prompts `ids` `[B, P]`, in micro-batches of `micro` completions."""
    clock = Clock()
    rows = [{"prompt": " ".join(map(str, row.tolist()))} for row in ids]
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(f"{folder}/model")  # the reference is loaded from where the model came from
        config = GRPOConfig(
            output_dir=folder, per_device_train_batch_size=micro, gradient_accumulation_steps=len(ids) * group // micro,
            num_generations=group,
            max_completion_length=length, max_steps=steps, beta=0.04, loss_type="grpo", temperature=1.0, learning_rate=1e-6,
            lr_scheduler_type="constant", optim="adamw_torch", max_grad_norm=1.0, bf16=False, use_cpu=True,
            gradient_checkpointing=False, save_strategy="no", report_to=[], logging_steps=10**9, disable_tqdm=True, seed=0,
            model_init_kwargs={"dtype": "float32"},
        )  # fmt: skip
        trainer = Timed(
            model=f"{folder}/model", reward_funcs=lambda completions, **_: [even_share(c) for c in completions], args=config,
            train_dataset=Dataset.from_list(rows), processing_class=tokenizer(), callbacks=[Laps(clock)],
        )  # fmt: skip
        trainer.clock, trainer.lengths = clock, set()
        backward = trainer.accelerator.backward
        trainer.accelerator.backward = trainer.clock.timed("backward", backward)
        trainer.train()
        if trainer.lengths != {(ids.shape[1], length)}:
            raise RuntimeError(
                f"prompts and completions have {ids.shape[1]}, {length} tokens; TRL saw {trainer.lengths}"
            )
    return clock
