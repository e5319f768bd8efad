"""Parameters read from source are those that an import tells."""

import inspect
import subprocess
import sys
import types
import typing
from dataclasses import is_dataclass

import pytest

from erv.config.static_signature import Unreadable, parameters_by_import, read_parameters
from erv.config.targets import COMPONENTS, locate

LIBRARIES = (
    "lightning.pytorch.Trainer",
    "lightning.pytorch.callbacks.EarlyStopping",
    "lightning.pytorch.callbacks.LearningRateMonitor",
    "torch.optim.AdamW",
)
CHECKED = (bool, int, float, str, type(None))


@pytest.mark.parametrize("target", [*COMPONENTS, *LIBRARIES])
def test_the_source_tells_what_an_import_tells(target):
    read, imported = read_parameters(target), parameters_by_import(locate(target))
    assert list(read.by_name) == list(imported.by_name)
    assert {n: p.required for n, p in read.by_name.items()} == {n: p.required for n, p in imported.by_name.items()}
    assert (read.takes_any, read.is_class) == (imported.takes_any, imported.is_class)


def simple(hint):
    """Whether a value of a config can be checked against a type."""
    if typing.get_origin(hint) is typing.Literal or hint in CHECKED:
        return True
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return is_union and all(map(simple, typing.get_args(hint)))


@pytest.mark.parametrize("target", COMPONENTS)
def test_types_are_those_that_an_import_tells(target):
    component = locate(target)
    function = component if is_dataclass(component) or not inspect.isclass(component) else component.__init__
    hints = typing.get_type_hints(function)
    for name, parameter in read_parameters(target).by_name.items():
        if simple(hints.get(name, typing.Any)):
            assert parameter.hint == hints[name], name
        else:
            assert parameter.hint is typing.Any, name


@pytest.mark.parametrize(
    "target", ["erv.training.Nothing", "nowhere.at.all", "erv", "torch.classes.load_library", "os.system"]
)
def test_what_the_source_does_not_tell_is_said(target):
    with pytest.raises(Unreadable):
        read_parameters(target)


def test_a_config_is_checked_without_an_import_of_what_it_names(tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'tests/support'); from snapshots import composed; from erv import config\n"
        "from erv.errors import ConfigError\n"
        "try: config.check(composed('+exp=grpo_demo', '+algo.grup_size=4', 'algo.updates=x', '+optim.lrr=1'))\n"
        "except ConfigError as error: print(error)\n"
        "print(*sorted({'torch', 'lightning', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "did you mean 'algo.group_size'" in done.stdout
    assert "did you mean 'optim.lr'" in done.stdout
    assert done.stdout.splitlines()[-1] == ""
