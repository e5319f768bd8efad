"""Training through DeepSpeed's ZeRO (trainer=deepspeed_z2, deepspeed_z3).

Stage 2 shards gradients and optimizer states among the processes, stage 3 the weights too: they are gathered module by module
while a pass runs, and all at once for a rollout. The towers stay whole. Checkpoints are those of any other trainer.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.plugins.precision import DeepSpeedPrecision
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, Strategy
from torch import nn
from torch.optim import Optimizer

from erv.distributed import collectives, deepspeed_internals
from erv.distributed.ddp import TOWERS, EndsRanksTogether
from erv.distributed.deepspeed_internals import ADAM_STATES


class _Precision(DeepSpeedPrecision):
    def convert_input(self, data: Any) -> Any:
        """Leave a batch as it is: it holds clips and their features, which the policy takes in any precision."""
        return data


class DeepSpeed(EndsRanksTogether, DeepSpeedStrategy):
    """Lightning's DeepSpeed strategy for a policy whose steps GRPO takes by hand, with checkpoints like those of one process.

    DeepSpeed itself clips gradients and skips a step whose gradient is not finite.

    Args:
        stage: ZeRO stage, 2 or 3.
        timeout_s: how long a rank waits for the others before it fails, which ends all of them.
        zero: further keys of "zero_optimization" in DeepSpeed's config.
    """

    def __init__(self, stage: int, timeout_s: float = 600, zero: Mapping[str, Any] | None = None) -> None:
        config = {
            "train_micro_batch_size_per_gpu": 1,  # DeepSpeed asks for it, and uses it in its log alone
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {"stage": stage, **(zero or {})},
        }
        super().__init__(config=config, timeout=timedelta(seconds=timeout_s))

    def setup_environment(self) -> None:
        """As Lightning's, which refuses the CPU that the tests run on."""
        deepspeed_internals.require_tested_version()
        self._precision_plugin = _Precision(self.precision_plugin.precision)
        DDPStrategy.setup_environment(self)

    def setup_distributed(self) -> None:
        """As Lightning's, which asks for the number of the device first; a CPU has none."""
        if self.root_device.type == "cpu":
            deepspeed_internals.skip_shared_memory_extension()
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    def _format_config(self) -> None:
        config: Any = self.config
        config["gradient_clipping"] = self._stage_module.optim.max_grad_norm
        if str(self.precision_plugin.precision).startswith("bf16"):
            config["bf16"] = {"enabled": True, "check_grad_overflow": True}
        super()._format_config()

    def _setup_model_and_optimizer(self, model: Any, optimizer: Any, lr_scheduler: Any = None) -> Any:
        import deepspeed

        collectives.broadcast([*model.parameters(), *model.buffers()], self.root_device)
        # The towers are no part of the module while DeepSpeed wraps it, or after: processes run them for other clips at other
        # times, and stage 3 gathers whatever it finds in the module.
        owners = [module for module in model.children() if any(hasattr(module, name) for name in TOWERS)]
        towers = [(owner, name, getattr(owner, name)) for owner in owners for name in TOWERS]
        for owner, name, _ in towers:
            delattr(owner, name)
        engine, zero_optimizer, _, _ = deepspeed.initialize(
            args=Namespace(device_rank=self.root_device.index or 0),
            config=self.config,
            model=model,
            model_parameters=[p for p in model.parameters() if p.requires_grad],
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            dist_init_required=False,
        )
        if self.zero_stage_3:
            deepspeed_internals.record_no_trace(engine)
        for owner, name, tower in towers:
            owner.__dict__[name] = tower.to(self.root_device)  # past nn.Module's own setattr, which would register it
        return engine, zero_optimizer

    @property
    def _stage_module(self) -> Any:
        if self.lightning_module is None:
            raise RuntimeError("no module is connected to the strategy")
        return self.lightning_module

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self._stage_module.named_parameters() if p.requires_grad}

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole trained weights in fp32, on rank 0."""
        from deepspeed.utils import safe_get_full_fp32_param

        weights = {name: safe_get_full_fp32_param(p) for name, p in self._trained().items()}  # a collective operation
        return {name: value.cpu() for name, value in weights.items()} if self.is_global_zero else {}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole optimizer state, on rank 0, in the form that torch's own AdamW gives."""
        from deepspeed.utils import safe_get_full_optimizer_state

        adam, trained = self.deepspeed_engine.optimizer.optimizer, self._trained()
        step = next((state["step"] for state in adam.state.values() if "step" in state), None)
        states: dict[int, Any] = {}
        for number, parameter in enumerate(trained.values()) if step is not None else ():
            moments = {name: safe_get_full_optimizer_state(parameter, name).cpu() for name in ADAM_STATES}
            states[number] = {"step": torch.as_tensor(step).clone(), **moments}
        group = {
            **{key: value for key, value in adam.param_groups[0].items() if key != "params"},
            "params": list(range(len(trained))),
        }
        return {"state": states, "param_groups": [group]} if self.is_global_zero else {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Write one file, by rank 0, instead of DeepSpeed's folder of shards."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load this process' part of the weights and states of a checkpoint, whichever strategy wrote it."""
        from deepspeed.runtime.zero import GatheredParameters

        checkpoint: dict[str, Any] = self.checkpoint_io.load_checkpoint(checkpoint_path)
        (saved,) = checkpoint["optimizer_states"]
        engine, states = self.deepspeed_engine, saved["state"]
        if states:
            deepspeed_internals.create_adam_states(engine, torch.as_tensor(next(iter(states.values()))["step"]))
        for number, (name, parameter) in enumerate(self._trained().items()):
            weight = checkpoint["state_dict"][name].to(self.root_device)
            deepspeed_internals.set_fp32_partition(engine, parameter, weight, None, self.global_rank)
            for key in ADAM_STATES if states else ():
                moment = states[number][key].to(self.root_device)
                deepspeed_internals.set_fp32_partition(engine, parameter, moment, key, self.global_rank)
            with GatheredParameters([parameter], modifier_rank=0):  # the weights that passes use, beside those in fp32
                parameter.data.copy_(weight)
        for group in engine.optimizer.optimizer.param_groups:
            group.update({key: value for key, value in saved["param_groups"][0].items() if key != "params"})
        return checkpoint
