"""The smallest policy that GRPO can train: a decoder over letters, with prompts of letters. For tests of training."""

import string
from dataclasses import dataclass, replace

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Qwen2Config, Qwen2ForCausalLM

from erv.distributed.collectives import full_tensor
from erv.distributed.ddp import DDP, end_process_group
from erv.distributed.deepspeed import DeepSpeed
from erv.distributed.sharding import sharding_of
from erv.grpo.loss import GRPOLoss
from erv.policy.humanomni.prompts import Prompt
from erv.taxonomy import Taxonomy
from erv.training.grpo import GRPO
from erv.training.optim import OptimizerSettings
from erv.training.sampler import replica_part
from erv.types import Clip, RewardParts

LETTERS = string.ascii_lowercase[:14]  # token ids 2 to 15; 0 is padding, 1 the end token


def decoder(seed=0, **sizes):
    """A Qwen2 with 16 tokens and random weights."""
    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        **sizes,
    }
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=16, bos_token_id=None, eos_token_id=1, pad_token_id=0, **sizes))


@dataclass(frozen=True)
class Batch:
    """Prompts: `ids` `[B, P]`, and the `noise` `[B]` of each (see Model)."""

    ids: torch.Tensor
    noise: torch.Tensor

    def to(self, device):
        return replace(self, ids=self.ids.to(device))


class Model(nn.Module):
    """Adds a prompt's noise to its embeddings while gradients are recorded: NaN breaks the update and not the rollout."""

    def __init__(self, language_model):
        super().__init__()
        self.language_model = language_model

    @property
    def device(self):
        return self.language_model.device

    def embed(self, batch):
        embeds = self.language_model.get_input_embeddings()(batch.ids)
        if torch.is_grad_enabled():
            embeds = embeds + batch.noise[:, None, None]
        return embeds, torch.ones_like(batch.ids, dtype=torch.bool), None


class Processor:
    """Prompts of four letters, which are the sample's features; decodes tokens to letters, and the end token to a dot."""

    pad_id = 0

    def __init__(self, eos_ids):
        self.eos_ids = eos_ids

    def prompt_of(self, features, modalities):
        return self.prompt(modalities)

    def prompt(self, modalities):
        return Prompt((0,) * 4, "")

    def collate(self, prompts, features):
        return Batch(torch.stack([f["ids"] for f in features]), torch.stack([f["noise"] for f in features]))

    def decode(self, ids):
        return "".join(LETTERS[i - 2] if i > 1 else "." for i in ids)


@dataclass(frozen=True)
class Policy:
    model: Model
    processor: Processor


class Reward:
    """A function of (text, gold label) as a reward; records its calls."""

    def __init__(self, value):
        self.value, self.weights, self.calls = value, {"value": 1.0}, []

    def __call__(self, texts, golds, *_):
        self.calls.append(list(zip(texts, golds, strict=True)))
        return [RewardParts(v, {"value": v}) for v in map(self.value, texts, golds)]


class TwoRewards(Reward):
    """Reward's value, and the number of distinct letters, which is None for texts with an "a"."""

    def __init__(self, value):
        super().__init__(value)
        self.weights = {"value": 1.0, "letters": 0.5}

    def __call__(self, texts, golds, *_):
        rewards = []
        for text, part in zip(texts, super().__call__(texts, golds), strict=True):
            letters = float(len(set(text))) if "a" not in text else None
            total = part.total + 0.5 * (letters or 0.0)
            rewards.append(RewardParts(total, {**part.parts, "letters": letters}))
        return rewards


def prompts(count, seed=0, noise=None):
    """`count` samples of four letters; a clip's id and label are its number."""
    ids = torch.randint(2, 16, (count, 4), generator=torch.Generator().manual_seed(seed))
    noise = torch.zeros(count) if noise is None else torch.tensor(noise)
    return [(Clip(str(i), "", str(i), "train"), {"ids": ids[i], "noise": noise[i]}) for i in range(count)]


class RecordingGRPO(GRPO):
    """GRPO that records what it logs, instead of logging it, and leaves batches on their device."""

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch

    def log_dict(self, metrics, **kwargs):
        self.logged.append({name: float(value) for name, value in metrics.items()})

    def log(self, name, value, **kwargs):
        self.singles.append((name, float(value)))


def train(
    batches,
    reward,
    folder,
    language_model=None,
    seed=0,
    lr=1e-2,
    beta=0.04,
    loss="grpo",
    ends=(1,),
    share=(0, 1),
    strategy=DDP,
    **settings,
):
    """Run GRPO over the batches under a Lightning trainer; return the module, with its `weights` and last `gradients`.

    share: (rank, number of processes), of several processes; each trains on its part of every batch. ends: end tokens.
    """
    policy = Policy(Model(language_model or decoder()), Processor(ends))
    settings = {"group_size": 4, "max_new_tokens": 6, **settings}
    optim = OptimizerSettings(lr, "constant", eps=1e-6)
    objective = GRPOLoss(loss, beta=beta, max_completion_length=settings["max_new_tokens"])
    algo = RecordingGRPO(
        policy, reward, Taxonomy("none", ()), optim, (), seed, objective, len(batches), len(batches[0]), **settings
    )
    algo.logged, algo.singles = [], []
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=share[1],
        strategy=strategy(timeout_s=60) if share[1] > 1 else "auto",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(algo, DataLoader([replica_part(batch, share) for batch in batches], batch_size=None, collate_fn=None))
    deepspeed = isinstance(trainer.strategy, DeepSpeed)
    state = sharding_of(trainer).full_state(algo.model) if deepspeed else None
    algo.weights = [state[name] if state else full_tensor(p.detach()) for name, p in algo.model.named_parameters()]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in algo.model.parameters()]
    algo.gradients = [] if state else list(map(full_tensor, gradients))  # DeepSpeed has none left
    end_process_group(trainer)
    return algo
