"""What configs looked like before: names that changed, keys that came later, defaults that moved.

The config.yaml of an older run is read with today's names (`modern`). A run is signed with the names and keys it would have had
at first (`as_first_signed`), so that what is finished stays finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What older configs call a component -> its public name. New components have no entry.
RENAMED_TARGETS = {
    "erv.corpora.dfew.DFEWCorpus": "erv.data.DFEW",
    "erv.corpora.instructions.InstructionCorpus": "erv.data.Instructions",
    "erv.corpora.loose.LooseClips": "erv.data.ClipFiles",
    "erv.corpora.mafw.MAFWCorpus": "erv.data.MAFW",
    "erv.corpora.manifest.ManifestCorpus": "erv.data.Manifest",
    "erv.corpora.meld.MELDCorpus": "erv.data.MELD",
    "erv.corpora.mer.EMERCorpus": "erv.data.EMER",
    "erv.corpora.mer.MERRCorpus": "erv.data.MERR",
    "erv.corpora.mixture.Mixture": "erv.data.Mixture",
    "erv.corpora.ravdess.RAVDESSCorpus": "erv.data.RAVDESS",
    "erv.corpora.synthetic.SyntheticCorpus": "erv.data.Synthetic",
    "erv.corpora.text.LabelsCorpus": "erv.data.LabelsOnly",
    "erv.grpo.corrections.Correction": "erv.grpo.ImportanceCorrection",
    "erv.grpo.objective.Objective": "erv.grpo.Objective",
    "erv.grpo.sampling.Sampling": "erv.engine.Sampling",
    "erv.judges.api.APIJudge": "erv.evaluation.APIJudge",
    "erv.judges.human.HumanJudge": "erv.evaluation.HumanJudge",
    "erv.judges.local.LocalJudge": "erv.evaluation.LocalJudge",
    "erv.judges.oracle.Oracle": "erv.evaluation.OracleJudge",
    "erv.judges.verifier.VerifierJudge": "erv.evaluation.VerifierJudge",
    "erv.lit.data.Loading": "erv.training.DataLoading",
    "erv.lit.ddp.Replicas": "erv.distributed.DDP",
    "erv.lit.fsdp.Shards": "erv.distributed.FSDP",
    "erv.lit.grpo.GRPO": "erv.training.GRPO",
    "erv.lit.logging.csv_logger": "erv.training.csv_logger",
    "erv.lit.logging.tensorboard_logger": "erv.training.tensorboard_logger",
    "erv.lit.optim.Optim": "erv.training.Optimizer",
    "erv.lit.sft.SFT": "erv.training.SFT",
    "erv.lit.towers.TowerWarmup": "erv.training.TowerWarmup",
    "erv.lit.verifier.VerifierTraining": "erv.training.VerifierTraining",
    "erv.lit.wandb_run.WandbRun": "erv.training.WandbLogger",
    "erv.lit.zero.Zero": "erv.distributed.DeepSpeed",
    "erv.llm.price.Price": "erv.llm.Price",
    "erv.measure.Evaluation": "erv.evaluation.EvaluationSettings",
    "erv.media.augment.Augment": "erv.data.Augmentation",
    "erv.media.settings.MediaSettings": "erv.data.MediaSettings",
    "erv.metrics.summary.Settings": "erv.evaluation.MetricSettings",
    "erv.pseudo.augmentation.Augmentation": "erv.labeling.TextAugmentation",
    "erv.pseudo.labelling.Labelling": "erv.labeling.Labeler",
    "erv.rewards.answer.AnswerReward": "erv.rewards.AnswerReward",
    "erv.rewards.explanation.ExplanationReward": "erv.rewards.ExplanationReward",
    "erv.rewards.format.FormatReward": "erv.rewards.FormatReward",
    "erv.rewards.total.TotalReward": "erv.rewards.CompositeReward",
    "erv.verifier.noise.Noise": "erv.verifier.LabelNoise",
}
# Keys that came later, with the default that older runs had without them: as long as they keep it, they change no signature.
ADDED: dict[str, Any] = {
    "verifier.data.formats": {name: name for name in ("goemotions", "brighter", "meld", "emobank")},
    "verifier.data.on_unknown": "error",
    "verifier.model.pooling": None,
    **dict.fromkeys(
        (f"verifier.data.files.{name}" for name in ("table", "goemotions", "brighter", "meld", "emobank")),
    ),
}
# Keys whose default has changed without changing what a run computes: the new default is signed as the old one was.
RENEWED: dict[str, tuple[Any, Any]] = {
    "verifier.gate": (
        {"margin_over_baseline": 0.0, "macro_f1": None, "labels_per_sentence": None},
        {"macro_f1": 0.95, "labels_per_sentence": 1.2},
    ),
}


def modern(tree: Any) -> Any:
    """A copy of a config in which every component has its public name."""
    return _renamed(tree, RENAMED_TARGETS)


def first_named(tree: Any) -> Any:
    """A copy of a config in which every component has the first name that it ever had."""
    return _renamed(tree, {public: older for older, public in RENAMED_TARGETS.items()})


def as_first_signed(tree: Any) -> Any:
    """A copy of a config as signatures are made of it: with first names, without keys that came later and have their default."""
    tree = first_named(tree)
    for dotted, default in ADDED.items():
        node, key = _parent(tree, dotted)
        if key in node and node[key] == default:
            del node[key]
    for dotted, (new, old) in RENEWED.items():
        node, key = _parent(tree, dotted)
        if key in node and node[key] == new:
            node[key] = old
    return tree


def _parent(tree: Any, dotted: str) -> tuple[dict[str, Any], str]:
    """The node that has the last key of a dotted name, an empty one where there is none; and that key."""
    *parents, key = dotted.split(".")
    for parent in parents:
        tree = tree.get(parent) if isinstance(tree, Mapping) else None
    return (tree if isinstance(tree, dict) else {}), key


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    if isinstance(node, Mapping):
        return {
            key: names.get(value, value) if key == "_target_" and isinstance(value, str) else _renamed(value, names)
            for key, value in node.items()
        }
    return [_renamed(item, names) for item in node] if isinstance(node, list | tuple) else node
