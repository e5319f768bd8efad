"""The verifier against transformers.pipeline("text-classification") on the same sentences, at one thread.

    python experiments/speed/verifier.py RUN [--sentences 4000] [--only verifier|pipeline|pipeline32]

RUN is a GRPO run of erv.train: the first sentences that its policy wrote, in order and with their repetitions, are what is
scored. The model has RoBERTa-base's shape and random weights. CPU seconds are of this process; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, pipeline

from erv.rationale import parse, sentences
from erv.taxonomy import GOEMOTIONS
from erv.verifier import Verifier
from erv.verifier.tokenizer import train_tokenizer


def written(run: Path, count: int) -> tuple[list[str], int]:
    """The first `count` sentences of completions.parquet, and how many stand in one iteration."""
    rows = pq.read_table(run / "completions.parquet").to_pylist()
    per_row = [(row["iter"], sentences(parse(row["text"]).think or "")) for row in rows]
    first = per_row[0][0]
    found = [sentence for _, group in per_row for sentence in group]
    if len(found) < count:
        raise SystemExit(f"{run} holds {len(found)} sentences, {count} are asked for")
    return found[:count], sum(len(group) for number, group in per_row if number == first)


def build(texts: list[str]) -> Verifier:
    """A verifier of RoBERTa-base's shape with random weights and a tokenizer for these texts."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "roberta", num_labels=len(GOEMOTIONS.labels), max_position_embeddings=514, vocab_size=50265, type_vocab_size=1,
        pad_token_id=1, problem_type="multi_label_classification", id2label=dict(enumerate(GOEMOTIONS.labels)),
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config).eval()
    return Verifier(model, train_tokenizer(texts, vocab_size=30_000), GOEMOTIONS.labels)


def by_pipeline(verifier: Verifier, texts: list[str], batch_size: int) -> np.ndarray:
    """Probabilities `[S, E]` as the pipeline gives them."""
    ask = pipeline(
        "text-classification", model=verifier.model, tokenizer=verifier.tokenizer, top_k=None, function_to_apply="sigmoid",
        batch_size=batch_size, device=-1,
    )  # fmt: skip
    rows = [{entry["label"]: entry["score"] for entry in found} for found in ask(texts)]
    return np.array([[row[label] for label in verifier.labels] for row in rows], np.float32)


def by_steps(verifier: Verifier, texts: list[str], step: int) -> np.ndarray:
    """Probabilities as training asks for them: the sentences of one iteration at a time."""
    return np.concatenate([verifier(texts[i : i + step]) for i in range(0, len(texts), step)])


def main() -> None:
    """Measure, compare, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--sentences", type=int, default=4000)
    parser.add_argument("--only", choices=["verifier", "pipeline", "pipeline32"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    texts, step = written(given.run, given.sentences)
    verifier = build(texts)
    ways = {
        "verifier": lambda: by_steps(verifier, texts, step),
        "pipeline": lambda: by_pipeline(verifier, texts, 1),
        "pipeline32": lambda: by_pipeline(verifier, texts, 32),
    }
    verifier.model(**verifier.tokenizer(texts[:4], padding=True, return_tensors="pt"))  # the first call pays for set-up
    found, result = {}, {"sentences": len(texts), "distinct": len(set(texts)), "per_step": step}
    for name, way in ways.items():
        if given.only in (None, name):
            began, wall = time.process_time(), time.perf_counter()
            found[name] = way()
            result |= {
                f"{name}_cpu_s": round(time.process_time() - began, 1), f"{name}_wall_s": round(time.perf_counter() - wall, 1)
            }  # fmt: skip
            print(json.dumps(result), flush=True)
    for name in set(found) - {"verifier"}:
        if "verifier" in found:
            result[f"{name}_largest_difference"] = float(np.abs(found[name] - found["verifier"]).max())
            result[f"{name}_times"] = round(result[f"{name}_cpu_s"] / result["verifier_cpu_s"], 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
