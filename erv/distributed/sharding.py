"""How the processes of a run hold the weights that they train: one interface for DDP, FSDP2 and DeepSpeed.

Training code asks `sharding_of(trainer)` for a `Sharding` and never names a strategy. In one process and under DDP every
process holds whole models, and most operations have nothing to do. FSDP2 (fsdp.py) and DeepSpeed's ZeRO (deepspeed.py) split
weights, gradients and optimizer states, each in its own way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from erv.distributed import collectives, deepspeed_internals, fsdp
from erv.distributed.deepspeed import DeepSpeed
from erv.distributed.fsdp import FSDP


class Sharding:
    """Whole models in every process: one process, or DDP. The base class of the strategies that shard."""

    collective_passes = False
    """Whether a forward or backward pass is a collective operation, of which all processes must run equally many."""

    skips_nonfinite_steps = False
    """Whether the optimizer itself leaves out a step whose gradient is not finite, and needs to be called to do so."""

    def shard(self, models: Iterable[nn.Module | None], mean_gradients: bool) -> None:
        """Split the weights of `models` among the processes; call it in `configure_model`.

        Args:
            models: what the stage trains or reads; None is ignored.
            mean_gradients: gradients become the mean over the processes (Lightning takes the steps), else their sum.
        """

    def prepare_forward(self, model: nn.Module) -> None:
        """Before each forward pass: gather weights that are used without a call of their module."""

    @contextmanager
    def whole_weights(self, models: Sequence[nn.Module]) -> Iterator[None]:
        """Hold the whole weights of `models`, gathered once, for generation and validation.

        Inside, processes may run different numbers of forward passes.
        """
        yield

    @contextmanager
    def micro_batch(self, models: Sequence[nn.Module], last: bool) -> Iterator[None]:
        """One forward and backward pass of several that make up a gradient.

        Args:
            models: the trained model, and then others that the pass runs, such as the reference.
            last: whether it is the last pass before the optimizer's step, after which gradients are reduced.
        """
        yield

    def scale_loss(self, loss: Tensor, model: nn.Module) -> Tensor:
        """Scale a micro-batch's loss such that the gradient of `model` becomes the sum over the processes."""
        return loss

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their sums over the processes, once all micro-batches have been run."""
        collectives.all_reduce_gradients(parameters)

    def clip_gradients(self, parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
        """Clip gradients to `max_norm` (0: not at all) and return the norm of the whole gradient before clipping."""
        trained = [p for p in parameters if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
        if max_norm:
            nn.utils.clip_grads_with_norm_(trained, max_norm, norm)
        return collectives.full_tensor(norm)

    def require_equal_modalities(self, modalities: Iterable[str]) -> None:
        """Raise RuntimeError where processes may not run different modules, and have clips of other `modalities`."""

    def full_state(self, model: nn.Module) -> dict[str, Tensor] | None:
        """The whole weights of a sharded `model` on the CPU of rank 0; None for a model that is whole already."""
        return None


class FSDPSharding(Sharding):
    """Shards of torch's `fully_shard`; gradients leave the backward pass reduced."""

    collective_passes = True

    def __init__(self, trainer: pl.Trainer, strategy: FSDP) -> None:
        self.trainer, self.strategy = trainer, strategy

    def shard(self, models: Iterable[nn.Module | None], mean_gradients: bool) -> None:
        """Split the layers of a `language_model` one by one, and the rest of each model as one unit."""
        mesh, device = self.strategy.device_mesh["data_parallel"], self.strategy.root_device
        mixed_precision = str(self.trainer.precision) == "bf16-mixed"
        for model in models:
            if model is not None:
                fsdp.shard(model, mesh, device, mixed_precision, mean_gradients)

    def prepare_forward(self, model: nn.Module) -> None:
        """Gather the weights that belong to no layer."""
        fsdp.gather_root(model)

    @contextmanager
    def whole_weights(self, models: Sequence[nn.Module]) -> Iterator[None]:
        """Gather all shards once."""
        with ExitStack() as stack:
            for model in models:
                stack.enter_context(fsdp.whole_weights(model))
            yield

    def full_state(self, model: nn.Module) -> dict[str, Tensor] | None:
        """The whole weights, gathered on rank 0."""
        return fsdp.full_state(model)


class DeepSpeedSharding(Sharding):
    """Shards of DeepSpeed's ZeRO, which averages and clips gradients, and skips non-finite steps, itself."""

    collective_passes = True
    skips_nonfinite_steps = True

    def __init__(self, strategy: DeepSpeed) -> None:
        self.strategy = strategy

    @contextmanager
    def whole_weights(self, models: Sequence[nn.Module]) -> Iterator[None]:
        """Gather all shards once."""
        with deepspeed_internals.whole_weights(p for model in models for p in model.parameters()):
            yield

    @contextmanager
    def micro_batch(self, models: Sequence[nn.Module], last: bool) -> Iterator[None]:
        """Tell the engine whether to reduce, and gather the weights that its own hooks would miss."""
        with deepspeed_internals.micro_batch(self.strategy.deepspeed_engine, models, last):
            yield

    def scale_loss(self, loss: Tensor, model: nn.Module) -> Tensor:
        """Multiply by the number of processes, because DeepSpeed takes the mean of gradients.

        It also waits for a gradient of every trained weight, so those that this process' clips do not use get one of zero.
        """
        zero = sum(weight.sum() for weight in deepspeed_internals.trained_beside_decoder(model))
        return loss * collectives.world_size() + 0 * zero

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Nothing: DeepSpeed reduces gradients in the last micro-batch."""

    def clip_gradients(self, parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
        """The norm before clipping; DeepSpeed clips in its step, to the norm that its config has."""
        norm = deepspeed_internals.gradient_norm(self.strategy.deepspeed_engine)
        norm = torch.as_tensor(norm, device=self.strategy.root_device).float()
        # DeepSpeed says -1 where the gradient is not finite
        return norm if float(norm) >= 0 else torch.full_like(norm, torch.inf)

    def require_equal_modalities(self, modalities: Iterable[str]) -> None:
        """All processes have to use the same modules in a step that Lightning takes, or they wait for each other."""
        by_rank = collectives.all_gather_object(sorted(modalities))
        if any(other != by_rank[0] for other in by_rank):
            raise RuntimeError(
                f"under DeepSpeed every process needs clips of the same modalities in a step; got {by_rank}: set "
                "trainer=fsdp2, or leave a modality out of media.modalities"
            )

    def full_state(self, model: nn.Module) -> dict[str, Tensor] | None:
        """The whole weights, those that are trained in fp32, with the towers that DeepSpeed never had."""
        trained = self.strategy.lightning_module_state_dict()
        with self.whole_weights([model]):
            state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        policy_model: Any = model  # a model without towers is a plain decoder
        towers = policy_model.tower_state() if hasattr(model, "tower_state") else {}
        return towers | {name: trained.get(f"model.{name}", value) for name, value in state.items()}


def sharding_of(trainer: pl.Trainer) -> Sharding:
    """The `Sharding` that the trainer's strategy stands for."""
    strategy = trainer.strategy
    if isinstance(strategy, FSDP):
        return FSDPSharding(trainer, strategy)
    if isinstance(strategy, DeepSpeed):
        return DeepSpeedSharding(strategy)
    return Sharding()
