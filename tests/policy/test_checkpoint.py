"""Public checkpoints: every form they come in is read, what is missing is named, and writing gives back what was read."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import released
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file
from transformers import BertConfig, GenerationConfig, SiglipVisionConfig, WhisperConfig

from erv.policy import CheckpointError, export_policy, load_policy, save_policy
from erv.policy.checkpoint import read_state
from erv.policy.humanomni.checkpoint import from_original_names, to_original_names
from erv.taxonomy import MAFW
from erv.utils.tensors import tensors_sha256
from erv.verifier import build_verifier

NAME = "model_small"
TOWERS = ("model.vision_tower.", "model.audio_tower.")


def weights():
    return {name: value for name, value in released.state(NAME).items() if name != "lm_head.weight"}


def write_index(folder, shards):
    """The index file of shards {file: names}."""
    index = {"metadata": {}, "weight_map": {n: file for file, names in shards.items() for n in names}}
    kind = "model.safetensors" if next(iter(shards)).endswith(".safetensors") else "pytorch_model.bin"
    (folder / f"{kind}.index.json").write_text(json.dumps(index))


@pytest.fixture
def upstream(tmp_path):
    """Folders of the towers (as their own repositories have them) and of BERT."""
    read, state = released.sizes(NAME), released.state(NAME)
    places = {part: tmp_path / "upstream" / part for part in ("vision_tower", "audio_tower", "bert_model")}
    for folder in places.values():
        folder.mkdir(parents=True)
    SiglipVisionConfig(**read["vision"]).save_pretrained(places["vision_tower"])
    WhisperConfig(**read["audio"]).save_pretrained(places["audio_tower"])
    BertConfig(**read["bert"]).save_pretrained(places["bert_model"])
    for part, prefix in (
        ("vision_tower", "model.vision_tower.vision_tower."),
        ("audio_tower", "model.audio_tower.audio_tower."),
    ):
        tower = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
        if part == "audio_tower":
            tower = {f"model.{n}": v for n, v in tower.items() if n.startswith("encoder.")}
        save_file(tower, places[part] / "model.safetensors")
    released.bert_tokenizer().save_pretrained(places["bert_model"])
    return {part: str(folder) for part, folder in places.items()}


@pytest.fixture
def write(tmp_path, upstream):
    """Writes a checkpoint as HumanOmni's code leaves it, in one of the forms that files come in."""

    def written(state=None, form="safetensors", **config):
        state = weights() if state is None else state
        folder = tmp_path / "released"
        folder.mkdir()
        values = {**released.sizes(NAME)["llm"], "torch_dtype": "float32", "transformers_version": "4.49.0"}
        values |= {f"mm_{part}": upstream[part] for part in ("vision_tower", "audio_tower")} | config
        (folder / "config.json").write_text(json.dumps(values))
        released.tokenizer().save_pretrained(folder)
        GenerationConfig(eos_token_id=[313, 314], repetition_penalty=1.05, max_new_tokens=7).save_pretrained(folder)
        names = list(state)
        halves = names[: len(names) // 2], names[len(names) // 2 :]
        if form == "safetensors":
            save_file(state, folder / "model.safetensors")
        elif form == "sharded safetensors":
            save_torch_state_dict(state, folder, max_shard_size="200KB")
        elif form == "bin":
            torch.save(state, folder / "pytorch_model.bin")
        elif form == "sharded bin":
            shards = {f"pytorch_model-{i}-of-2.bin": half for i, half in enumerate(halves)}
            for file, half in shards.items():
                torch.save({n: state[n] for n in half}, folder / file)
            write_index(folder, shards)
        return folder

    return written


def load(folder, upstream, **settings):
    return load_policy(str(folder), upstream={"bert_model": upstream["bert_model"]}, **settings)


@pytest.mark.parametrize("form", ["safetensors", "sharded safetensors", "bin", "sharded bin"])
@pytest.mark.parametrize("size", ["5GB", "200KB"])
def test_what_was_read_is_written_back_bit_by_bit(write, upstream, tmp_path, form, size):
    policy = load(write(form=form), upstream)
    save_policy(policy, tmp_path / "ours")
    export_policy(load_policy(str(tmp_path / "ours")), tmp_path / "public", max_shard_size=size)
    assert (size == "200KB") == (tmp_path / "public" / "model.safetensors.index.json").is_file()
    written, expected = read_state(tmp_path / "public"), weights()
    expected = {n: v for n, v in expected.items() if ".audio_tower." not in n or ".encoder." in n}
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[n], expected[n]) for n in expected)


def test_an_exported_policy_loads_like_the_one_it_was_made_from(write, upstream, tmp_path):
    policy = load(write(), upstream)
    export_policy(policy, tmp_path / "public")
    again = load(tmp_path / "public", upstream)
    assert again.sha256() == policy.sha256()
    assert again.model.config.to_dict() == policy.model.config.to_dict()
    assert again.processor.settings() == policy.processor.settings()
    assert again.processor.prompt() == policy.processor.prompt()


def test_what_the_checkpoint_says_is_what_counts(write, upstream, caplog):
    """Vocabulary, frames, chat template, end tokens and generation config."""
    policy = load(write(num_frames=5, vocab_size=999), upstream)
    assert "asks for repetition_penalty=1.05, which HumanOmni.generate applies" in caplog.text
    assert policy.model.config.text_config.vocab_size == len(weights()["model.embed_tokens.weight"])
    assert policy.model.config.num_frames == policy.processor.num_frames == 5
    assert policy.processor.tokenizer.chat_template == released.tokenizer().chat_template
    assert policy.processor.eos_ids == [313, 314]
    assert policy.model.language_model.generation_config.repetition_penalty == 1.05
    assert policy.processor.audio_seconds == 0.6
    t = released.case(NAME, "A")
    from test_golden_policy import batch_of

    new = policy.model.generate(batch_of(t, policy.model), repetition_penalty=1.0, min_new_tokens=7, do_sample=False)
    assert new.tolist() == t["greedy_12"][:, :7].tolist()  # max_new_tokens of the generation config


def test_known_extras_are_left_out(write, upstream):
    extras = {
        "model.feature_compressor.vlm_query_projector.weight": torch.zeros(2, 2),
        "model.audio_tower.audio_tower.projector.weight": torch.zeros(2, 2),
        "model.audio_tower.audio_tower.classifier.bias": torch.zeros(2),
        "model.bert_model.embeddings.position_ids": torch.zeros(1, 2, dtype=torch.long),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(2),
        "lm_head.weight": released.state(NAME)["model.embed_tokens.weight"].clone(),  # tied, and written all the same
    }
    policy = load(write({**weights(), **extras}), upstream)
    assert policy.sha256() == tensors_sha256(released.model(NAME).state_dict())


def test_siglip_with_and_without_its_inner_prefix_is_the_same(write, upstream):
    inner = "model.vision_tower.vision_tower.vision_model."
    state = {n.replace(inner, inner.removesuffix("vision_model.")): v for n, v in weights().items()}
    assert state.keys() != weights().keys()
    policy = load(write(state), upstream)
    assert policy.sha256() == tensors_sha256(released.model(NAME).state_dict())


def test_names_go_both_ways():
    names = [n for n in weights() if ".audio_tower." not in n or ".encoder." in n]
    state = {name: torch.zeros(1) for name in names}
    assert list(to_original_names(from_original_names(state))) == names


def test_everything_that_does_not_fit_is_listed_at_once(write, upstream):
    state = weights()
    del state["model.bert_gate.0.bias"], state["model.mm_projector.s1_body.b1.se.fc1.weight"]
    state["model.layers.7.mlp.up_proj.weight"] = torch.zeros(1)
    state["model.norm.weight"] = torch.zeros(3)
    with pytest.raises(CheckpointError) as caught:
        load(write(state), upstream)
    message = str(caught.value)
    assert "missing (2): " in message
    assert "model.bert_gate.0.bias" in message
    assert "model.mm_projector.s1_body.b1.se.fc1.weight" in message
    assert "unexpected (1): model.layers.7.mlp.up_proj.weight" in message
    assert "of another shape than the config says (1): model.norm.weight (3,), not (64,)" in message


def test_any_missing_weight_is_named(write, upstream):
    state = weights()
    for name in sorted(state)[:: len(state) // 12]:
        if name.startswith(TOWERS) or name == "model.embed_tokens.weight":
            continue
        folder = write({n: v for n, v in state.items() if n != name})
        with pytest.raises(CheckpointError, match=rf"missing \(1\): {name}$"):
            load(folder, upstream)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def test_a_head_that_is_not_tied_although_the_config_says_so(write, upstream):
    state = weights() | {"lm_head.weight": torch.ones_like(weights()["model.embed_tokens.weight"])}
    with pytest.raises(
        CheckpointError, match=r'lm_head.weight that differs from them; set "tie_word_embeddings": false'
    ):
        load(write(state), upstream)


def test_towers_come_from_upstream_when_the_checkpoint_has_none(write, upstream, caplog):
    state = {n: v for n, v in weights().items() if not n.startswith(TOWERS)}
    with caplog.at_level(logging.INFO, "erv"):
        policy = load(write(state), upstream)
    assert f"vision_tower: from {upstream['vision_tower']}, the checkpoint holds none" in caplog.text
    assert f"audio_tower: from {upstream['audio_tower']}, the checkpoint holds none" in caplog.text
    assert policy.sha256() == tensors_sha256(released.model(NAME).state_dict())


def test_towers_in_both_places_must_be_the_same(write, upstream, caplog):
    state = weights()
    name = next(n for n in state if n.startswith("model.audio_tower.audio_tower.encoder.layers"))
    halved = {n: v.half().float() if n.startswith(TOWERS) else v for n, v in state.items()}
    with caplog.at_level(logging.INFO, "erv"):
        load(folder := write(halved), upstream)  # a copy in half precision is the same tower
    assert "vision_tower: from the checkpoint" in caplog.text
    file = Path(upstream["audio_tower"]) / "model.safetensors"
    other, upstream_name = load_file(file), name.replace("model.audio_tower.audio_tower.", "model.")
    save_file(other | {upstream_name: other[upstream_name] + 1}, file)
    with pytest.raises(CheckpointError, match=r"should be the same weights, but 1 tensors differ, first audio_tower\."):
        load(folder, upstream)


class Payload:
    def __reduce__(self):
        return (os.system, ("touch executed",))


def test_a_torch_file_with_code_in_it_is_refused(write, upstream, monkeypatch, tmp_path):
    folder = write(form="none")
    torch.save({"model.norm.weight": Payload()}, folder / "pytorch_model.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin cannot be read as weights alone"):
        load(folder, upstream)
    assert not (tmp_path / "executed").exists()
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(CheckpointError, match=r"model.safetensors cannot be read as weights alone"):
        load(folder, upstream)


def test_files_that_are_not_there_or_lie_elsewhere(write, upstream, tmp_path):
    folder = write(form="none")
    with pytest.raises(CheckpointError, match=r"holds no weights; it needs model.safetensors"):
        load(folder, upstream)
    write_index(folder, {"../other.safetensors": ["model.norm.weight"]})
    with pytest.raises(CheckpointError, match=r"names files outside its folder: \.\./other.safetensors"):
        load(folder, upstream)
    write_index(folder, {"model-1.safetensors": ["model.norm.weight"], "model-2.safetensors": ["lm_head.weight"]})
    with pytest.raises(CheckpointError, match=r"shards that are not there: model-1.safetensors, model-2.safetensors"):
        load(folder, upstream)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    with pytest.raises(CheckpointError, match=r"holds a 'qwen2'; policy.checkpoint must be a 'HumanOmni_qwen2'"):
        load(folder, upstream)
    with pytest.raises(CheckpointError, match=r"is neither a folder nor a hub id"):
        load(tmp_path / "nowhere", upstream)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "mm_projector_type",
            "mlp2x_gelu",
            r"mm_projector_type must be one of all_in_one_small, all_in_one, got 'mlp2x",
        ),
        ("mm_projector_type", "all_in_one", r"all_in_one needs an odd number of patches a side .*, got 4 .*change"),
        ("mm_vision_select_feature", "cls_patch", r"mm_vision_select_feature must be 'patch'.*got 'cls_patch'"),
    ],
)
def test_configs_that_cannot_be(write, upstream, field, value, message):
    with pytest.raises(ValueError, match=message):
        load(write(**{field: value}), upstream)


def test_well_known_towers_need_no_config_of_their_own(write, upstream):
    """A private path in front of a well-known name is ignored; sizes that do not fit the weights are then an error."""
    folder = write(mm_vision_tower="/private/models/siglip-base-patch16-224")
    with pytest.raises(CheckpointError, match=r"vision_tower.*not \(768,"):
        load(folder, upstream)


@pytest.fixture
def hub(tmp_path):
    """A cache laid out as the hub's client lays it out, which the real client reads in a process of its own, offline."""
    cache = tmp_path / "cache"

    class Hub:
        def add(self, name, folder):
            commit = "0" * 40
            repo = cache / f"models--{name.replace('/', '--')}"
            (repo / "refs").mkdir(parents=True)
            (repo / "refs" / "main").write_text(commit)
            (repo / "snapshots").mkdir()
            return folder.rename(repo / "snapshots" / commit)

        def run(self, code, *arguments):
            env = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
            command = [sys.executable, "-c", code, *arguments]
            return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    return Hub()


def test_a_hub_id_is_read_from_the_hubs_cache_without_a_network(write, upstream, hub):
    folder = hub.add("someone/tiny-omni", write())
    code = (
        "import sys\nfrom erv.policy import load_policy\n"
        "print(load_policy(sys.argv[1], upstream={'bert_model': sys.argv[2]}).sha256())"
    )
    loaded = hub.run(code, "someone/tiny-omni", upstream["bert_model"])
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.strip() == load(folder, upstream).sha256()
    absent = hub.run(code, "someone/other-omni", upstream["bert_model"])
    assert absent.returncode == 1
    assert "someone/other-omni is no folder here and cannot be had from the hub" in absent.stderr
    assert "download it on a machine with access and give its folder instead" in absent.stderr


@pytest.mark.parametrize("name", [pytest.param("FacebookAI/roberta-base", marks=pytest.mark.slow), "roberta-of-nobody"])
def test_a_verifier_starts_from_an_encoder_in_the_hubs_cache(name, hub, tmp_path):
    """By way of find_model, as a run takes it; an id without an owner is one as well."""
    sizes = {"model_type": "roberta", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 32, "max_position_embeddings": 34}  # fmt: skip
    made = build_verifier(MAFW.labels, config=sizes, sentences=["The jaw drops.", "She weeps."])
    made.save(tmp_path / "saved")
    hub.add(name, tmp_path / "saved")
    code = (
        "import sys\nfrom erv.taxonomy import DFEW\nfrom erv.runs.resolve import find_model\n"
        "from erv.verifier import build_verifier\n"
        "verifier = build_verifier(DFEW.labels, checkpoint=find_model(sys.argv[1], 0)[0])\n"
        "print(verifier(['She weeps.']).shape, verifier.model.get_input_embeddings().weight.sum().item())"
    )
    loaded = hub.run(code, name)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split(") ") == ["(1, 7", f"{made.model.get_input_embeddings().weight.sum().item()}\n"]
