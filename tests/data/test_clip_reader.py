"""From a corpus to batches: the order, what is read of a clip, and what happens to those that cannot be read."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import cut, write_clip, write_folder, write_wav
from commands import environment, train, warm
from files import encode_files
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from erv.data.clip_reader import ClipReader, UnusableClips
from erv.data.datasets.synthetic import SyntheticCorpus
from erv.data.media.augmentation import Augmentation
from erv.data.media.settings import MediaSettings
from erv.runs import provenance
from erv.training.sampler import StepBatches
from erv.types import Clip


def even(size, *rest, **how):
    return StepBatches([1.0] * size, *rest, **how)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 30), st.integers(0, 30), st.integers(1, 6))
def test_a_resumed_order_is_the_rest_of_the_whole_one(size, batch_size, steps, cursor, window):
    if batch_size > size:
        with pytest.raises(ValueError, match="lower batch_size"):
            even(size, batch_size, steps, 0)
        return
    lengths = [(7 * i) % 11 for i in range(size)]
    whole, resumed = (even(size, batch_size, steps, 7, lengths=lengths, window=window) for _ in range(2))
    resumed.cursor = min(cursor, steps)
    assert list(resumed) == list(whole)[resumed.cursor :]
    assert all(len(batch) == batch_size for batch in whole)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 30))
def test_a_pass_shows_every_sample_once(size, batch_size, steps):
    batch_size = min(batch_size, size)
    seen = [draw for batch in even(size, batch_size, steps, 7) for draw in batch]
    for number, start in enumerate(range(0, len(seen) - size + 1, size)):
        assert sorted(seen[start : start + size]) == [(i, number) for i in range(size)]


@given(st.lists(st.floats(0.5, 4.0), min_size=2, max_size=20), st.integers(1, 5))
def test_a_sample_is_shown_as_often_as_its_weight_says(weights, passes):
    steps = int(sum(weights) * passes) + 1
    order = StepBatches(weights, 1, steps, 3)
    draws = [draw for batch in order for draw in batch]
    last = max((turn for _, turn in draws), default=0)  # all passes before it are whole
    shown = Counter(index for index, turn in draws if turn < last)
    for index, weight in enumerate(weights):
        assert abs(shown[index] - weight * last) <= 1.001


def test_samples_of_a_batch_are_of_one_length_and_all_are_seen(tmp_path):
    lengths = np.random.default_rng(0).integers(5, 200, 640)
    plain_order, sorted_order = (even(640, 16, 40, 1, lengths=lengths, window=w) for w in (1, 40))

    def padding(order):
        return sum(max(lengths[i] for i, _ in batch) * 16 - sum(lengths[i] for i, _ in batch) for batch in order)

    assert padding(sorted_order) < 0.1 * padding(plain_order)
    assert sorted(i for batch in sorted_order for i, _ in batch) == list(range(640))
    first = [max(lengths[i] for i, _ in batch) for batch in sorted_order]
    assert first != sorted(first)  # batches still come in random order
    assert [*even(640, 16, 40, 1)] == [*plain_order]


@pytest.mark.faults
def test_kill_and_resume_at_any_number_of_workers(tmp_path, fault):
    script = Path(__file__).parents[1] / "support" / "resume_data.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, env=environment(tmp_path))

    def log(*path):
        return [json.loads(line) for line in tmp_path.joinpath(*path).read_text().splitlines()]

    whole = log("whole", "log")
    assert [step for step, _, _ in whole] == list(range(16))
    assert {turn for _, _, turns in whole for turn in turns} == {0, 1, 2}
    for workers in ("0", "1", "2"):
        before, after = log(workers, "before"), log(workers, "log")
        assert before == whole[:9]  # killed in step 8
        assert (
            after == whole[6:]
        )  # the last checkpoint was after step 5; the rest and the passes that follow are the same
    fault("SIGKILL with 0 to 2 loading workers", "the same batches", "same order of clips")


def settings(tmp_path, **given):
    return MediaSettings(cache=str(tmp_path / "cache"), workers=1, **given)


@pytest.fixture
def odd(tmp_path, corpus):
    """A good clip, one without sound, a short one, a truncated one, one with its sound elsewhere, and one that is not there."""
    folder = tmp_path / "clips"
    folder.mkdir()
    write_clip(folder / "whole.mp4", frames=40, faststart=True)
    files = {
        "good": (write_clip(folder / "good.mp4", frames=40), None),
        "silent": (write_clip(folder / "silent.mp4", frames=40, audio=None), None),
        "short": (write_clip(folder / "short.mp4", frames=3), None),
        "truncated": (cut(folder / "whole.mp4", folder / "truncated.mp4", 0.5), None),
        "apart": (write_folder(folder / "00007", frames=12), write_wav(folder / "7.wav")),
        "absent": (str(folder / "absent.mp4"), None),
    }
    return [Clip(name, video, "sad", "train", audio=audio) for name, (video, audio) in files.items()]


def test_features_are_those_of_the_files_whatever_is_beside_them(policy, corpus, tmp_path):
    clips = corpus.clips("train")[:20]
    reader = ClipReader(settings(tmp_path, tower_batch=4), policy)
    samples = reader.samples(clips)
    assert [clip.id for clip, _ in samples] == [clip.id for clip in clips]
    direct = encode_files(policy, [clip.video for clip in clips])
    for (_, found), wanted in zip(samples, direct, strict=True):
        assert set(found) == {"video", "audio"}
        for name, value in found.items():
            assert value.dtype == torch.float16
            assert torch.allclose(value.float(), wanted[name], atol=2e-3, rtol=2e-3)
    other = ClipReader(MediaSettings(cache=str(tmp_path / "other"), workers=1, tower_batch=4), policy)
    few = other.samples(clips[7:10])  # built in other company
    for (_, found), (_, wanted) in zip(few, samples[7:10], strict=True):
        assert all(torch.equal(found[name], wanted[name]) for name in found)
    assert reader.notes == []


def test_without_a_cache_the_towers_give_the_same(policy, corpus, tmp_path):
    clips = corpus.clips("train")[:5]
    cached = ClipReader(settings(tmp_path), policy).samples(clips)
    anew = ClipReader(settings(tmp_path, cache_towers=False), policy).samples(clips)
    assert set(anew.raw(0)[1]) == {"pixels", "mel"}
    for (_, found), (_, wanted) in zip(anew[1:4], cached[1:4], strict=True):
        assert all(torch.allclose(found[name], wanted[name].float(), atol=2e-3, rtol=2e-3) for name in wanted)


def test_every_problem_is_listed_at_once_and_nothing_is_lost(policy, odd, tmp_path):
    reader = ClipReader(settings(tmp_path), policy)
    with pytest.raises(UnusableClips) as caught:
        reader.samples(odd)
    message = str(caught.value)
    assert "clips that are corrupt: 1; replace them, or set media.on_corrupt=skip or mask:" in message
    assert "truncated: " in message
    assert "clips that are not there: 1; replace them, or set media.on_missing=skip or mask:" in message
    assert "silent" not in message
    kept = ClipReader(settings(tmp_path, on_missing="skip", on_corrupt="skip"), policy)
    samples = kept.samples(odd)
    assert [clip.id for clip in samples.clips] == ["good", "silent", "short", "apart"]
    assert [sorted(row) for _, row in samples] == [
        ["audio", "video"],
        ["video"],
        ["audio", "video"],
        ["audio", "video"],
    ]
    assert {(n.clip, n.defect, n.action) for n in kept.notes} == {
        ("silent", "no_audio", "mask"), ("short", "short", "repeat"), ("truncated", "corrupt", "skip"),
        ("absent", "missing", "skip"),
    }  # fmt: skip
    masked = ClipReader(settings(tmp_path, on_missing="skip", on_corrupt="mask"), policy)
    assert "truncated" not in [clip.id for clip in masked.samples(odd).clips]  # its sound is cut too
    pickier = ClipReader(
        settings(tmp_path, on_missing="skip", on_corrupt="skip", on_no_audio="skip", on_short="skip"), policy
    )
    assert [clip.id for clip in pickier.samples(odd).clips] == ["good", "apart"]


def test_a_clip_without_sound_has_no_sound_in_its_prompt_and_its_own_logits(policy, odd, tmp_path):
    samples = ClipReader(settings(tmp_path, on_missing="skip", on_corrupt="skip"), policy).samples(odd)
    rows = [row for _, row in samples]
    prompts = [policy.processor.prompt_of(row, ("video", "audio")) for row in rows]
    assert [p == policy.processor.prompt(("video",)) for p in prompts] == [False, True, False, False]
    with torch.no_grad():
        together = policy.model(policy.processor.collate(prompts, rows)).logits
        alone = policy.model(policy.processor.collate(prompts[1:2], rows[1:2])).logits
    assert torch.allclose(together[1, : alone.shape[1]], alone[0], atol=1e-4)


def test_one_modality_is_read_and_encoded_alone(policy, odd, tmp_path):
    picture = ClipReader(settings(tmp_path, modalities=["video"], on_missing="skip", on_corrupt="skip"), policy)
    assert all(set(row) == {"video"} for _, row in picture.samples(odd))
    assert {note.defect for note in picture.notes} == {"short", "corrupt", "missing"}
    sound = ClipReader(settings(tmp_path, modalities=["audio"], on_missing="skip", on_corrupt="skip"), policy)
    assert [clip.id for clip in sound.samples(odd).clips] == ["good", "short", "apart"]


def test_augmentation_changes_training_alone_and_needs_no_cache(policy, corpus, tmp_path):
    clips = corpus.clips("train")[:3]
    strong = Augmentation(0.5, 0.4, 0.2, 0.04, 10, 0.1, 0.5)
    with pytest.raises(UnusableClips, match=r"clips are augmented, so the towers see .* set media.cache_towers=false"):
        ClipReader(settings(tmp_path), policy, strong).samples(clips, training=True)
    reader = ClipReader(settings(tmp_path, cache_towers=False), policy, strong, seed=3)
    samples, dev = reader.samples(clips, training=True), reader.samples(clips)
    assert torch.equal(samples.raw(1, 4)[1]["pixels"], samples.raw(1, 4)[1]["pixels"])
    assert not torch.equal(samples.raw(1, 4)[1]["pixels"], samples.raw(1, 5)[1]["pixels"])
    assert not torch.equal(samples.raw(1, 4)[1]["mel"], samples.raw(1, 5)[1]["mel"])
    plain_one = ClipReader(settings(tmp_path, cache_towers=False), policy).samples(clips)
    assert torch.equal(dev.raw(1, 4)[1]["pixels"], plain_one.raw(1)[1]["pixels"])
    off = ClipReader(settings(tmp_path), policy, Augmentation())  # augment=none
    assert set(off.samples(clips, training=True).raw(0)[1]) == {"video", "audio"}


def test_features_of_towers_that_are_trained_are_not_kept(policy, corpus, tmp_path):
    clips = corpus.clips("train")[:2]
    policy.model.set_trainable(["vision_tower", "mm_projector"])
    try:
        with pytest.raises(
            UnusableClips, match=r"policy.train has vision_tower, .* would be wrong; set media.cache_towers=false"
        ):
            ClipReader(settings(tmp_path), policy).samples(clips, training=True)
        reader = ClipReader(settings(tmp_path, cache_towers=False), policy)
        batch = reader.samples(clips, training=True)[:]
        sum(row["video"].sum() for _, row in batch).backward()
        assert policy.model.vision_tower.embeddings.patch_embedding.weight.grad is not None
        assert policy.model.audio_tower.conv1.weight.grad is None
    finally:
        policy.model.zero_grad()
        policy.model.set_trainable(["language_model"])


def test_a_file_that_broke_after_it_was_screened_is_named(policy, tmp_path):
    clip = Clip("a", write_clip(tmp_path / "a.mp4", frames=40), "sad", "train")
    samples = ClipReader(settings(tmp_path, cache_towers=False), policy).samples([clip])
    (tmp_path / "a.mp4").write_bytes(b"gone")
    with pytest.raises(Exception, match=r"a.mp4: was sound and is not any more \(video: cannot be decoded"):
        samples.raw(0)


def test_what_was_left_out_is_in_the_run_folder_and_beside_the_figures(demo, tmp_path, corpus):
    """SFT on someone's own clips with every defect, through the command."""
    (tmp_path / "clips").mkdir()
    lines = ["video,label,split,rationale"]
    for split in ("train", "test"):
        for clip in corpus.clips(split):
            name = Path(clip.video).name
            (tmp_path / "clips" / name).write_bytes(Path(clip.video).read_bytes())
            lines.append(f'clips/{name},{clip.label},{split},"{clip.rationale}"')
    write_clip(tmp_path / "clips" / "silent.mp4", frames=30, audio=None)
    write_clip(tmp_path / "whole.mp4", frames=40, faststart=True)
    cut(tmp_path / "whole.mp4", tmp_path / "clips" / "cut.mp4", 0.5)
    for name, split in (("silent", "train"), ("cut", "train"), ("absent", "test")):
        lines.append(f"clips/{name}.mp4,sad,{split},The voice is low.")
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
    models = {name: next((demo / "runs" / "demo" / name).glob("*/model")) for name in ("sft", "verifier")}
    command = [
        "+exp=sft_demo", "~judge", "data=manifest", "data.file=own.csv", "data.taxonomy=dfew", "data.dev=0.1",
        f"policy.checkpoint={models['sft']}", f"verifier.model.checkpoint={models['verifier']}", "verifier.gate=null",
        "algo.epochs=1", "algo.batch_size=8", "evaluation.samples=1", "evaluation.max_new_tokens=12",
        "trainer.val_check_interval=2", "loader.workers=1", "loader.window=2",
    ]  # fmt: skip
    for skipped, message in (
        ([], "clips that are not there: 1; replace them, or set media.on_missing=skip or mask:\n    clips/absent: "),
        (["media.on_missing=skip"],
         "clips that are corrupt: 1; replace them, or set media.on_corrupt=skip or mask:\n    clips/cut: "),
    ):  # fmt: skip
        refused = train(tmp_path, *command, *skipped, check=False)  # what is evaluated is read before training begins
        assert refused.returncode == 2
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr
    train(tmp_path, *command, "media.on_corrupt=skip", "media.on_missing=skip")
    (metrics,) = tmp_path.glob("runs/demo/sft/*/metrics.json")
    found = json.loads(metrics.read_text())
    assert found["clips"] == 8
    assert found["media"]["test"] == {"skip": {"missing": 1}}
    counts = Counter()
    for split in ("train", "dev"):
        for action, defects in found["media"].get(split, {}).items():
            counts.update({(action, defect): n for defect, n in defects.items()})
    assert counts == {("skip", "corrupt"): 1, ("mask", "no_audio"): 1}
    rows = [json.loads(line) for line in (metrics.parent / "media.jsonl").read_text().splitlines()]
    assert {(r["clip"], r["defect"], r["action"]) for r in rows} == {
        ("clips/cut", "corrupt", "skip"), ("clips/silent", "no_audio", "mask"), ("clips/absent", "missing", "skip"),
    }  # fmt: skip
    assert all(r["reason"] for r in rows)
    began = json.loads((metrics.parent / "env.json").read_text())["data"]
    assert (began["corpus"], began["test"]["clips"], began["train"]["clips"] + began["dev"]["clips"]) == (
        "manifest",
        9,
        34,
    )
    trained_on = json.loads((metrics.parent / "model" / "trained_on.json").read_text())
    assert [row["stage"] for row in trained_on] == ["towers", "sft", "sft"]
    assert "manifest/clips/silent" in trained_on[-1]["clips"]
    assert "manifest/clips/cut" not in trained_on[-1]["clips"]


def test_weights_are_not_tested_on_what_they_were_trained_on(demo):
    command = [sys.executable, "-m", "erv.evaluate", "+exp=eval_demo", "data.clips=48", "data.dev=8", "data.test=8",
               "checkpoint=runs/demo/grpo_erv", "evaluation.split=train"]  # fmt: skip
    done = subprocess.run(command, cwd=demo, env=warm(demo), capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "the evaluation clips are no clean test of policy.checkpoint=" in done.stderr
    assert "its towers run" in done.stderr
    assert "was trained on 32 of them, first synthetic/0-" in done.stderr
    assert "use other weights or another fold, or set evaluation.on_leak=warn" in done.stderr
    test = [
        clip.id
        for clip in SyntheticCorpus(str(demo / "data" / "synthetic" / "48-0"), clips=48, dev=8, test=8).clips("test")
    ]
    trained = provenance.read(next((demo / "runs" / "demo" / "grpo_erv").glob("*/model")))
    assert [training.stage for training in trained] == ["towers", "sft", "grpo"]
    assert provenance.overlaps(trained, {f"synthetic/{id_}" for id_ in test}) == []
    assert provenance.read(demo) is None


def weights_of(folder):
    return load_file(folder / "model" / "model.safetensors")


def test_towers_are_trained_and_clips_augmented_through_the_commands(demo):
    small = ["+exp=sft_demo", "+debug=demo", "evaluation.limit=2", "loader.workers=1"]
    both = ["policy.train=[language_model,mm_projector,audio_projector,bert_gate,vision_tower]", "augment=strong"]
    refused = train(demo, *small, *both, "name=towers_trained", check=False)
    assert refused.returncode == 2
    assert "policy.train has vision_tower, so the towers see other inputs or change at every step" in refused.stderr
    train(demo, *small, *both, "media.cache_towers=false", "name=towers_trained")
    train(demo, *small, "media.cache_towers=false", "name=augmented", "augment=strong")
    train(demo, *small, "media.cache_towers=false", "name=augmented_again", "augment=strong", "loader.workers=0")
    before = weights_of(next((demo / "runs" / "demo" / "towers").iterdir()))
    trained, augmented, again, plain_run = (
        weights_of(next((demo / "runs" / "demo" / name).iterdir()))
        for name in ("towers_trained", "augmented", "augmented_again", "sft")
    )
    tower = "vision_tower.encoder.layers.0.self_attn.q_proj.weight"
    assert torch.equal(before[tower], augmented[tower])
    assert not torch.equal(before[tower], trained[tower])
    assert torch.equal(before["audio_tower.conv1.weight"], trained["audio_tower.conv1.weight"])
    projector = "audio_projector.0.weight"
    assert torch.equal(augmented[projector], again[projector])  # the same at any number of workers
    assert not torch.equal(augmented[projector], plain_run[projector])
    done = train(demo, "+exp=grpo_demo", "+debug=demo", "name=x", "media.cache_towers=false", both[0], check=False)
    assert done.returncode == 2
    assert "it trains no towers; policy.train has vision_tower" in done.stderr
