"""Run folders as runs write them, and what is in a page, for the tests of the report."""

import base64
import gzip
import json
import re

import yaml

from erv.evaluation.metrics.summary import MetricSettings, summarise
from erv.taxonomy import DFEW
from erv.types import Prediction, Sentence, Verdict

CLIPS = 40


def prediction(
    i,
    right,
    faithful,
    judge="oracle",
    text="The jaw drops.",
    decoding="sampled",
    gold="sad",
    emotions=("sad", "fear"),
    **other,
):
    """The answer to clip i: every `right`-th answer and every `faithful`-th explanation is right."""
    verdicts = (Verdict(judge, gold if i % faithful == 0 else "fear", "ok"),) if judge else ()
    fields = {
        "clip_id": f"c{i}",
        "gold": gold,
        "text": text,
        "decoding": decoding,
        "think": text,
        "well_formed": True,
        "answer": gold if i % right == 0 else "happy",
        "sentences": (Sentence(text, emotions),) if emotions else (),
        "verdicts": verdicts,
        "tokens": 12,
        "rewards": {"format": 1.0, "explanation": 0.5, "total": 1.5},
    }
    return Prediction(**{**fields, **other})


def write_run(
    root,
    arm,
    seed,
    right=2,
    faithful=4,
    settings=None,
    judge="oracle",
    text="The jaw drops.",
    rows=None,
    labels=DFEW,
    stage="grpo",
    videos=None,
    config=None,
    metrics=None,
):
    """A finished run with `rows` (default: CLIPS sampled and greedy answers); returns its folder."""
    if rows is None:
        rows = [prediction(i, right, faithful, judge, text, d) for i in range(CLIPS) for d in ("sampled", "greedy")]
    settings = settings or {"threshold": 0.1}
    folder = root / arm / f"{seed}-{abs(hash(json.dumps([settings, config], default=str))) % 10**6}"
    (folder / "logs" / "version_0").mkdir(parents=True)
    kinds = dict.fromkeys(p.decoding for p in rows)
    figures = {
        d: summarise([p for p in rows if p.decoding == d], labels, judge, settings=MetricSettings(resamples=200))
        for d in kinds
    }
    clips = {p.clip_id: p.gold for p in rows}
    found = {
        "arm": arm,
        "stage": stage,
        "seed": seed,
        "signature": folder.name,
        "clips": len(clips),
        "judge": judge,
        "evaluation": {"split": "test", "samples": 1, "temperature": 0.7},
        **figures,
        **(metrics or {}),
    }
    (folder / "metrics.json").write_text(json.dumps(found))
    tree = {"seed": seed, "stage": stage, "name": arm, "reward": settings, **(config or {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    (folder / "predictions.jsonl").write_text("".join(json.dumps(p.row()) + "\n" for p in rows))
    lines = [{"id": clip, "video": (videos or {}).get(clip, "gone.mp4"), "label": gold} for clip, gold in clips.items()]
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "logs" / "version_0" / "metrics.csv").write_text("step,train/reward,dev/fcr\n0,1.0,\n1,1.5,0.3\n2,,\n")
    return folder


def unpacked(html, name):
    """The data that the page's scripts unpack."""
    content = re.search(rf'<script type="text/plain" id="packed-{name}">([^<]*)</script>', html).group(1)
    return json.loads(gzip.decompress(base64.b64decode(content)))
