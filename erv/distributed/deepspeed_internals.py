"""The parts of DeepSpeed that are not public: every private name that ERV uses is in this file.

`require_tested_version` refuses a DeepSpeed whose internals nobody has compared with what is used here. The tests of
tests/distributed compare training under ZeRO with training in one process, and have to pass before a version is added.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from erv.errors import ConfigError

TESTED_VERSION = "0.19"
ADAM_STATES = ("exp_avg", "exp_avg_sq")  # torch's names
_KEEP_GATHERED = -1  # stands among the ids of the modules that use a weight; none of them then releases it


def require_tested_version() -> None:
    """Raise ConfigError for a DeepSpeed with whose internals this file has not been tested."""
    installed = version("deepspeed")
    if ".".join(installed.split(".")[:2]) != TESTED_VERSION:
        raise ConfigError(
            f"trainer=deepspeed_z2 and deepspeed_z3 use internals of DeepSpeed, which are tested with {TESTED_VERSION}; "
            f"{installed} is installed: pip install 'deepspeed=={TESTED_VERSION}.*', or set trainer=fsdp2"
        )


def skip_shared_memory_extension() -> None:
    """Do not let DeepSpeed compile its CPU communication kernels: that takes a compiler and minutes, for tests alone."""
    from deepspeed.ops import __compatible_ops__ as compatible

    compatible["deepspeed_shm_comm"] = False


def record_no_trace(engine: Any) -> None:
    """Keep stage 3 from recording the order in which modules run.

    It prefetches weights by that trace, and raises when processes differ in it. They do in a rollout, where each runs as many
    forward passes as its longest completion has tokens.
    """
    coordinator = engine.optimizer.parameter_offload.get_param_coordinator()

    def forget(*_: Any) -> None:
        if coordinator.is_record_trace():
            coordinator._invalidate_trace()

    engine.module.register_forward_pre_hook(forget)  # runs after DeepSpeed's own hook, which begins to record


@contextmanager
def micro_batch(engine: Any, models: Sequence[nn.Module], last: bool) -> Iterator[None]:
    """One forward and backward pass by hand through `models`, of which the first is trained; reduce gradients if `last`."""
    engine.set_gradient_accumulation_boundary(last)
    # the engine clears it in its own forward, which GRPO bypasses; without this gradients would not add up
    engine.optimizer.clear_backward_seen_flag()
    direct = [weight for model in models for weight in _used_without_a_call(model.language_model)]
    with whole_weights([*direct, *trained_beside_decoder(models[0])]):
        yield


@contextmanager
def whole_weights(weights: Iterable[nn.Parameter]) -> Iterator[None]:
    """Gather those of `weights` that stage 3 shards, and keep modules that use them meanwhile from releasing them.

    May be nested: weights that are gathered already are left to the outer context.
    """
    sharded: list[Any] = [p for p in weights if hasattr(p, "ds_id")]
    missing = [p for p in sharded if _KEEP_GATHERED not in p.ds_active_sub_modules]
    if not missing:
        yield
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters(missing):
        for parameter in missing:
            parameter.ds_active_sub_modules.add(_KEEP_GATHERED)
        try:
            yield
        finally:
            for parameter in missing:
                parameter.ds_active_sub_modules.clear()


def _used_without_a_call(decoder: Any) -> list[nn.Parameter]:
    """Weights that erv.engine reads from their modules without calling these, so that no hook gathers them."""
    norms = [p for module in decoder.modules() if type(module).__name__.endswith("Norm") for p in module.parameters()]
    return [decoder.get_output_embeddings().weight, *norms]


def trained_beside_decoder(model: nn.Module) -> list[nn.Parameter]:
    """The trained weights of projectors and the like, which a clip without their modality does not use."""
    return [p for name, p in model.named_parameters() if p.requires_grad and not name.startswith("language_model.")]


def gradient_norm(engine: Any) -> Any:
    """The norm of the whole gradient before clipping, after the last micro-batch; -1 if it is not finite."""
    from deepspeed.runtime.utils import combine_grad_norm_groups

    zero = engine.optimizer
    if engine.zero_optimization_partition_weights():
        return combine_grad_norm_groups(zero._get_norm_groups())
    return zero.scaled_global_norm()


def create_adam_states(engine: Any, step: Tensor) -> None:
    """Give the optimizer zero moments at `step`: before the first step it has none that a checkpoint could be loaded into."""
    zero = engine.optimizer
    stage_3 = engine.zero_optimization_partition_weights()
    for flat in zero.fp32_partitioned_groups_flat if stage_3 else zero.single_partition_of_fp32_groups:
        zero.optimizer.state[flat] = {"step": step.clone(), **{name: torch.zeros_like(flat) for name in ADAM_STATES}}
    if not stage_3:
        zero._lazy_init_hp_params_optimizer_state()


def set_fp32_partition(engine: Any, parameter: Any, value: Tensor, state: str | None, rank: int) -> None:
    """Write this process' part of a whole `value` into the fp32 weights (`state` None) or into an Adam state."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    value = value.float()
    if engine.zero_optimization_partition_weights():
        # DeepSpeed's own setter refuses a weight whose size does not divide by the number of processes
        part, _ = engine.optimizer._get_fp32_opt_state_partition(
            parameter, release_swap_buffers=False, optim_state_key=state
        )
        local = value.flatten()[part.numel() * rank :][: part.numel()]
        part.data[: local.numel()].copy_(local)  # the last process' part may be padded
    elif state is None:
        safe_set_full_fp32_param(parameter, value)
    else:
        safe_set_full_optimizer_state(parameter, value, state)
