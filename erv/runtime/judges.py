"""The judges of a config, and the check that none of them is the verifier that rewarded the policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from erv import config
from erv.evaluation.judges.base import Judge
from erv.taxonomy import Taxonomy

if TYPE_CHECKING:
    pass
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from erv.errors import ConfigError
from erv.evaluation.judges.verifier import VerifierJudge

if TYPE_CHECKING:
    pass
from erv.runs.provenance import weights_of


def judges_of(tree: Mapping[str, Any], taxonomy: Taxonomy) -> list[Judge]:
    """The judges of the config, in the order in which they are named; each is called by its key unless it says otherwise.

    What they lack (a key, a file) is a ConfigError now, not in hours.
    """
    found: list[Judge] = []
    for key, node in (tree.get("judge") or {}).items():
        given = {name: value for name, value in (("taxonomy", taxonomy), ("name", key)) if name not in node}
        found.append(config.build(node, **{n: v for n, v in given.items() if n in config.parameters_among(node, [n])}))
    names = Counter(judge.name for judge in found)
    double = [name for name, count in names.items() if count > 1]
    if double:
        raise config.ConfigError(f"two judges are called {double[0]!r}; set judge.KEY.name")
    for judge in found if not tree.get("dry_run") else ():
        try:
            judge.require()
        except ValueError as error:
            raise config.ConfigError(f"judge {judge.name!r}: {error}") from error
    return found


def refuse_training_verifier(judges: Sequence[Judge], known: Collection[str]) -> None:
    """ConfigError for a judge with the weights of a verifier whose reward the policy was trained with (hashes in `known`)."""
    for judge in judges:
        if isinstance(judge, VerifierJudge) and weights_of(judge.verifier) in known:
            raise ConfigError(
                f"judge {judge.name!r} is the verifier whose reward the policy was trained with, so it would judge its own work; "
                "train another one on other text (verifier.data.train=audit) and set judge.verifier.verifier.checkpoint to it"
            )
