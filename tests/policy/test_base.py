"""The protocols of erv.policy.base: HumanOmni has what they list, and loading chooses the family by model_type."""

import importlib
import inspect
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import released
from torch import nn

from erv.data.clip_reader import Preprocessor
from erv.policy import base, load_policy
from erv.policy import policy as policy_module
from erv.policy.humanomni import family
from erv.policy.humanomni.processor import Processor


@pytest.fixture(scope="module")
def implementations():
    """An object of HumanOmni's for each protocol."""
    model = released.model("model_small")
    size = model.config.vision_config.image_size
    processor = Processor(released.tokenizer(), released.bert_tokenizer(), size, 8, 80, model.config.audio_seconds)
    prompt = processor.prompt([])
    return {
        base.PolicyModel: model,
        base.PolicyConfig: model.config,
        base.PolicyProcessor: processor,
        Preprocessor: processor,
        base.PolicyPrompt: prompt,
        base.PolicyBatch: processor.collate([prompt], [{}]),
        base.PolicyFamily: family,
    }


def members(protocol):
    """The methods, properties and annotated attributes that a protocol lists, by name."""
    listed = {name: value for name, value in vars(protocol).items() if not name.startswith("_")}
    return dict.fromkeys(protocol.__annotations__) | listed


PROTOCOLS = (
    base.PolicyModel,
    base.PolicyConfig,
    base.PolicyProcessor,
    Preprocessor,
    base.PolicyPrompt,
    base.PolicyBatch,
    base.PolicyFamily,
)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.__name__)
def test_humanomni_has_every_member_with_the_same_arguments(protocol, implementations):
    implementation = implementations[protocol]
    assert members(protocol)
    for name, member in members(protocol).items():
        assert hasattr(implementation, name), name
        if inspect.isfunction(member) and not hasattr(nn.Module, name):
            expected = [parameter for parameter in inspect.signature(member).parameters if parameter != "self"]
            assert list(inspect.signature(getattr(implementation, name)).parameters) == expected, name


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.__name__)
def test_every_member_of_a_protocol_says_what_a_family_has_to_provide(protocol):
    for name, member in members(protocol).items():
        assert member is None or member.__doc__, name


def test_families_can_be_imported():
    for module in policy_module.FAMILIES.values():
        assert members(base.PolicyFamily).keys() <= vars(importlib.import_module(module)).keys()


def test_the_family_is_chosen_by_model_type(tmp_path, monkeypatch):
    calls = []

    class Model(SimpleNamespace):
        def set_trainable(self, parts):
            calls.append(parts)
            return self

        def eval(self):
            return self

    model = Model(language_model=SimpleNamespace(set_attn_implementation=calls.append))
    other = ModuleType("other_family")
    other.create = lambda config, texts, *_: calls.append((config, texts)) or (model, "processor")
    other.load = lambda folder, *_: calls.append(folder) or (model, "processor")
    monkeypatch.setitem(sys.modules, "other_family", other)
    monkeypatch.setitem(policy_module.FAMILIES, "other", "other_family")

    (tmp_path / "config.json").write_text(json.dumps({"model_type": "other"}))
    loaded = load_policy(str(tmp_path), train=["language_model"])
    assert (loaded.model, loaded.processor) == (model, "processor")
    assert calls == [tmp_path, "sdpa", ["language_model"]]
    calls.clear()
    load_policy(config={"model_type": "other"}, texts=["a text"], train=[])
    assert calls == [({"model_type": "other"}, ["a text"]), "sdpa", []]
