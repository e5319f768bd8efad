"""Every experiment as it resolves, one `key: value` a line. Renew what is committed with `python tests/support/snapshots.py`."""

import json
import os
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

sys.path.insert(0, str(Path(__file__).parents[2]))

from erv.cli.command import conf_folder
from erv.report.config_diff import flat

FOLDER = Path(__file__).parents[1] / "snapshots"
EXPERIMENTS = sorted(file.stem for file in (conf_folder() / "exp").glob("*.yaml"))


def command_of(experiment):
    """Which command an experiment is for."""
    return "evaluate" if experiment.startswith("eval") else "train"


def composed(*overrides, command="train"):
    """The config as the command composes it."""
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose(command, overrides=list(overrides))


def snapshot(experiment):
    """The experiment's resolved config, sorted; a value that the user must give is ???."""
    tree = OmegaConf.to_container(composed(f"+exp={experiment}", command=command_of(experiment)), resolve=True)
    lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in flat(tree))
    return "".join(f"{line}\n" for line in sorted(lines))


if __name__ == "__main__":
    for name in ("ERV_RUNS", "ERV_DATA", "ERV_CACHE"):
        os.environ.pop(name, None)
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.yaml"):
        old.unlink()
    for name in EXPERIMENTS:
        (FOLDER / f"{name}.yaml").write_text(snapshot(name))
