"""The objects that a config names, each made once and when it is first wanted, and the stages they are put together in."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from erv import config, lineage
from erv.corpora.base import Corpus, refuse_overlap
from erv.durable import file_sha256, write_lines
from erv.emotions import Taxonomy
from erv.judges.base import Judge
from erv.judges.verifier import VerifierJudge
from erv.judging import refuse_training_verifier, rewarding, weights_of
from erv.lit.data import ClipData, SentenceData, StepData
from erv.lit.logging import csv_logger
from erv.lit.samples import ClipReader, Sample, Samples
from erv.measure import LONGEST, Evaluation, judges_of
from erv.media.defects import Note, as_row, tally
from erv.media.journal import fingerprint
from erv.media.settings import MediaSettings
from erv.metrics.summary import Settings
from erv.policy import Policy
from erv.policy.prompts import Stage
from erv.ranks import SHARING, Ranks, strategy
from erv.rationale import compose, sentences
from erv.records import Clip
from erv.rewards.total import TotalReward
from erv.run import MEDIA, METRICS, find_model, note_environment
from erv.verifier import Sentences, Verifier, gate

_log = logging.getLogger(__name__)
# What constructors may ask for by the name of a parameter; no config key is needed for these.
PROVIDED = ("policy", "verifier", "reward", "judge", "taxonomy", "optim", "modalities", "seed", "texts", "labels",
            "verifier_labels", "sentences", "folder", "run_name", "group", "resolved")  # fmt: skip
_STYLE_OF: dict[str, Stage] = {"towers": "sft", "sft": "sft", "grpo": "grpo"}  # how a stage's prompts are written
CHECKPOINTS = ("policy.checkpoint", "verifier.model.checkpoint")  # keys that may point at other runs


class Parts:
    """The parts of one run. `tree` is the resolved config with its checkpoint keys replaced by folders."""

    def __init__(self, tree: Mapping[str, Any], folder: Path) -> None:
        self.tree, self.folder = tree, str(folder)
        self.seed, self.group, self.run_name = tree["seed"], tree["group"], f"{tree['name']}-s{tree['seed']}"
        self.ranks = Ranks.of(tree)
        self.notes: list[Note] = []
        self._readers: dict[str, ClipReader] = {}
        self._splits: dict[str, dict[str, Any]] = {}

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the policy sees of a clip."""
        return tuple(self.media.modalities)

    def identity(self) -> dict[str, Any]:
        """Which run this is, for metrics.json."""
        tree = self.tree
        return {"arm": tree["name"], "stage": tree["stage"], "seed": self.seed, "signature": Path(self.folder).name}

    @property
    def resolved(self) -> Mapping[str, Any]:
        """The whole config."""
        return self.tree

    def loggers(self) -> list[Any]:
        """Where curves go: wherever `logger` says, and always into the run's folder, since erv.report reads them there."""
        chosen = self.tree.get("logger") or {}
        found = [self.make(f"logger.{key}") for key in chosen]
        return found if "csv" in chosen else [csv_logger(self.folder), *found]

    def make(self, key: str) -> Any:
        """Build the node at `key`, with what its constructor asks for."""
        node: Any = self.tree
        for part in key.split("."):
            node = node[part]
        return config.build(
            node, **{name: getattr(self, name) for name in config.wanted(node, PROVIDED) if name not in node}
        )

    @property
    def device(self) -> str:
        """Where towers run and answers are sampled outside training."""
        accelerator = (self.tree.get("trainer") or {}).get("accelerator")
        return "cuda" if torch.cuda.is_available() and accelerator != "cpu" else "cpu"

    @cached_property
    def corpus(self) -> Corpus:
        """The corpus, its files made where they can be."""
        corpus: Corpus = self.make("data")
        corpus.prepare()
        return corpus

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The label set of the corpus."""
        return self.corpus.taxonomy

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in their order."""
        return self.taxonomy.labels

    @property
    def verifier_labels(self) -> tuple[str, ...] | None:
        """The labels of the verifier, which need not be the corpus' own."""
        return self.verifier.labels if self.verifier else None

    @cached_property
    def optim(self) -> Any:
        """Optimiser and schedule."""
        return self.make("optim")

    @property
    def texts(self) -> list[str]:
        """What the policy will read and write, for a tokenizer of its own; train split only."""
        return [compose(clip.rationale, clip.label) for clip in self.corpus.clips("train") if clip.rationale]

    @property
    def sentences(self) -> list[str]:
        """The verifier's training sentences, for a tokenizer of its own."""
        return [row["text"] for row in self.labelled.rows("train")]

    @cached_property
    def labelled(self) -> Sentences:
        """The verifier's training set; refused when it was written about evaluation clips."""
        _ = self.corpus  # its files may hold the sentences
        try:
            labelled: Sentences = self.make("verifier.data")
            refuse_overlap(self.corpus, labelled.clips, "verifier.data.files")
            for split in ("train", "heldout"):
                if not labelled.rows(split):
                    raise ValueError(
                        f"verifier.data has no {split} rows; raise verifier.data.{split} or give more rows"
                    )
        except ValueError as error:
            raise config.ConfigError(str(error)) from error
        return labelled

    @cached_property
    def policy(self) -> Policy:
        """The policy as this stage uses it; its weights' hash goes into env.json."""
        policy: Policy = self.make("policy")
        model = policy.model
        # weights that will be shared out need not fit a device as a whole
        for part in (
            (model.vision_tower, model.audio_tower) if strategy(self.tree.get("trainer")) in SHARING else (model,)
        ):
            part.to(self.device)
        if self.ranks.leads:
            note_environment(Path(self.folder), policy_sha256=policy.sha256())
        return policy.at(_STYLE_OF.get(self.tree["stage"], "inference"))

    def policy_of(self, state: Mapping[str, Tensor]) -> Policy:
        """One like this stage's policy with the weights `state`, in its place: that one lies in parts on several devices."""
        policy: Policy = self.make("policy")
        policy.model.load_state_dict(state)
        policy.model.to(self.device)
        self.__dict__["policy"] = policy.at(_STYLE_OF.get(self.tree["stage"], "inference"))
        return self.policy

    @cached_property
    def verifier(self) -> Verifier | None:
        """The verifier; None without one in the config."""
        if not self.tree.get("verifier"):
            return None
        _ = self.corpus  # its files may hold the sentences
        verifier: Verifier = self.make("verifier.model")
        verifier.model.to(self.device)
        return verifier

    def note_verifier(self) -> None:
        """Write the hash of the verifier's weights into env.json: an evaluation may not take the same ones for a judge."""
        if self.verifier is not None and self.ranks.leads:
            note_environment(Path(self.folder), verifier_sha256=weights_of(self.verifier))

    @cached_property
    def reward(self) -> TotalReward:
        """The sum of the rewards in the config."""
        reward: TotalReward = self.make("reward")
        return reward

    @cached_property
    def settings(self) -> Settings:
        """How figures are counted."""
        settings: Settings = self.make("metrics")
        try:
            settings.require(self.taxonomy)
        except ValueError as error:
            raise config.ConfigError(str(error)) from error
        return settings

    @cached_property
    def taught(self) -> frozenset[str]:
        """The sentences of the training rationales: what a policy may have learnt by heart."""
        thinks = [clip.rationale for clip in self.corpus.clips("train") if clip.rationale]
        return frozenset(sentence for think in thinks for sentence in sentences(think))

    @cached_property
    def judges(self) -> list[Judge]:
        """Who reads explanations in evaluation; ConfigError for one that cannot, or may not."""
        _ = self.corpus  # its files may hold what a judge reads
        found = judges_of(self.tree, self.taxonomy)
        if any(isinstance(judge, VerifierJudge) for judge in found):
            checkpoint = (self.tree.get("policy") or {}).get("checkpoint")
            own = {weights_of(self.verifier)} if self.verifier is not None else set()
            refuse_training_verifier(found, own | rewarding(Path(checkpoint).parent if checkpoint else None))
        return found

    @property
    def judge(self) -> Judge | None:
        """Who reads explanations while a policy trains: the first judge that is free of charge."""
        return next((judge for judge in self.judges if judge.free), None)

    @cached_property
    def media(self) -> MediaSettings:
        """How clips are read."""
        settings: MediaSettings = self.make("media")
        return settings

    @cached_property
    def reader(self) -> ClipReader:
        """Reads clips as this stage's policy sees them."""
        augment = self.make("augment") if self.tree.get("augment") else None
        return ClipReader(self.media, self.policy, augment, self.seed)

    def samples(self, clips: list[Clip], policy: Policy | None = None) -> Samples:
        """The usable ones of `clips`, as `policy` (default: this stage's) sees them outside training."""
        reader = self.reader
        if policy is not None and policy.processor.identity() != self.policy.processor.identity():
            reader = self._readers.setdefault(policy.processor.identity(), ClipReader(self.media, policy))
        found = reader.samples(clips)
        self._note(reader, clips)
        return found

    def _load(self, clips: list[Clip], training: bool) -> Samples:
        found = self.reader.samples(clips, training)
        self._note(self.reader, clips)
        return found

    def _pixels(self, clips: list[Clip], training: bool) -> list[Sample]:
        found = self.reader.pixels(clips)
        self._note(self.reader, clips)
        return found

    def _note(self, reader: ClipReader, clips: Sequence[Clip]) -> None:
        """Write down what was left out or masked (media.jsonl), and which bytes the clips are (env.json, as the doctor does)."""
        known = set(self.notes)
        self.notes += [note for note in reader.notes if note not in known]
        if not self.ranks.leads:
            return
        write_lines(Path(self.folder) / MEDIA, [as_row(note) for note in self.notes])
        for split in {clip.split for clip in clips} - self._splits.keys():
            mine = [clip for clip in clips if clip.split == split]
            names = ((self.corpus.identity(c), reader.hashes.of(c.video, c.audio)) for c in mine)
            self._splits[split] = {"clips": len(mine), "sha256": fingerprint(names)}
            data = {"corpus": self.corpus.name, "digest": self.corpus.digest(), **self._splits}
            note_environment(Path(self.folder), data=data)

    def media_tally(self) -> dict[str, Any]:
        """What was left out, masked or repeated, by split: to stand next to every figure."""
        splits = dict.fromkeys(note.split for note in self.notes)
        return {split: tally(n for n in self.notes if n.split == split) for split in splits}

    def data(self, algo: Any) -> StepData:
        """The DataModule that `algo` trains on."""
        if algo.data == "sentences":
            return SentenceData(self.labelled, algo.batch_size, algo.steps(len(self.labelled.rows("train"))), self.seed)
        if hasattr(algo, "require"):
            try:
                algo.require(self.corpus.clips("train"))
            except ValueError as error:
                raise config.ConfigError(str(error)) from error
        load = self._load if algo.data == "features" else self._pixels
        loading = self.make("loader") if self.tree.get("loader") else None
        length = getattr(algo, "length", None)
        return ClipData(self.corpus, load, algo.batch_size, algo.steps, self.seed, length, loading)

    def note_training(self, model: str, clips: Sequence[Clip]) -> None:
        """Write beside a model what it, and those it was made from, were trained on."""
        start = (self.tree.get("policy") or {}).get("checkpoint") if clips else None
        seen = [self.corpus.identity(clip) for clip in clips]
        if not clips:  # a verifier: the clips that its sentences are about
            seen = [c if "/" in c else f"{self.corpus.name}/{c}" for c in self.labelled.clips]
        before = (lineage.read(start) if start else None) or []
        own = lineage.Training(self.tree["stage"], Path(self.folder).name, tuple(sorted(set(seen))))
        lineage.write(model, [*before, own])

    def refuse_leaks(self) -> None:
        """ConfigError (or, by choice, a warning) when a model of this run was trained on clips that it is evaluated on."""
        plan: Evaluation = self.make("evaluation")
        evaluated = {self.corpus.identity(clip) for clip in self.corpus.clips(plan.split)[: plan.limit]}
        for key in CHECKPOINTS:
            group, *rest = key.split(".")
            node: Any = self.tree.get(group) or {}
            for name in rest:
                node = (node or {}).get(name)
            known = lineage.read(node) if node else []
            if known is None:
                _log.warning("nobody knows what %s=%s was trained on: it may have seen the evaluation clips", key, node)
            for line in lineage.shared(known or [], evaluated):
                message = f"the evaluation clips are no clean test of {key}={node}: {line}"
                if plan.on_leak == "error":
                    raise config.ConfigError(
                        f"{message}; use other weights or another fold, or set evaluation.on_leak=warn"
                    )
                _log.warning("%s", message)

    def check_verifier(self) -> None:
        """Refuse to train with a verifier whose held-out scores are too low (UnfitVerifier)."""
        explanation = self.reward.explanation
        if explanation is None or explanation.weight == 0 or not self.tree["verifier"].get("gate"):
            return
        metrics = Path(self.tree["verifier"]["model"]["checkpoint"]).parent / METRICS
        if not metrics.is_file():
            _log.warning(
                "the verifier comes without held-out scores, so it cannot be checked; verifier.gate is not applied"
            )
            return
        gate(json.loads(metrics.read_text())["heldout"], **self.tree["verifier"]["gate"])


def resolve_checkpoints(tree: dict[str, Any]) -> dict[str, str]:
    """Replace references to other runs in `tree` by model folders; returns what each is, for the signature."""
    identities = {}
    for key in CHECKPOINTS:
        *parents, last = key.split(".")
        node: Any = tree
        for parent in parents:
            node = (node or {}).get(parent)
        if node and node.get(last):
            node[last], identities[key] = find_model(node[last], tree["seed"])
    return identities


def training_config(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the run that trained the policy of `tree`; empty for weights that come from elsewhere."""
    policy = (tree.get("policy") or {}).get("checkpoint")
    file = Path(find_model(policy, tree["seed"])[0]).parent / "config.yaml" if policy else None
    return yaml.safe_load(file.read_text()) or {} if file is not None and file.is_file() else {}


def answer_length(tree: Mapping[str, Any]) -> int:
    """The most tokens of an answer where `tree` does not say: as in the policy's training, else the default."""
    trained = training_config(tree).get("evaluation") or {}
    return int(trained.get("max_new_tokens") or LONGEST)


def adopt_verifier(tree: dict[str, Any]) -> dict[str, str]:
    """Where `tree` names no verifier, take that of the policy's training, and its reward; returns what it is, for the signature.

    So that an evaluation reads sentences as the training did, without being told where the verifier lies.
    """
    trained = {} if tree.get("verifier") else training_config(tree)
    model = ((trained.get("verifier") or {}).get("model") or {}).get("checkpoint")
    if not model or not trained.get("reward"):
        return {}
    if not Path(model).is_dir():
        _log.warning("the verifier of the policy's training is not at %s, so no verifier reads the explanations", model)
        return {}
    tree["verifier"], tree["reward"] = trained["verifier"], trained["reward"]
    _log.info("explanations are read by the verifier of the policy's training, %s", model)
    return {"adopted": Path(model).parent.name}


def training_files(tree: Mapping[str, Any]) -> dict[str, str]:
    """The hashes of the verifier's training files, for the signature; those of the corpus itself are known by the corpus."""
    files = ((tree.get("verifier") or {}).get("data") or {}).get("files") or {}
    root = tree["data"].get("root")
    own = {n: Path(file) for n, file in files.items() if file and not (root and Path(root) in Path(file).parents)}
    return {f"verifier.data.files.{name}": file_sha256(file) for name, file in own.items() if file.is_file()}
