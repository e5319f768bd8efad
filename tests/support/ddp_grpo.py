"""GRPO on letters in one process of a few: each case trains, and leaves behind what can be compared.

python ddp_grpo.py STRATEGY FOLDER RANK SIZE PORT…; a port for each case, and one for what the processes tell each other.
"""

import os
import sys
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from text_policy import Model, Reward, TwoRewards, decoder, prompts, train
from torch.distributed.device_mesh import init_device_mesh
from torch.profiler import profile

from erv.distributed import collectives, fsdp
from erv.distributed.ddp import DDP
from erv.distributed.deepspeed import DeepSpeed
from erv.engine.generate import rollout
from erv.training.validation import Means

BATCHES = [prompts(6, step) for step in range(3)]


def value(text, gold):
    return sum(letter in "aei" for letter in text) / max(len(text), 1)


def value_of_few(text, gold):
    """Clips 0 to 2, which are the first rank's, and 4 always earn the same."""
    return value(text, gold) if gold in ("3", "5") else 0.5


def broken():
    """Clip 5, which the last rank has, breaks the second step's gradient."""
    return [BATCHES[0], prompts(6, 1, noise=[0.0] * 5 + [torch.nan]), BATCHES[2]]


CASES = {
    "plain": (BATCHES, lambda: Reward(value), {}),
    "cut": (BATCHES, lambda: Reward(value), {"token_budget": 40, "updates": 3, "loss": "dapo"}),
    "batch": (BATCHES, lambda: TwoRewards(value), {"scale": "batch", "mask_overlong": True}),
    "sums": (BATCHES, lambda: TwoRewards(value), {"normalise_then_sum": True, "loss": "cispo"}),
    "left_out": (BATCHES, lambda: Reward(value_of_few), {"zero_spread": "leave_out"}),
    "again": (BATCHES, lambda: Reward(value_of_few), {"zero_spread": "resample"}),
    "short": (BATCHES, lambda: Reward(value), {"ends": tuple(range(1, 9)), "max_new_tokens": 24}),
    "nothing": (BATCHES, lambda: Reward(lambda text, gold: 1.0), {"zero_spread": "leave_out"}),
    "broken": (broken(), lambda: Reward(value), {"max_nonfinite": 2, "verify_shared_prefix": False}),
}

STRATEGIES = {
    "ddp": DDP,
    "fsdp2": fsdp.FSDP,
    "deepspeed_z2": partial(DeepSpeed, 2),
    # else all of so small a model would stay whole
    "deepspeed_z3": partial(DeepSpeed, 3, zero={"stage3_param_persistence_threshold": 0}),
}


def forget_groups():
    """DeepSpeed remembers the process groups of the case before."""
    if groups := sys.modules.get("deepspeed.utils.groups"):
        sys.modules["deepspeed.comm.comm"].cdb = None
        for name, value in vars(groups).items():
            if isinstance(value, dist.ProcessGroup):
                setattr(groups, name, None)


def run(strategy, folder, rank, size, ports):
    torch.set_num_threads(1)
    for (name, (batches, reward, settings)), port in zip(CASES.items(), ports, strict=True):
        if size > 1:
            os.environ |= {"LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_PORT": port}
            forget_groups()
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        # rounding must not decide where a gradient is nothing but that
        algo = train(batches, reward(), place, lr=1e-3, share=(rank, size), strategy=STRATEGIES[strategy], **settings)
        rows = [[row["clip_id"], row["text"], row["reward"], row["advantage"]] for row in algo.completions]
        kept = {
            "weights": algo.weights, "gradients": algo.gradients, "logged": algo.logged, "singles": algo.singles,
            "rows": rows,
        }  # fmt: skip
        torch.save(kept, place / f"rank{rank}.pt")


def tell(rank, port):
    """What GRPO on letters has no use for: rows of unequal number, weights that some or all processes do not use."""
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    rows = torch.full((2 - rank, 3), 1.0 + rank, requires_grad=True)  # the last process' part is the shorter one
    everything = collectives.all_gather_rows(rows)
    assert everything[:, 0].tolist() == [1.0, 1.0, 2.0]
    everything.square().sum().backward()
    assert rows.grad.flatten().tolist() == [2 * 2 * (1.0 + rank)] * rows.numel()  # twice: averaged later
    assert collectives.all_gather_rows(torch.zeros(3 * rank, 2)).shape == (3, 2)
    used, mine, nobodys = (torch.nn.Parameter(torch.zeros(size, size)) for size in (2, 3, 4))
    used.grad = torch.full((2, 2), 1.0 + rank).t()
    if rank == 1:
        mine.grad = torch.ones(3, 3)
    collectives.all_reduce_gradients([used, mine, nobodys], mean=True)
    assert (used.grad[0, 0], mine.grad[0, 0], nobodys.grad) == (1.5, 0.5, None)
    means = Means("loss")
    if rank == 0:
        means.update({"loss": torch.tensor(3.0)}, 2)
    assert means.compute() == {"loss": 3.0}
    gathers(init_device_mesh("cpu", (2,)))
    dist.destroy_process_group()


def gathers(mesh):
    """Weights that are shared out come together once per rollout, however many tokens it has."""
    model = Model(decoder())
    fsdp.shard(model, mesh, torch.device("cpu"), mixed_precision=False, mean_gradients=False)
    counts = []
    for tokens in (1, 5):
        embeds = torch.zeros(2, 3, 32)
        with profile() as seen, fsdp.whole_weights(model):
            found = rollout(model.language_model, embeds, torch.ones(2, 3), 4, tokens, [-1], 0, seeds=[1, 2])
        assert found.tokens.shape == (8, tokens)
        counts.append(sum(event.count for event in seen.key_averages() if event.key.startswith("c10d::")))
    assert counts == [3, 3]  # two layers, and the rest


if __name__ == "__main__":
    strategy, place, number, size, *ports = sys.argv[1:]
    run(strategy, Path(place), int(number), int(size), ports[:-1])
    tell(int(number), ports[-1])
