"""`python -m erv.predict CLIP… checkpoint=RUN`: print a policy's answers to clips, with the emotions of every sentence.

A CLIP is a file or a folder of files. With `gold=LABEL` the rewards are shown, `output=json` prints one object per answer. It
runs the code of the evaluation, and writes nothing but the cache of tower outputs.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from erv import config
from erv.cli.command import command
from erv.errors import ConfigError
from erv.utils.sanitize import visible

if TYPE_CHECKING:
    from erv.types import Prediction

# options of Hydra that are followed by a value
_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--config-name", "-cn", "--config-path", "-cp", "--config-dir", "-cd")


@command("predict")
def main(cfg: DictConfig) -> None:
    """Generate and print answers to the clips that `cfg` names."""
    if cfg.output not in ("panel", "json"):
        raise ConfigError(f"output is panel or json, got {cfg.output!r}")
    if cfg.policy.get("checkpoint") is None:
        raise ConfigError("set checkpoint=RUN: the policy's run, a folder of runs, a model's folder or a hub id")
    for prediction in predict(cfg):
        if cfg.output == "json":
            print(json.dumps(as_object(prediction), ensure_ascii=False), flush=True)
        else:
            show(prediction)


def predict(cfg: DictConfig) -> Iterator[Prediction]:
    """Generate the policy's answers batch by batch, with the verifier's emotions and the rewards."""
    from erv.config.schema import PROVIDED
    from erv.evaluation.annotate import add_rewards
    from erv.evaluation.generate import generate_predictions
    from erv.runs.resolve import adopt_verifier, resolve_checkpoints, training_config
    from erv.runtime.components import Parts
    from erv.runtime.planning import disk_errors
    from erv.runtime.run_context import answer_length
    from erv.runtime.session import quiet
    from erv.taxonomy import DFEW, MAFW

    tree = config.plain(cfg)
    trained = training_config(tree)
    corpus, media = tree["data"], tree["media"]
    # what the command line leaves open is as in the policy's training: the label set, the modalities, the length
    if corpus["taxonomy"] is None:
        taxonomy = config.build(trained["data"]).taxonomy if trained.get("data") else DFEW
        corpus["taxonomy"] = taxonomy.name if taxonomy in (DFEW, MAFW) else list(taxonomy.labels)
    media["modalities"] = media["modalities"] or (trained.get("media") or {}).get("modalities") or ["video", "audio"]
    if tree["evaluation"]["max_new_tokens"] is None:
        tree["evaluation"]["max_new_tokens"] = answer_length(tree)
    adopt_verifier(tree)
    config.check(tree, PROVIDED)
    quiet(tree)
    with disk_errors(), tempfile.TemporaryDirectory() as folder:  # in place of a run's folder
        config.build(corpus).require()
        resolve_checkpoints(tree)
        parts = Parts(tree, Path(folder))
        settings, policy = parts.make("evaluation"), parts.policy.at("inference")
        samples = parts.reading.samples(parts.corpus.clips("test")[: settings.limit], policy)
        for start in range(0, len(samples), settings.batch_size):
            batch = samples[start : start + settings.batch_size]
            for decoding in settings.decodings:
                predictions = generate_predictions(
                    policy, batch, parts.modalities, settings, decoding, parts.taxonomy, parts.seed
                )
                for of_batch in predictions:
                    yield from add_rewards(of_batch, parts.reward)


def as_object(prediction: Prediction) -> dict[str, Any]:
    """The object that `output=json` prints: the fields of predictions.jsonl, without those that only an evaluation fills."""
    row = prediction.row()
    del row["verdicts"]
    return row if prediction.gold else {k: v for k, v in row.items() if k not in ("gold", "rewards")}


def show(prediction: Prediction) -> None:
    """Print an answer as a panel: its sentences with the emotions that the verifier finds in them, its label, the rewards."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    text = Text()
    for sentence in prediction.sentences:
        text.append(f"{visible(sentence.text)} ")
        text.append(", ".join(sentence.emotions), style="bold cyan")
        text.append("\n")
    if not prediction.sentences:
        text.append(f"{visible(prediction.think or prediction.text)}\n")
    text.append("\nanswer  ", style="dim")
    right = None if not prediction.gold else prediction.answer == prediction.gold
    text.append(
        prediction.answer or "no label of the list",
        style="bold" if right is None else "bold green" if right else "bold red",
    )
    if prediction.gold:
        text.append(f"   gold {prediction.gold}", style="dim")
        rewards = "  ".join(f"{name} {'-' if v is None else f'{v:.2f}'}" for name, v in prediction.rewards.items())
        text.append(f"\nrewards  {rewards}", style="dim")
    if not prediction.well_formed:
        text.append("\nthe answer has not the form <think>…</think><answer>…</answer>", style="yellow")
    sample = f", sample {prediction.sample}" if prediction.decoding == "sampled" else ""
    title = Text(f"{visible(prediction.clip_id)} ({prediction.decoding}{sample})")
    Console().print(Panel(text, title=title, title_align="left"))


def with_clips(arguments: Sequence[str]) -> list[str]:
    """Turn bare arguments, and those that exist as a file, into Hydra's `clips=[…]`."""
    option_values = {i + 1 for i, argument in enumerate(arguments) if argument in _WITH_VALUE}
    candidates = [a for i, a in enumerate(arguments) if i not in option_values and not a.startswith("-")]
    clips = [a for a in candidates if "=" not in a or Path(a).exists()]
    if not clips:
        return list(arguments)
    quoted = ",".join("'" + clip.replace("\\", "\\\\").replace("'", "\\'") + "'" for clip in clips)
    return [*(a for a in arguments if a not in clips), f"clips=[{quoted}]"]


def start() -> None:
    """Run the command; bare arguments are clips, the others Hydra's."""
    sys.argv[1:] = with_clips(sys.argv[1:])
    main()


if __name__ == "__main__":
    start()
