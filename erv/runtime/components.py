"""The objects that a config names, each made once and when it is first wanted, and the stages they are put together in."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from erv import config
from erv.config.schema import PROVIDED
from erv.data.clip_reader import ClipReader
from erv.data.datasets.base import Corpus, refuse_overlap
from erv.data.media.settings import MediaSettings
from erv.distributed.ranks import Ranks
from erv.distributed.strategies import SHARING, strategy
from erv.evaluation.judges.base import Judge
from erv.evaluation.judges.verifier import VerifierJudge
from erv.evaluation.metrics.summary import MetricSettings
from erv.policy.base import Stage as PromptStyle
from erv.policy.policy import Policy
from erv.rationale import compose, sentences
from erv.rewards.composite import CompositeReward
from erv.runs.environment import update_environment
from erv.runs.provenance import reward_verifiers, verifier_sha256
from erv.runs.run import METRICS
from erv.runtime.judges import judges_of, refuse_training_verifier
from erv.runtime.media_audit import Reading
from erv.taxonomy import Taxonomy
from erv.training.datamodule import ClipData, SentenceData, StepData
from erv.training.loggers.local import csv_logger
from erv.training.stage import Stage
from erv.verifier.classifier import Verifier
from erv.verifier.dataset import Sentences
from erv.verifier.metrics import gate

_log = logging.getLogger(__name__)
_STYLE_OF: dict[str, PromptStyle] = {"towers": "sft", "sft": "sft", "grpo": "grpo"}  # how a stage's prompts are written


class Parts:
    """The parts of one run. `tree` is the resolved config with its checkpoint keys replaced by folders."""

    def __init__(self, tree: Mapping[str, Any], folder: Path) -> None:
        self.tree, self.folder = tree, str(folder)
        self.seed, self.group, self.run_name = tree["seed"], tree["group"], f"{tree['name']}-s{tree['seed']}"
        self.ranks = Ranks.of(tree)

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
            node, **{name: getattr(self, name) for name in config.parameters_among(node, PROVIDED) if name not in node}
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
        for warning in labelled.warnings():
            _log.warning("%s", warning)
        return labelled

    @cached_property
    def policy(self) -> Policy:
        """The policy as this stage uses it; its weights' hash goes into env.json."""
        policy: Policy = self.make("policy")
        model = policy.model.widen_trained() if self.tree.get("algo") else policy.model
        # weights that will be shared out need not fit a device as a whole
        for part in model.towers().values() if strategy(self.tree.get("trainer")) in SHARING else (model,):
            part.to(self.device)
        if self.ranks.leads:
            update_environment(Path(self.folder), policy_sha256=policy.sha256())
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
        if not (self.tree.get("verifier") or {}).get("model"):  # a debug preset may set a gate alone
            return None
        _ = self.corpus  # its files may hold the sentences
        verifier: Verifier = self.make("verifier.model")
        verifier.model.to(self.device)
        return verifier

    def note_verifier(self) -> None:
        """Write the hash of the verifier's weights into env.json: an evaluation may not take the same ones for a judge."""
        if self.verifier is not None and self.ranks.leads:
            update_environment(Path(self.folder), verifier_sha256=verifier_sha256(self.verifier))

    @cached_property
    def reward(self) -> CompositeReward:
        """The sum of the rewards in the config."""
        reward: CompositeReward = self.make("reward")
        return reward

    @cached_property
    def settings(self) -> MetricSettings:
        """How figures are counted."""
        settings: MetricSettings = self.make("metrics")
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
            own = {verifier_sha256(self.verifier)} if self.verifier is not None else set()
            refuse_training_verifier(found, own | reward_verifiers(Path(checkpoint).parent if checkpoint else None))
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
    def reading(self) -> Reading:
        """Reads clips as this stage's policy sees them."""
        augment = self.make("augment") if self.tree.get("augment") else None
        reader = ClipReader(self.media, self.policy, augment, self.seed)
        return Reading(Path(self.folder), self.corpus, reader, writes=self.ranks.leads)

    def data(self, stage: Stage) -> StepData:
        """The DataModule that `stage` trains on."""
        if stage.inputs == "sentences":
            rows = len(self.labelled.rows("train"))
            return SentenceData(self.labelled, stage.batch_size, stage.steps(rows), self.seed)
        try:
            stage.check_data(self.corpus.clips("train"))
        except ValueError as error:
            raise config.ConfigError(str(error)) from error
        load = self.reading.rows if stage.inputs == "features" else self.reading.pixels
        loading = self.make("loader") if self.tree.get("loader") else None
        return ClipData(self.corpus, load, stage.batch_size, stage.steps, self.seed, stage.row_length, loading)

    def check_verifier(self) -> None:
        """Refuse to train with a verifier whose held-out scores are too low (UnfitVerifier)."""
        explanation = self.reward.explanation
        if explanation is None or explanation.weight == 0 or not self.tree["verifier"].get("gate"):
            return
        file = Path(self.tree["verifier"]["model"]["checkpoint"]).parent / METRICS
        if not file.is_file():
            _log.warning(
                "the verifier comes without held-out scores, so it cannot be checked; verifier.gate is not applied"
            )
            return
        metrics = json.loads(file.read_text())
        if "baseline" not in metrics:
            _log.warning(
                "the verifier was trained before baselines were measured; verifier.gate.margin_over_baseline is not applied"
            )
        gate(metrics, **self.tree["verifier"]["gate"])
