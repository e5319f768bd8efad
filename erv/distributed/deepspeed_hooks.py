"""What a pass through a policy needs under ZeRO (see zero.py), whose hooks know of modules that are called, and of nothing else.

Without ZeRO, all of this does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn

from erv.distributed import collectives
from erv.distributed.deepspeed import strategy_of

_HELD = -1  # stands among the modules that use a weight, and keeps it whole


def summed(module: Any, loss: Tensor) -> Tensor:
    """The loss of a pass whose gradients are to be summed over the processes: DeepSpeed takes their mean.

    It counts on a gradient of every trained weight, also of those that one process' clips have no use for.
    """
    if strategy_of(module) is None:
        return loss
    return loss * collectives.size() + 0 * sum(weight.sum() for weight in _beside_decoder(module.model))


def refuse_uneven(module: pl.LightningModule, modalities: Iterable[str]) -> None:
    """RuntimeError if processes have clips of other `modalities` in a step that Lightning takes."""
    if strategy_of(module) is None:
        return
    found = collectives.gathered(sorted(modalities))
    if any(other != found[0] for other in found):
        raise RuntimeError(
            f"under DeepSpeed every process needs clips of the same modalities in a step; got {found}: set trainer=fsdp2, or "
            "leave a modality out of media.modalities"
        )


@contextmanager
def one_pass(module: Any, last: bool) -> Iterator[None]:
    """A pass with gradients, which are averaged over the processes; the `last` one of a step or not."""
    if (strategy := strategy_of(module)) is None:
        yield
        return
    strategy.deepspeed_engine.set_gradient_accumulation_boundary(last)
    strategy.deepspeed_engine.optimizer.clear_backward_seen_flag()  # as at each forward pass of its own: gradients add up
    models = [model for model in (module.model, module.reference) if model is not None]
    directly = [weight for model in models for weight in _used_directly(model.language_model)]
    with held([*directly, *_beside_decoder(module.model)]):
        yield


@contextmanager
def whole(module: Any) -> Iterator[None]:
    """Have all weights of the policy together for many passes; one gathering for all."""
    with held(module.model.parameters() if strategy_of(module) is not None else ()):
        yield


@contextmanager
def held(weights: Iterable[nn.Parameter]) -> Iterator[None]:
    """Have those of the `weights` together that stage 3 shares out; modules that use them in between do not let go of them."""
    shared: list[Any] = [p for p in weights if hasattr(p, "ds_id")]
    parts = [p for p in shared if _HELD not in p.ds_active_sub_modules]
    if not parts:
        yield
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters(parts):
        for part in parts:
            part.ds_active_sub_modules.add(_HELD)
        try:
            yield
        finally:
            for part in parts:
                part.ds_active_sub_modules.clear()


def _used_directly(decoder: Any) -> list[nn.Parameter]:
    """Weights that layers.py and rollout.py take out of their modules, which then cannot fetch them."""
    norms = [p for module in decoder.modules() if type(module).__name__.endswith("Norm") for p in module.parameters()]
    return [decoder.get_output_embeddings().weight, *norms]


def _beside_decoder(model: nn.Module) -> list[nn.Parameter]:
    return [p for name, p in model.named_parameters() if p.requires_grad and not name.startswith("language_model.")]


def full_state(module: Any) -> dict[str, Tensor] | None:
    """All weights of the module's model on the CPU of rank 0, those that are trained in fp32; None without ZeRO."""
    strategy = strategy_of(module)
    if strategy is None:
        return None
    trained = strategy.lightning_module_state_dict()
    with whole(module):
        found = {name: value.detach().cpu().clone() for name, value in module.model.state_dict().items()}
    towers = module.model.tower_state() if hasattr(module.model, "tower_state") else {}
    return towers | {name: trained.get(f"model.{name}", value) for name, value in found.items()}
