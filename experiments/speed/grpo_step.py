"""One GRPO step, timed: the same work through our engine, TRL's GRPOTrainer, or the released loop's computation.

    python grpo_step.py --engine erv --prompts 4 --group 8 --prompt-len 256 --completion-len 64 --steps 3 --threads 1 --json
    python grpo_step.py --engine released --model humanomni --prompts 4 --group 8 --completion-len 64

The last line is one JSON object with medians per step. Text: Qwen2 of 5.6 M parameters, fp32, fixed prompt ids, forced
completion length, beta 0.04, AdamW. humanomni: the tiny policy with clips of the embedded corpus; our engine has its
tower cache on, the released computation gets its clips decoded.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path
from typing import Any


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("erv", "trl", "released"), required=True)
    parser.add_argument("--model", choices=("qwen2", "humanomni"), default="qwen2")
    for name, default in (("prompts", 4), ("group", 8), ("prompt-len", 256), ("completion-len", 64), ("steps", 3),
                          ("warm-up", 1), ("threads", 1)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--micro-prompts", type=int, help="prompts per micro-batch of erv and trl; default: all")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    given = parser.parse_args()
    if given.engine == "trl" and given.model != "qwen2":
        parser.error("--engine trl takes --model qwen2: TRL's trainer does not know HumanOmni")
    if given.model == "humanomni" and {"--prompt-len", "--micro-prompts"} & set(sys.argv):
        parser.error(
            "--prompt-len and --micro-prompts belong to --model qwen2: with humanomni the clip sets the length"
        )
    return given


def main() -> None:
    """Run and report."""
    given = arguments()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(given.threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.set_num_threads(given.threads)
    if given.json:
        _hush()
    size = (given.group, given.completion_len, given.warm_up + given.steps)
    clock = (_text if given.model == "qwen2" else _clips)(given, *size)
    tokens = given.prompts * given.group * given.completion_len
    about = {k: v for k, v in vars(given).items() if k not in ("json", "steps", "warm_up")}
    print(clock.report(given.warm_up, tokens, **about))


def _text(given: argparse.Namespace, group: int, length: int, steps: int) -> Any:
    import grpo_text

    ids = grpo_text.prompt_ids(given.prompts, given.prompt_len)
    model = grpo_text.qwen2(given.prompt_len + length)
    if given.engine == "trl":
        import grpo_trl

        return grpo_trl.run(model, ids, group, length, steps, group * (given.micro_prompts or given.prompts))
    policy = grpo_text.TextPolicy(grpo_text.TextModel(model), grpo_text.TextProcessor(given.prompt_len))
    if given.engine == "erv":
        import grpo_erv

        budget = (given.micro_prompts or given.prompts) * (given.prompt_len + group * length)
        return grpo_erv.run(policy, grpo_text.samples(ids), (), grpo_text.EvenReward(), group, length, steps, budget)
    import grpo_released

    return grpo_released.run(
        policy.model, given.prompts, lambda m, b: m.embed(grpo_text.Batch(ids[b : b + 1]))[0], policy.processor.decode,
        lambda texts: [grpo_text.even_share(t) for t in texts], grpo_text.NEVER, group, length, steps,
    )  # fmt: skip


def _clips(given: argparse.Namespace, group: int, length: int, steps: int) -> Any:
    import grpo_clips

    policy, samples, media = grpo_clips.load(given.prompts)
    if given.engine == "erv":
        import grpo_erv

        return grpo_erv.run(policy, samples, grpo_clips.MODALITIES, grpo_clips.LengthReward(), group, length, steps)
    import grpo_released

    return grpo_released.run(
        policy.model, given.prompts, grpo_clips.encoder(policy, media), policy.processor.decode,
        lambda texts: [float(len(t)) for t in texts], policy.processor.eos_ids[0], group, length, steps,
    )  # fmt: skip


def _hush() -> None:
    import logging

    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "transformers", "trl", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
