"""Training in several processes that shard the policy's weights among them (trainer=fsdp2), by torch's `fully_shard`.

A process holds its part of the decoder's weights, gradients and optimizer states, and gathers a layer's weights only while it
runs that layer. The towers, which GRPO and SFT do not train, stay whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

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
from erv.distributed.ddp import TOWERS, EndsRanksTogether
from erv.engine.layers import RUN_METHOD, add_run_method

_GATHER_ROOT = (
    "gather_root"  # name of an empty method of the root module, whose call makes FSDP gather the root's weights
)


class FSDP(EndsRanksTogether, ModelParallelStrategy):
    """Lightning's strategy for `fully_shard` over all processes, with checkpoints like those of one process.

    The module shards its models in `configure_model` (see `erv.distributed.sharding`).

    Args:
        timeout_s: how long a rank waits for the others before it fails, which ends all of them.
    """

    def __init__(self, timeout_s: float = 600) -> None:
        super().__init__(save_distributed_checkpoint=False, timeout=timedelta(seconds=timeout_s))

    def setup_environment(self) -> None:
        """Make one data-parallel mesh of all processes; no tensor parallelism."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole trained weights, on rank 0."""
        return get_model_state_dict(self._module, options=_full_state_options(ignore_frozen_params=True))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole optimizer state, on rank 0, in the form of torch's own optimizers (parameters by number)."""
        optimizer = getattr(optimizer, "optimizer", optimizer)
        state = get_optimizer_state_dict(self._module, optimizer, options=_full_state_options())
        numbers = {name: number for number, name in enumerate(self._parameter_names(optimizer))}
        return _rename_parameters(state, numbers) if state else {}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load this process' part of the weights and states of a checkpoint, whichever strategy wrote it."""
        checkpoint: dict[str, Any] = self.checkpoint_io.load_checkpoint(checkpoint_path)
        # a checkpoint has the trained parts only
        options = StateDictOptions(full_state_dict=True, strict=False)
        set_model_state_dict(self._module, checkpoint["state_dict"], options=options)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            state = _rename_parameters(state, dict(enumerate(self._parameter_names(optimizer))))
            set_optimizer_state_dict(self._module, optimizer, state, options=StateDictOptions(full_state_dict=True))
        return checkpoint

    @property
    def _module(self) -> nn.Module:
        if self.lightning_module is None:
            raise RuntimeError("no module is connected to the strategy")
        return self.lightning_module

    def _parameter_names(self, optimizer: Optimizer) -> list[str]:
        """The names of the optimizer's parameters, in its order."""
        names = {id(p): name for name, p in self._module.named_parameters()}
        return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def shard(model: Any, mesh: DeviceMesh, device: torch.device, mixed_precision: bool, mean_gradients: bool) -> None:
    """Shard the layers of `model.language_model` one by one and everything else but the towers as the root unit.

    All processes get rank 0's weights first. With `mixed_precision` passes run in bf16 and gradients are reduced in fp32.
    Gradients become the mean over the processes, or their sum.
    """
    broadcast([*model.parameters(), *model.buffers()], device)
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if mixed_precision else MixedPrecisionPolicy()
    decoder = getattr(model, "language_model", None)
    for layer in decoder.get_decoder().layers if decoder is not None else ():
        fully_shard(layer, mesh=mesh, mp_policy=policy)
        add_run_method(layer)  # the engine runs a layer by a method of its own, which has to gather its weights too
        register_fsdp_forward_method(layer, RUN_METHOD)
    towers = {p for name in TOWERS if hasattr(model, name) for p in getattr(model, name).parameters()}
    fully_shard(model, mesh=mesh, mp_policy=policy, ignored_params=towers)
    setattr(model, _GATHER_ROOT, lambda: None)
    register_fsdp_forward_method(model, _GATHER_ROOT)
    for unit in _units(model):
        unit.set_force_sum_reduction_for_comms(True)  # gloo has no mean
        if not mean_gradients:
            unit.set_gradient_divide_factor(1.0)


def gather_root(model: nn.Module) -> None:
    """Gather the weights of a sharded `model` that belong to no layer, before a pass; a collective operation.

    Trained weights that are not sharded and that this pass may not use, such as those of a modality that this process' clips
    lack, get gradients of zero.
    """
    getattr(model, _GATHER_ROOT)()
    for parameter in model.parameters() if torch.is_grad_enabled() else ():
        if parameter.requires_grad and parameter.grad is None and not isinstance(parameter, DTensor):
            parameter.grad = torch.zeros_like(parameter)


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Gather all weights of a sharded `model` once, for any number of passes."""
    getattr(model, _GATHER_ROOT)()
    units = _units(model)
    for unit in units:
        unit.unshard()
        _set_reshard(unit, False, is_root=unit is model)
    try:
        yield
    finally:
        for unit in units:
            _set_reshard(unit, True, is_root=unit is model)
            unit.reshard()


def _set_reshard(unit: FSDPModule, reshard: bool, is_root: bool) -> None:
    """Whether a unit releases its weights after a pass."""
    unit.set_reshard_after_backward(reshard, recurse=False)
    if not is_root:  # the root keeps its weights until its backward pass in any case
        unit.set_reshard_after_forward(reshard, recurse=False)


def full_state(model: nn.Module) -> dict[str, Tensor]:
    """All weights of a sharded `model` on the CPU of rank 0; nothing on the other ranks."""
    state = get_model_state_dict(model, options=_full_state_options())
    return {name: torch.as_tensor(value) for name, value in state.items()}


def _full_state_options(ignore_frozen_params: bool = False) -> StateDictOptions:
    return StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=ignore_frozen_params)


def _units(model: nn.Module) -> list[FSDPModule]:
    return [unit for unit in model.modules() if isinstance(unit, FSDPModule)]


def _rename_parameters(state: Mapping[str, Any], names: Mapping[Any, Any]) -> dict[str, Any]:
    """An optimizer's state dict with other keys for its parameters."""
    groups = [{**group, "params": [names[name] for name in group["params"]]} for group in state["param_groups"]]
    return {"state": {names[name]: value for name, value in state["state"].items()}, "param_groups": groups}
