"""Training through DeepSpeed's ZeRO (trainer=deepspeed_z2, deepspeed_z3).

Stage 2 shares gradients and optimiser states out among the processes, stage 3 the weights too: they come together module by
module while a pass runs, and all at once for a rollout. The towers stay whole. Checkpoints are those of any other trainer.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.precision import DeepSpeedPrecision
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, Strategy
from torch import Tensor, nn
from torch.optim import Optimizer

from erv.distributed import collectives
from erv.distributed.ddp import TOWERS, EndsTogether

_STATES = ("exp_avg", "exp_avg_sq")


class _Precision(DeepSpeedPrecision):
    def convert_input(self, data: Any) -> Any:
        """As it is: a batch is made of clips and their features, which the policy takes in any precision."""
        return data


class Zero(EndsTogether, DeepSpeedStrategy):
    """Lightning's DeepSpeed strategy for a policy, whose steps GRPO takes by hand, with checkpoints like those of one process.

    `zero` goes beside our own settings into "zero_optimization" of DeepSpeed's config. DeepSpeed clips, and leaves out a step
    that is not finite.
    """

    def __init__(self, stage: int, timeout_s: float = 600, zero: Mapping[str, Any] | None = None) -> None:
        config = {
            "train_micro_batch_size_per_gpu": 1,  # for its log alone
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {"stage": stage, **(zero or {})},
        }
        super().__init__(config=config, timeout=timedelta(seconds=timeout_s))

    def setup_environment(self) -> None:
        """As Lightning's, which refuses the CPU that our tests run on."""
        self._precision_plugin = _Precision(self.precision_plugin.precision)
        DDPStrategy.setup_environment(self)

    def setup_distributed(self) -> None:
        """As Lightning's, which looks for the devices' numbers first; a CPU has none."""
        if self.root_device.type == "cpu":  # takes a compiler and minutes to save what tests do not miss
            from deepspeed.ops import __compatible_ops__ as compatible

            compatible["deepspeed_shm_comm"] = False
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    def _format_config(self) -> None:
        config: Any = self.config
        config["gradient_clipping"] = self._policy_module.optim.max_grad_norm
        if str(self.precision_plugin.precision).startswith("bf16"):
            config["bf16"] = {"enabled": True, "check_grad_overflow": True}
        super()._format_config()

    def _setup_model_and_optimizer(self, model: Any, optimizer: Any, lr_scheduler: Any = None) -> Any:
        import deepspeed

        collectives.broadcast([*model.parameters(), *model.buffers()], self.root_device)
        owners = [module for module in model.children() if any(hasattr(module, name) for name in TOWERS)]
        towers = [(owner, name, getattr(owner, name)) for owner in owners for name in TOWERS]
        for owner, name, _ in towers:  # processes run them for other clips at other times
            delattr(owner, name)
        engine, shared, _, _ = deepspeed.initialize(
            args=Namespace(device_rank=self.root_device.index or 0), config=self.config, model=model,
            model_parameters=[p for p in model.parameters() if p.requires_grad], optimizer=optimizer,
            lr_scheduler=lr_scheduler, dist_init_required=False,
        )  # fmt: skip
        if self.zero_stage_3:
            _keep_no_trace(engine)
        for owner, name, tower in towers:
            owner.__dict__[name] = tower.to(self.root_device)  # no part of the module: stage 3 goes through all of its
        return engine, shared

    @property
    def _policy_module(self) -> Any:
        if self.lightning_module is None:
            raise RuntimeError("no module is connected to the strategy")
        return self.lightning_module

    @property
    def _zero(self) -> Any:
        return self.deepspeed_engine.optimizer

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self._policy_module.named_parameters() if p.requires_grad}

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole trained weights in fp32, on rank 0."""
        from deepspeed.utils import safe_get_full_fp32_param

        found = {name: safe_get_full_fp32_param(p) for name, p in self._trained().items()}
        return {name: value.cpu() for name, value in found.items()} if self.is_global_zero else {}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state, on rank 0, in the form that torch's own AdamW gives."""
        from deepspeed.utils import safe_get_full_optimizer_state

        base, trained = self._zero.optimizer, self._trained()
        step = next((state["step"] for state in base.state.values() if "step" in state), None)
        states: dict[int, Any] = {}
        for place, parameter in enumerate(trained.values()) if step is not None else ():
            found = {name: safe_get_full_optimizer_state(parameter, name).cpu() for name in _STATES}
            states[place] = {"step": torch.as_tensor(step).clone(), **found}
        group = {
            **{k: v for k, v in base.param_groups[0].items() if k != "params"},
            "params": list(range(len(trained))),
        }
        return {"state": states, "param_groups": [group]} if self.is_global_zero else {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """One file, by rank 0."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Each process takes its share of the weights and states of a checkpoint, whichever strategy wrote it."""
        from deepspeed.runtime.zero import GatheredParameters

        found: dict[str, Any] = self.checkpoint_io.load_checkpoint(checkpoint_path)
        (saved,) = found["optimizer_states"]
        base, states = self._zero.optimizer, saved["state"]
        if states:
            for flat in self._flats():
                step = torch.as_tensor(next(iter(states.values()))["step"]).clone()
                base.state[flat] = {"step": step, **{name: torch.zeros_like(flat) for name in _STATES}}
            if not self.zero_stage_3:
                self._zero._lazy_init_hp_params_optimizer_state()
        for place, (name, parameter) in enumerate(self._trained().items()):
            value = found["state_dict"][name].to(self.root_device)
            self._set(parameter, value, None)
            for key in _STATES if states else ():
                self._set(parameter, states[place][key].to(self.root_device), key)
            with GatheredParameters([parameter], modifier_rank=0):
                parameter.data.copy_(value)
        for group in base.param_groups:
            group.update({key: value for key, value in saved["param_groups"][0].items() if key != "params"})
        return found

    def _flats(self) -> list[Tensor]:
        zero = self._zero
        return list(zero.fp32_partitioned_groups_flat if self.zero_stage_3 else zero.single_partition_of_fp32_groups)

    def _set(self, parameter: Any, value: Tensor, key: str | None) -> None:
        """This process' part of the fp32 weights (`key` None) or of a state."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        value = value.float()
        if self.zero_stage_3:  # DeepSpeed's own way takes no number of weights that does not divide by the processes'
            part, _ = self._zero._get_fp32_opt_state_partition(
                parameter, release_swap_buffers=False, optim_state_key=key
            )
            own = value.flatten()[part.numel() * self.global_rank :][: part.numel()]
            part.data[: own.numel()].copy_(own)
        elif key is None:
            safe_set_full_fp32_param(parameter, value)
        else:
            safe_set_full_optimizer_state(parameter, value, key)

    def gradient_norm(self) -> Tensor:
        """Of the whole gradient before clipping, after the last pass of a step; infinite if it is not finite."""
        from deepspeed.runtime.utils import combine_grad_norm_groups

        zero = self._zero
        norm = combine_grad_norm_groups(zero._get_norm_groups()) if self.zero_stage_3 else zero.scaled_global_norm()
        found = torch.as_tensor(norm, device=self.root_device).float()
        return found if float(found) >= 0 else torch.full_like(found, math.inf)


def _keep_no_trace(engine: Any) -> None:
    """Stage 3 writes the order of modules down, to fetch ahead, and ends a run whose processes differ in it.

    Those of a rollout do: each has as many as the tokens of its longest answer.
    """
    coordinator = engine.optimizer.parameter_offload.get_param_coordinator()

    def forget(*_: Any) -> None:
        if coordinator.is_record_trace():
            coordinator._invalidate_trace()

    engine.module.register_forward_pre_hook(forget)  # behind DeepSpeed's own, which begins to write


def strategy_of(module: pl.LightningModule) -> Zero | None:
    """The module's strategy if it is ZeRO."""
    found = module.trainer.strategy
    return found if isinstance(found, Zero) else None
