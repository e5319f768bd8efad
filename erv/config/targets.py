"""What a config's `_target_` may name: the public classes and functions of ERV, and classes of Lightning and torch.optim.

A config names the public API (`erv.training.GRPO`), not the file that a class lies in. Runs made before that have the file's
name in their config.yaml; RENAMED reads them, and keeps the signature that names a run's folder as it was.

Classes of the user's own come from the packages that the environment variable ERV_PLUGINS names (docs/extending.md). No config
can name them, so that a config from elsewhere runs no code but ERV's.
"""

from __future__ import annotations

import inspect
import os
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from erv.errors import ConfigError, did_you_mean

# What older configs call a component -> its public name. New components have no entry.
RENAMED = {
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
_SIGNED = {public: older for older, public in RENAMED.items()}

# The public components. A class that is not here cannot be built from a config, wherever it lies.
COMPONENTS = (
    *RENAMED.values(),
    "erv.llm.Chat",
    "erv.policy.load_policy",
    "erv.verifier.Loss",
    "erv.verifier.Sentences",
    "erv.verifier.build_verifier",
    "erv.verifier.load_verifier",
)
# Classes that are written in these packages may be built too.
LIBRARIES = (
    *(
        f"lightning.pytorch.{name}"
        for name in ("trainer", "strategies", "callbacks", "loggers", "profilers", "plugins")
    ),
    "torch.optim",
)
_LIBRARY_ROOTS = tuple(sorted({package.partition(".")[0] for package in LIBRARIES}))
PLUGINS = "ERV_PLUGINS"


def plugins() -> tuple[str, ...]:
    """The packages of the user's own whose classes and functions a config may name."""
    return tuple(name.strip() for name in os.environ.get(PLUGINS, "").split(",") if name.strip())


def modern(tree: Any) -> Any:
    """A copy of a config in which every component has its public name."""
    return _renamed(tree, RENAMED)


def signed(tree: Any) -> Any:
    """A copy of a config in which every component has the name that signatures are made of: the first it ever had."""
    return _renamed(tree, _SIGNED)


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    if isinstance(node, Mapping):
        return {
            key: names.get(value, value) if key == "_target_" and isinstance(value, str) else _renamed(value, names)
            for key, value in node.items()
        }
    return [_renamed(item, names) for item in node] if isinstance(node, list | tuple) else node


def locate(target: object) -> Any:
    """The class or function that a `_target_` names; ConfigError for one that a config may not build, or that does not exist."""
    packages = plugins()
    if not isinstance(target, str) or not (target in COMPONENTS or _lies_in(target, (*_LIBRARY_ROOTS, *packages))):
        raise ConfigError(_refusal(target, packages))
    try:
        component = pkgutil.resolve_name(target)
    except Exception as error:  # a module may raise anything when it is imported or asked for a name
        raise ConfigError(f"{target!r} cannot be imported: {error}") from error
    # what a module has only imported is not of its package: `my_lab.os.system` is no component of my_lab
    module = getattr(component, "__module__", None) or ""
    is_class = isinstance(component, type)
    if (
        target in COMPONENTS
        or (is_class and _lies_in(module, LIBRARIES))
        or ((is_class or inspect.isfunction(component)) and _lies_in(module, packages))
    ):
        return component
    raise ConfigError(_refusal(target, packages))


def _lies_in(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _refusal(target: object, packages: Sequence[str]) -> str:
    owner = str(target).partition(".")[0]
    own = ""
    if packages:
        own = f", and what is written in {', '.join(packages)} ({PLUGINS})"
    elif isinstance(target, str) and owner.isidentifier() and owner not in ("erv", *_LIBRARY_ROOTS):
        own = f"; for code of your own in a package {owner}, begin the command with {PLUGINS}={owner}"
    return (
        f"{target!r} is not allowed: targets are the components of ERV ({COMPONENTS[0]}, …, as in conf/) and classes of "
        f"{', '.join(LIBRARIES)}{own}{did_you_mean(str(target), COMPONENTS)}"
    )
