"""`python -m erv.label task.input=FILE`: training text for the verifier, labelled (task=pseudo) or written (task=augment) by an
LLM behind an OpenAI-compatible endpoint.

`dry_run=true` says what it would cost and sends nothing. The same command again goes on where it was interrupted: every reply is
on disk before the next one is asked for. `mode=batch` writes request files for the Batch API, and with `results=[FILES]` reads
what it answered.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from tqdm import tqdm

from erv import config
from erv.cli.command import command
from erv.config.composition import overrides
from erv.data.datasets.base import refuse_overlap
from erv.errors import ConfigError, UserError
from erv.labeling.augmentation import TextAugmentation
from erv.labeling.labeler import Labeler
from erv.llm.batch_api import ForeignResults, read_results, write_requests
from erv.llm.client import Chat, CircuitOpen
from erv.llm.pricing import estimate
from erv.llm.reply_cache import Reply
from erv.runs.run import Run
from erv.utils.io import file_sha256, write_lines

_log = logging.getLogger(__name__)
LABELS = "labels.jsonl"  # in the run's folder
Task = Labeler | TextAugmentation


@command("label")
def main(cfg: DictConfig) -> None:
    """Label or write what `cfg` describes."""
    config.check(cfg)
    tree = config.plain(cfg)
    task: Task = config.build(tree["task"])
    _refuse_evaluation_clips(tree, task)
    chat: Chat = config.build(tree["llm"])
    signature = config.signature(cfg, {"task.input": file_sha256(tree["task"]["input"])})
    run = Run(Path(tree["paths"]["runs"]) / tree["group"] / tree["name"] / signature)
    if tree["dry_run"]:
        print(f"{_cost(chat, task)}. Nothing was sent (dry_run=true).")
    elif run.done:
        _log.info("done already: %s", run.folder)
    else:
        with run.open(tree, overrides(), devices=False):
            _label(run, tree, task, chat)


def _label(run: Run, tree: dict[str, Any], task: Task, chat: Chat) -> None:
    """Ask the model and write labels.jsonl; the run is finished only if few enough texts failed."""
    if tree["mode"] == "batch":
        if not isinstance(task, Labeler):
            raise ConfigError("mode=batch answers in a day, and augmentation asks in rounds; set mode=now")
        if not _exchange_batches(run, tree, task, chat):
            return
    elif tree["mode"] != "now":
        raise ConfigError(f"mode is now or batch, got {tree['mode']!r}")
    _log.info("%s", _cost(chat, task))
    rows, summary = _ask(task, chat)
    write_lines(run.folder / LABELS, [{**row, "labelled_by": chat.model} for row in rows])
    calls = chat.ledger()
    summary |= {"calls": calls.calls, "retries": calls.retries, "interrupted_calls": calls.interrupted}
    failed = summary.get("status", {}).get("failed", 0)
    if failed > tree["max_failed"] * max(len(rows), 1):
        sys.exit(
            f"erv.label: {failed} of {len(rows)} texts failed, see 'reason' in {run.folder / LABELS}; the same command again "
            "asks for those only, max_failed=SHARE accepts them"
        )
    run.finish({"arm": tree["name"], "stage": "label", "model": chat.model, **summary})
    print("\n".join(f"{key}: {value}" for key, value in summary.items()))
    _log.info("done: %s", run.folder)


def _ask(task: Task, chat: Chat) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run the task with a progress bar that shows the replies and their cost."""
    with tqdm(total=len(chat.unanswered(task.questions())), desc="asking", unit="reply") as bar:

        def on_reply(_: Reply) -> None:
            bar.total = max(bar.total or 0, bar.n + 1)  # the number of later rounds' requests is not known in advance
            bar.update()
            if chat.price.is_known:
                bar.set_postfix_str(f"{chat.spent:.4f} USD")

        try:
            return task.run(chat, on_reply)
        except CircuitOpen as error:
            raise UserError(
                f"{error}\n  {bar.n} replies of this start are kept; the same command again goes on with the rest"
            ) from error


def _exchange_batches(run: Run, tree: dict[str, Any], task: Labeler, chat: Chat) -> bool:
    """Read result files into the cache, then write request files for what is unanswered; returns whether nothing is."""
    try:
        failed = read_results(chat, task.questions(), [Path(f) for f in tree["results"]], task.validate)
    except (ForeignResults, ValueError, OSError) as error:
        raise UserError(f"results: {error}") from error
    for reason in sorted(set(failed.values())):
        _log.warning("%d results: %s", sum(r == reason for r in failed.values()), reason)
    files = write_requests(chat, task.questions(), run.folder)
    if not files:
        return True
    listed = "\n  ".join(map(str, files))
    print(
        f"{_cost(chat, task)}. Upload these as batches for /v1/chat/completions, then run the same command with "
        f"results=[FILE,…]:\n  {listed}"
    )
    return False


def _cost(chat: Chat, task: Task) -> str:
    """Describe what the unanswered questions will cost."""
    unanswered = chat.unanswered(task.questions())
    cached = len({chat.key(q) for q in task.questions()}) - len(unanswered)
    cost = estimate(((chat.body(q), q.expected_tokens) for q in unanswered.values()), chat.price)
    first_round = (
        "; that is the first round of writing, before the second calls" if isinstance(task, TextAugmentation) else ""
    )
    return f"{chat.model}: {cost}; {cached} replies are known already{first_round}"


def _refuse_evaluation_clips(tree: dict[str, Any], task: Task) -> None:
    """Refuse texts about evaluation clips: the verifier's judgement of the policy must not have been trained on them."""
    if not task.clips:
        return
    if not tree.get("data"):
        _log.warning(
            "texts name clips but no corpus is given (data=NAME), so nobody checks that none is an evaluation clip"
        )
        return
    corpus = config.build(tree["data"])
    try:
        corpus.require()
        corpus.prepare()
        refuse_overlap(corpus, task.clips, str(tree["task"]["input"]))
    except ValueError as error:
        raise ConfigError(str(error)) from error


if __name__ == "__main__":
    main()
