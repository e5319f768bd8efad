"""Training in several processes that share the policy's weights out among them (trainer=fsdp2).

Torch's fully_shard does it: a process holds its share of the decoder's weights, gradients and optimiser states, and has a
layer's weights together only while it runs that layer. The towers, which GRPO and SFT leave as they are, stay whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from erv.distributed.collectives import broadcast
from erv.distributed.ddp import TOWERS, EndsTogether
from erv.engine.layers import RUN_METHOD, add_run_method

_ROOT = "gather_root"


class Shards(EndsTogether, ModelParallelStrategy):
    """Lightning's strategy for fully_shard over all processes, with checkpoints like those of one process.

    The module shares its parts out in `configure_model` (see `shard`). Gradients come reduced out of the backward pass.
    """

    def __init__(self, timeout_s: float = 600) -> None:
        super().__init__(save_distributed_checkpoint=False, timeout=timedelta(seconds=timeout_s))

    def setup_environment(self) -> None:
        """One mesh of all processes, none of which splits a matrix with another."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole trained weights, on rank 0."""
        return get_model_state_dict(self._module, options=_whole(ignore_frozen_params=True))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state, on rank 0, in the form that torch's own optimisers give."""
        optimizer = getattr(optimizer, "optimizer", optimizer)
        found = get_optimizer_state_dict(self._module, optimizer, options=_whole())
        return _renamed(found, {name: place for place, name in enumerate(self._names(optimizer))}) if found else {}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Each process takes its share of the weights and states of a checkpoint, whichever strategy wrote it."""
        found: dict[str, Any] = self.checkpoint_io.load_checkpoint(checkpoint_path)
        options = StateDictOptions(full_state_dict=True, strict=False)
        set_model_state_dict(self._module, found["state_dict"], options=options)
        for optimizer, state in zip(self.optimizers, found["optimizer_states"], strict=True):
            named = _renamed(state, dict(enumerate(self._names(optimizer))))
            set_optimizer_state_dict(self._module, optimizer, named, options=StateDictOptions(full_state_dict=True))
        return found

    @property
    def _module(self) -> nn.Module:
        if self.lightning_module is None:
            raise RuntimeError("no module is connected to the strategy")
        return self.lightning_module

    def _names(self, optimizer: Optimizer) -> list[str]:
        names = {id(p): name for name, p in self._module.named_parameters()}
        return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def shard(module: pl.LightningModule, models: Iterable[nn.Module | None], mean: bool) -> None:
    """Share the `models` of `module` out where its strategy is `Shards`: the layers of a `language_model` one by one.

    Gradients become the `mean` over the processes, or their sum.
    """
    if (mesh := module.device_mesh) is None:
        return
    mixed = str(module.trainer.precision) == "bf16-mixed"
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if mixed else MixedPrecisionPolicy()
    for model in models:
        if model is not None:
            broadcast([*model.parameters(), *model.buffers()], module.trainer.strategy.root_device)
            _shard(model, mesh["data_parallel"], policy, mean)


def _shard(model: Any, mesh: DeviceMesh, policy: MixedPrecisionPolicy, mean: bool) -> None:
    decoder = getattr(model, "language_model", None)
    for layer in decoder.get_decoder().layers if decoder is not None else ():
        fully_shard(layer, mesh=mesh, mp_policy=policy)
        add_run_method(layer)
        register_fsdp_forward_method(layer, RUN_METHOD)
    whole = {p for name in TOWERS if hasattr(model, name) for p in getattr(model, name).parameters()}
    fully_shard(model, mesh=mesh, mp_policy=policy, ignored_params=whole)
    setattr(model, _ROOT, lambda: None)
    register_fsdp_forward_method(model, _ROOT)
    for unit in _units(model):
        unit.set_force_sum_reduction_for_comms(True)  # gloo knows no other
        if not mean:
            unit.set_gradient_divide_factor(1.0)


def is_sharded(model: nn.Module) -> bool:
    """Whether the processes share the weights of `model` out."""
    return isinstance(model, FSDPModule)


def gather(model: nn.Module) -> None:
    """Before a pass through `model`: have the weights together that belong to no layer. Each process calls it equally often.

    Those that one process' clips have no use for, such as those of a modality they lack, have gradients of zero.
    """
    if not is_sharded(model):
        return
    getattr(model, _ROOT)()
    for parameter in model.parameters() if torch.is_grad_enabled() else ():
        if parameter.requires_grad and parameter.grad is None and not isinstance(parameter, DTensor):
            parameter.grad = torch.zeros_like(parameter)


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Have all weights together for many passes, and for other numbers of them in each process; one gathering for all."""
    if not is_sharded(model):
        yield
        return
    getattr(model, _ROOT)()
    units = _units(model)
    for unit in units:
        unit.unshard()
        _keep(unit, True, unit is model)
    try:
        yield
    finally:
        for unit in units:
            _keep(unit, False, unit is model)
            unit.reshard()


def _keep(unit: FSDPModule, whole: bool, is_root: bool) -> None:
    unit.set_reshard_after_backward(not whole, recurse=False)
    if not is_root:  # whose weights stay until its backward pass in any case
        unit.set_reshard_after_forward(not whole, recurse=False)


def full_state(model: nn.Module) -> dict[str, Tensor] | None:
    """All weights of a sharded `model` on the CPU of rank 0, nothing in the other processes; None for a model that is whole."""
    if not is_sharded(model):
        return None
    return {name: torch.as_tensor(value) for name, value in get_model_state_dict(model, options=_whole()).items()}


def _whole(ignore_frozen_params: bool = False) -> StateDictOptions:
    return StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=ignore_frozen_params)


def _units(model: nn.Module) -> list[FSDPModule]:
    return [unit for unit in model.modules() if isinstance(unit, FSDPModule)]


def _renamed(state: Mapping[str, Any], names: Mapping[Any, Any]) -> dict[str, Any]:
    """An optimiser's state with other keys for its parameters."""
    groups = [{**group, "params": [names[name] for name in group["params"]]} for group in state["param_groups"]]
    return {"state": {names[name]: value for name, value in state["state"].items()}, "param_groups": groups}
