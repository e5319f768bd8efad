"""The doctor: counts and bytes without allocation, equal to what really happens where that can be run."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import hydra
import pytest
import torch
import trees
from clips import cut, write_clip
from commands import environment, warm
from safetensors.torch import load_file
from small_configs import tiny

from erv.cli.command import conf_folder
from erv.config.instantiate import plain
from erv.data.datasets.dfew import DFEWCorpus
from erv.data.datasets.manifest import ManifestCorpus
from erv.data.media.file_records import fingerprint
from erv.engine.logprobs import completion_logps
from erv.errors import ConfigError
from erv.policy import Policy
from erv.policy.base import IGNORE_INDEX
from erv.policy.humanomni.batch import HumanOmniBatch
from erv.policy.humanomni.model import HumanOmni
from erv.policy.humanomni.prompts import AUDIO_ID, VIDEO_ID
from erv.runtime import memory_check
from erv.taxonomy import DFEW
from erv.training import memory
from erv.training.optim import OptimizerSettings
from erv.training.sft import SFT

ALL = ("language_model", "mm_projector", "audio_projector", "bert_gate")


def doctor(root, *arguments, check=True):
    command = [sys.executable, "-m", "erv.doctor", *arguments]
    done = subprocess.run(command, cwd=root, env=warm(root), capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


class FixedSFT(SFT):
    """SFT of a batch that has been collated, with its weights."""

    def collate(self, batch):
        return batch


def really_added(config, setup):
    """Bytes that an update adds to weights and gradients at its peak, on real tensors."""
    model = HumanOmni(config).set_trainable(setup.train).train()
    if setup.gradient_checkpointing:
        model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    clips, length = setup.prompts, setup.new_tokens
    answers = torch.arange(setup.group_size * clips * length).view(-1, length) % 100
    prompts = torch.tensor([[VIDEO_ID, AUDIO_ID, *range(memory.TEXT_TOKENS)]] * clips)
    ids = prompts if setup.sampled else torch.cat([prompts, answers], dim=1)
    mask, labels = torch.ones_like(ids, dtype=torch.bool), torch.full_like(ids, IGNORE_INDEX)
    labels[:, -length:] = ids[:, -length:]
    mask[0, -1], labels[0, -1] = (
        setup.sampled,
        IGNORE_INDEX,
    )  # padding, so that SFT's attention is masked as in training
    video = torch.randn(clips, config.num_frames, config.grid**2, config.vision_config.hidden_size)
    audio = torch.randn(clips, config.audio_tokens, config.audio_config.d_model)
    asked = torch.ones(clips, 4, dtype=torch.long)
    batch = HumanOmniBatch(ids, mask, asked, asked.bool(), video, audio, None if setup.sampled else labels)
    module = FixedSFT(Policy(model, None), DFEW, OptimizerSettings(1e-5), ("video", "audio"), clips, epochs=1)
    with memory._Alive(p.untyped_storage() for p in model.parameters()) as alive:
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        gradients = alive.bytes
        if setup.sampled:
            embeds, seen, _ = model.embed(batch)
            ones = torch.ones_like(answers)
            loss = completion_logps(
                model.language_model, embeds, seen, answers, ones, setup.group_size, with_entropy=True
            )
            del embeds
            loss.logps.sum().backward()
        else:
            loss, _ = module.loss((batch, torch.ones(labels.shape)))
            model.zero_grad()
            loss.backward()
    return alive.peak - gradients


@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_activations_are_what_an_update_really_adds(stage, checkpointing):
    config = tiny("all_in_one_small", 32, layers=3)
    of_stage = {"group_size": 3, "token_budget": 1} if stage == "grpo" else {"group_size": 1, "sampled": False}
    setup = memory.Setup(train=ALL, prompts=2, new_tokens=40, gradient_checkpointing=checkpointing, **of_stage)
    rows = replace(setup, prompts=1) if stage == "grpo" else setup  # a micro-batch
    assert memory.estimate(config, setup)["activations"] == pytest.approx(really_added(config, rows), rel=0.03)


@pytest.fixture
def unsimulated(monkeypatch):
    """For tests that ask about the rest: a gigabyte for what an update adds, which takes a second to work out."""
    monkeypatch.setattr(memory, "_added_by_update", lambda *_: 10**9)


@pytest.mark.usefixtures("unsimulated")
def test_weights_gradients_and_states_follow_from_the_parameters():
    config = tiny("all_in_one_small", 32)
    setup = memory.Setup(train=ALL, prompts=2, group_size=3, new_tokens=11)
    model = HumanOmni(config).set_trainable(ALL)
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    found = memory.estimate(config, setup)
    assert found["weights"] == 4 * total
    assert found["gradients"] == found["reference"] == 4 * trained
    assert found["optimiser"] == 8 * trained
    half = memory.estimate(config, memory.Setup(ALL, 2, 3, 11, dtype="bfloat16", precision="bf16-mixed"))
    assert half["weights"] == 2 * (total - trained) + 4 * trained
    assert half["optimiser"] == 8 * trained


@pytest.mark.usefixtures("unsimulated")
def test_what_devices_share_out_is_gathered_to_be_used():
    config = tiny("all_in_one_small", 32, layers=3)
    model = HumanOmni(config).set_trainable(ALL)
    towers, layer = (
        sum(p.numel() for module in modules for p in module.parameters())
        for modules in ((model.vision_tower, model.audio_tower), (model.language_model.model.layers[0],))
    )
    apart = sum(p.numel() for p in model.parameters()) - towers
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    found = memory.estimate(config, memory.Setup(ALL, 2, 3, 11, precision="bf16-mixed", strategy="fsdp2", devices=4))
    assert found["weights"] == 4 * (towers + apart / 4)
    assert found["reference"] == apart
    assert (found["gradients"], found["optimiser"]) == (trained, 2 * trained)
    assert found["gathered to generate"] == 2 * apart
    assert found["gathered to update"] == 2 * 2 * (apart - layer)
    assert found == memory.estimate(
        config, memory.Setup(ALL, 2, 3, 11, precision="bf16-mixed", strategy="deepspeed_z3", devices=4)
    )  # fmt: skip
    stage_2 = memory.estimate(
        config, memory.Setup(ALL, 2, 3, 11, precision="bf16-mixed", strategy="deepspeed_z2", devices=4)
    )  # fmt: skip
    assert stage_2["weights"] == 2 * (apart + towers) + trained
    assert (stage_2["reference"], stage_2["optimiser"]) == (2 * trained, 2 * trained)
    assert stage_2["gathered to generate"] == 0
    one = memory.estimate(config, memory.Setup(ALL, 2, 3, 11, precision="bf16-mixed", strategy="fsdp2"))
    assert one == memory.estimate(config, memory.Setup(ALL, 2, 3, 11, precision="bf16-mixed"))


@pytest.mark.usefixtures("unsimulated")
def test_the_kv_cache_holds_a_prompt_once_and_its_answers_each():
    config = tiny("all_in_one_small", 32)
    found = memory.estimate(config, memory.Setup(ALL, prompts=2, group_size=3, new_tokens=11))
    per_token = 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, width, bytes
    assert found["kv cache"] == per_token * 2 * (memory.prompt_tokens(config) + 3 * 11)


def test_what_saves_memory_saves_memory():
    config = tiny("all_in_one_small", 32, layers=6)
    base = {"train": ALL, "prompts": 4, "group_size": 4, "new_tokens": 20}
    plain = memory.estimate(config, memory.Setup(**base))
    checkpointed = memory.estimate(config, memory.Setup(**base, gradient_checkpointing=True))
    assert checkpointed["activations"] < 0.5 * plain["activations"]
    lora = memory.estimate(config, memory.Setup(**base, lora={"r": 2}))
    assert lora["optimiser"] < plain["optimiser"]
    cut = memory.estimate(config, memory.Setup(**base, token_budget=1))
    assert cut["activations"] < 0.3 * plain["activations"]


@pytest.mark.parametrize(
    ("name", "projector", "prompt"),
    [("humanomni_0_5b", 34_762_944, 956), pytest.param("humanomni_7b", 770_759_488, 2132, marks=pytest.mark.slow)],
)
def test_the_public_sizes_in_json(tmp_path, name, projector, prompt):
    found = json.loads(doctor(tmp_path, f"policy={name}", "trainer=gpu", "--json").stdout)["policy"]
    assert found["parts"]["mm_projector"] == {"parameters": projector, "trained": projector}
    assert found["parts"]["vision_tower"]["trained"] == found["parts"]["bert_model"]["trained"] == 0
    assert found["prompt_tokens"] == prompt
    assert found["bytes_per_device"]["peak"] > found["bytes_per_device"]["weights"]
    assert found["fits_here"] is (None if not torch.cuda.is_available() else found["fits_here"])


def test_the_page_names_parts_memory_and_the_remedy_and_allocates_nothing(tmp_path):
    code = (
        "import sys, resource\n"
        "from erv.doctor.__main__ import main\n"
        "main()\n"
        "print('lightning' in sys.modules, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, "policy=humanomni_7b", "trainer=gpu"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=True)
    for word in (
        "mm_projector",
        "770,759,488",
        "activations",
        "attention scores",
        "kv cache",
        "tower cache: 14.72 MB a clip",
    ):
        assert word in done.stdout
    assert "smallest card: none of up to 192 GB" in done.stdout
    assert "policy.gradient_checkpointing=true" in done.stdout
    assert list(tmp_path.iterdir()) == []
    imported, kilobytes = done.stdout.split()[-2:]
    assert imported == "False"
    assert int(kilobytes) < 2_000_000  # the weights alone are 38 GB


def of_exp(*overrides):
    """The plain config of GRPO with random weights, of a public size but for its layers."""
    of_size = ["policy=humanomni_0_5b", "policy.checkpoint=null", "policy.config.text_config.num_hidden_layers=2"]
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        cfg = hydra.compose("train", ["+exp=grpo_dfew", *of_size, *overrides])
        return plain({key: plain(cfg[key]) for key in ("algo", "policy", "trainer", "seed")})


@pytest.mark.usefixtures("unsimulated")
def test_a_gpu_that_is_too_small_is_refused_before_anything_is_made(monkeypatch, caplog):
    tree = of_exp("trainer=gpu")
    setup = memory_check.setup_of(tree, 1)
    needs = memory.estimate(memory_check.sizes_of(tree["policy"], 0)[0], setup)
    stays = needs["weights"] + needs["reference"] + needs["gradients"] + needs["optimiser"]
    assert 4e9 < stays < needs["peak"]
    monkeypatch.setattr(memory_check, "smallest_here", lambda: stays - 1.0)
    with pytest.raises(ConfigError) as refused:
        memory_check.require(tree, 1)
    for word in (
        f"at all times (weights {needs['weights'] / 1e9:,.2f} GB",
        "optimiser",
        "policy.lora={r: 16}",
        "erv.doctor",
    ):
        assert word in str(refused.value)
    monkeypatch.setattr(memory_check, "smallest_here", lambda: needs["peak"])
    memory_check.require(tree, 1)
    assert "training may run out of memory" in caplog.text
    caplog.clear()
    monkeypatch.setattr(memory_check, "smallest_here", lambda: needs["peak"] + memory_check.RESERVED)
    memory_check.require(tree, 1)
    assert caplog.text == ""


@pytest.mark.usefixtures("unsimulated")
def test_memory_is_not_asked_about_where_no_decoder_is_trained_on_a_gpu(monkeypatch):
    monkeypatch.setattr(memory_check, "smallest_here", lambda: 1.0)
    memory_check.require(of_exp("trainer=cpu"), 1)
    memory_check.require(of_exp("trainer=gpu", "algo=towers"), 1)
    with pytest.raises(ConfigError, match="does not fit"):
        memory_check.require(of_exp("trainer=gpu", "algo=sft"), 1)


def test_settings_that_cannot_be(tmp_path):
    done = doctor(tmp_path, "policy=tiny", "policy.train=[lm]", check=False)
    assert done.returncode == 2
    assert "policy.train takes language_model, mm_projector" in done.stderr
    done = doctor(tmp_path, "polcy=tiny", check=False)
    assert done.returncode == 2
    assert "did you mean 'policy'" in done.stderr


def test_the_environment_without_a_policy(tmp_path):
    found = json.loads(doctor(tmp_path, "--json").stdout)
    assert set(found) == {"environment"}
    assert found["environment"]["versions"]["torch"] == torch.__version__
    assert found["environment"]["free_gb"]["runs"] > 0


@pytest.fixture
def dfew(tmp_path):
    """A tree in DFEW's layout with one clip of each kind: whole, silent, short, truncated; another fold beside it."""
    root, one = tmp_path / "DFEW", trees.one_clip(tmp_path)
    rows = {"train": [(i, 1 + i % 7) for i in range(1, 13)], "test": [(i, 1 + i % 7) for i in range(20, 24)]}
    trees.dfew(root, "label", rows, one)
    trees.dfew(root, "label", {"train": [(i, 1 + i % 7) for i in range(4, 24)], "test": [(1, 2)]}, one, fold=1)
    for number in range(1, 24):  # no two alike
        write_clip(root / "clip" / f"{number}.mp4", frames=30 + number)
    write_clip(root / "clip" / "3.mp4", frames=40, audio=None)
    write_clip(root / "clip" / "4.mp4", frames=3)
    write_clip(tmp_path / "whole.mp4", frames=40, faststart=True)
    cut(tmp_path / "whole.mp4", root / "clip" / "5.mp4", 0.5)
    return root


def test_a_data_set_with_a_truncated_clip(tmp_path, dfew):
    given = ["data=dfew", f"data.root={dfew}", "data.expect=none", "media.workers=1"]
    done = doctor(tmp_path, *given, check=False)
    assert done.returncode == 1
    page = done.stdout
    for line in (
        "data: dfew at", "all            12        4", "decoded: 16 clips", "video: h264 15", "44100 Hz, 2 channels 14",
        "fps: 25 to 25, median 25", "5 (train): ends in the middle of a packet", "3 (train): has no sound track",
        "1 corrupt (stop the run)", "1 no_audio (masked)", "4 (train): has 3 frames, the policy takes 8",
        "note: not as published: train: 12 clips, published are 9,361",
        "note: of the 4 test clips other folds train on 4 by fold 1: do not start from their weights",
        "training would stop here: clips that are corrupt: 1; replace them, or set media.on_corrupt=skip or mask",
    ):  # fmt: skip
        assert line in page, f"{line}\n{page}"
    skipping = doctor(tmp_path, *given, "media.on_corrupt=skip")
    assert "1 corrupt (left out)" in skipping.stdout
    assert "training would stop" not in skipping.stdout
    whole = doctor(tmp_path, *[g for g in given if "expect" not in g], "media.on_corrupt=skip", check=False)
    assert whole.returncode == 1
    assert "decoded: 16 clips" in whole.stdout  # what is there is described all the same
    assert "training would stop here: dfew at" in whole.stdout


def test_the_manifest_is_what_a_run_records(tmp_path, dfew):
    given = ["data=dfew", f"data.root={dfew}", "data.expect=none", "media.on_corrupt=skip", "media.workers=1", "--json"]
    found = json.loads(doctor(tmp_path, *given).stdout)["data"]
    assert found["fails"] == []
    assert found["classes"]["test"]["sad"] == 1
    assert found["defects"]["train"] == {"mask": {"no_audio": 1}, "repeat": {"short": 1}, "skip": {"corrupt": 1}}
    summary = found["manifest"]
    assert summary == json.loads((tmp_path / summary["file"]).with_suffix(".json").read_text())
    rows = [json.loads(line) for line in (tmp_path / summary["file"]).read_text().splitlines()]
    assert len(rows) == 16
    by_id = {row["id"]: row for row in rows}
    content = (dfew / "clip" / "1.mp4").read_bytes()
    assert by_id["1"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert by_id["1"]["facts"]["frames"] == 31
    names = [(f"dfew/{row['id']}", row["sha256"]) for row in rows if row["split"] == "test"]
    assert summary["sha256"]["test"] == fingerprint(names)
    corpus = DFEWCorpus(root=str(dfew), expect="none")
    assert summary["digest"] == corpus.digest()
    as_corpus = ManifestCorpus(file=str(tmp_path / summary["file"]), root=str(dfew), taxonomy="dfew")
    assert {c.id for c in as_corpus.clips("test")} == {c.id for c in corpus.clips("test")}
    again = json.loads(doctor(tmp_path, *given, "sample=2").stdout)["data"]
    assert (again["decoded"], again["manifest"]["sha256"]) == (4, summary["sha256"])


def test_the_same_file_twice_and_the_same_person_twice(tmp_path):
    one = trees.one_clip(tmp_path)
    for name in ("a", "b", "c"):
        trees.clip_at(tmp_path / f"{name}.mp4", one)
    lines = ["video,label,split,subject", "a.mp4,sad,train,anna", "b.mp4,sad,train,ben", "c.mp4,happy,test,anna"]
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
    given = ["data=manifest", "data.file=own.csv", "data.taxonomy=dfew", "data.dev=0", "media.workers=1"]
    page = doctor(tmp_path, *given).stdout
    assert "note: the same file under several names: 1 times, first a (train) = b (train) = c (test)" in page
    assert "note: the same file in several splits: a leak: 1 times, first a (train) = c (test)" in page
    assert "note: 1 subjects are in train and in test, first anna" in page


def test_data_that_is_not_there_or_cannot_be(tmp_path):
    done = doctor(tmp_path, "data=dfew", check=False)
    assert done.returncode == 1
    for words in ("DFEW is not at", "label/single_{train,test}set_5.csv", "on request", "Set data.root"):
        assert words in done.stdout
    for given, message in (
        (["data=dfew", "data.fodl=3"], "did you mean 'data.fold'"), (["data=dfew", "sample=0"], "sample is the number of clips"),
        (["data=dfew", "media.on_corrupt=ignore"], "media.on_corrupt must be one of error, skip, mask, got 'ignore'"),
        (["cache=build"], "cache=build needs data=NAME"),
        (["cache=fill", "data=dfew"], "cache is build, or left out; got 'fill'"),
    ):  # fmt: skip
        done = doctor(tmp_path, *given, check=False)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr


def test_a_folder_of_any_name(tmp_path):
    """Hydra's command line takes plain letters; other folders need quotes, which the message shows in full."""
    root = tmp_path / "Mes données 陰 (v2)=1"
    trees.dfew(root, "label", {"train": [(1, 1)], "test": [(2, 2)]}, trees.one_clip(tmp_path))
    given = ["data=dfew", "data.expect=none", "media.workers=1"]
    refused = doctor(tmp_path, *given, f"data.root={root}", check=False)
    assert refused.returncode == 2
    quoted = f"data.root='{root}'"
    assert f'needs quotes of its own: "{quoted}"' in refused.stderr
    assert f"data: dfew at {root}" in doctor(tmp_path, *given, quoted).stdout


def test_keys_are_said_to_be_there_and_never_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    for absent in ("HF_TOKEN", "GEMINI_API_KEY"):
        monkeypatch.delenv(absent, raising=False)
    done = doctor(tmp_path)
    assert "OPENAI_API_KEY set" in done.stdout
    for absent in ("HF_TOKEN", "GEMINI_API_KEY"):  # every key that a config in conf/ reads is among them
        assert f"{absent} not set" in done.stdout
    assert "sk-very" not in done.stdout + done.stderr


def test_the_tower_cache_is_built_ahead_by_several_processes(demo, tmp_path):
    """What the doctor builds is what training finds: nothing is encoded again."""
    shutil.copytree(demo / "data", tmp_path / "data")
    model = next((demo / "runs" / "demo" / "towers").glob("*/model"))
    small = ["data.clips=48", "data.dev=8", "data.test=8", "media.workers=1"]
    given = ["data=synthetic", "policy=tiny", f"policy.checkpoint={model}", "cache=build", "devices=2", *small]
    done = doctor(tmp_path, *given)
    assert done.stderr.count("48 of 48 clips are in") == 2
    shards = {f: f.stat().st_mtime_ns for f in tmp_path.glob("cache/towers/*/*.safetensors")}
    assert shards
    again = doctor(tmp_path, *[g for g in given if g != "devices=2"])
    assert "48 of 48 clips" in again.stderr
    assert {f: f.stat().st_mtime_ns for f in tmp_path.glob("cache/towers/*/*.safetensors")} == shards
    keys = [e.split("/")[0] for shard in shards for e in load_file(shard)]
    assert len(set(keys)) == 48
    assert len(keys) == 96  # picture and sound of each, once
