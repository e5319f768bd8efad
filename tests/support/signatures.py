"""The signatures of experiments and of their variants. `python tests/support/signatures.py` prints them as JSON.

tests/fixtures/signatures.json pins them: a signature names a run's folder, so that a change
of it makes every user's finished runs look undone.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from snapshots import EXPERIMENTS, command_of, composed

from erv import config

FILE = Path(__file__).parents[1] / "fixtures" / "signatures.json"
JUDGES = {
    "vllm": ("judge.vllm.llm.model=m",),
    "openai": (),
    "gpt": (),
    "gemini": ("judge.gemini.llm.model=m",),
    "oracle": (),
    "human": ("judge.human.sheets=[sheet.csv]",),
    "local": ("judge.local.checkpoint=owner/model",),
    "verifier": ("judge.verifier.verifier.checkpoint=owner/model",),
}
DATA = ("mafw", "meld", "merr", "emer", "ravdess", "instructions", "emer_cold_start", "synthetic", "dfew")


def cases():
    """(command, overrides) of each case."""
    for name in EXPERIMENTS:
        yield command_of(name), (f"+exp={name}",)
    for trainer in ("ddp", "fsdp2", "deepspeed_z2", "deepspeed_z3"):
        yield "train", ("+exp=grpo_demo", f"trainer={trainer}")
    for judge, keys in JUDGES.items():
        yield "evaluate", ("+exp=eval_demo", f"+judge@judge.{judge}={judge}", *keys)
    for data in DATA:
        yield "train", ("+exp=sft_demo", f"data={data}")
    for verifier in ("tiny", "bert_large", "roberta_large", "deberta_v3_base", "xlmr_base"):
        yield "train", ("+exp=verifier_roberta", f"verifier={verifier}")
    yield "train", ("+exp=verifier_roberta", "data=labels", "data.taxonomy=dfew")
    for augment in ("light", "strong"):
        yield "train", ("+exp=sft_demo", f"augment={augment}")
    for keys in (("reward=answers",), ("reward.preset=paper",), ("reward.explanation.neutral_filter=margin",)):
        yield "train", ("+exp=grpo_demo", *keys)
    yield "label", ("task.input=x.jsonl",)
    yield "label", ("task=augment", "task.input=x.jsonl", "task.target=9")
    yield "predict", ("clips=x", "taxonomy=[a,b]")


def signatures():
    """The signature of each case, by the command line."""
    signed = {}
    for command, overrides in cases():
        policy = () if "policy.checkpoint" in "".join(overrides) or command == "label" else ("policy.checkpoint=x/y",)
        if "verifier" in overrides[0] or "towers" in overrides[0]:
            policy = ()
        tree = composed(*overrides, *policy, command=command)
        signed[" ".join([command, *overrides])] = config.signature(tree)
    return signed


if __name__ == "__main__":
    print(json.dumps(signatures(), indent=1))
