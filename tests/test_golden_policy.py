"""HumanOmni against every intermediate tensor the released code produced on tiny random weights."""

import json

import pytest
import torch
from safetensors.torch import load_file

from erv.media.frames import frame_indices
from erv.policy.checkpoint import from_original_names, to_original_names
from erv.policy.config import HumanOmniConfig
from erv.policy.model import HumanOmni, PolicyBatch


def close(got, want, tolerance=1e-5):
    torch.testing.assert_close(got.float(), want.float(), atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def model(fixtures):
    sizes = json.loads((fixtures / "model_small.config.json").read_text())
    ours = ("mm_", "audio_", "image_", "num_frames", "architectures", "model_type")
    text = {k: v for k, v in sizes["llm"].items() if not k.startswith(ours)}
    config = HumanOmniConfig(
        text_config=text, vision_config=sizes["vision"], audio_config=sizes["audio"], bert_config=sizes["bert"],
        mm_projector_type=sizes["llm"]["mm_projector_type"], num_frames=sizes["llm"]["num_frames"],
        mm_vision_select_layer=sizes["llm"]["mm_vision_select_layer"],
    )  # fmt: skip
    state = {}
    for file in sorted(fixtures.glob("model_small.state*.safetensors")):
        state |= load_file(file)
    built = HumanOmni(config)
    missing, unexpected = built.load_state_dict(from_original_names(state), strict=False)
    tied = ["language_model.lm_head.weight"] if text["tie_word_embeddings"] else []
    assert [n for n in missing if n not in tied] == []
    assert unexpected == []
    return built.set_trainable(["language_model", "mm_projector", "audio_projector", "bert_gate"]).eval()


def case(fixtures, name):
    (file,) = fixtures.glob(f"model_small.case{name}_*.safetensors")
    return load_file(file)


def batch_of(t, model, labels=None):
    ids = t["input_ids"]
    mask = t.get("attention_mask", torch.ones_like(ids, dtype=torch.bool))
    frames = t["frames"] if t["frames"].ndim == 5 else t["frames"][None]
    with torch.no_grad():
        video = model.encode_video(frames)
        audio = model.encode_audio(t["mel"]) if "mel" in t else None
    return PolicyBatch(ids, mask.bool(), t["bert_input_ids"], t["bert_attention_mask"], video, audio, labels)


def test_names_go_both_ways(fixtures):
    names = list(load_file(fixtures / "model_small.state_part1.safetensors"))
    state = {name: torch.zeros(1) for name in names}
    assert list(to_original_names(from_original_names(state))) == names


def test_every_tensor_of_one_clip_with_picture_and_sound(fixtures, model):
    t = case(fixtures, "A")
    batch = batch_of(t, model)
    with torch.no_grad():
        close(batch.video[0], t["vision_tower"])
        close(batch.audio, t["audio_pooled"])
        close(model.audio_projector(batch.audio), t["audio_projector"])
        weights = model.gate(batch.bert_input_ids, batch.bert_attention_mask)
        close(weights, t["branch_probs"])
        video, body, face = model.mm_projector(batch.video)
        close(video, t["proj_video"])
        close(body, t["proj_body"])
        close(face.reshape(t["face_pooled"].shape), t["face_pooled"])
        close(model.fuse(batch.video, weights), t["fused"])
        embeds, _, _ = model.embed(batch)
        close(embeds, t["inputs_embeds"])
        close(model(batch).logits, t["logits"], 1e-4)


def test_greedy_continuation_is_the_same(fixtures, model):
    t = case(fixtures, "A")
    with torch.no_grad():
        embeds, mask, _ = model.embed(batch_of(t, model))
        new = model.language_model.generate(
            inputs_embeds=embeds, attention_mask=mask.long(), max_new_tokens=12, min_new_tokens=12, do_sample=False
        )
    assert new.tolist() == t["greedy_12"].tolist()


def test_sft_batch_of_two_ragged_prompts(fixtures, model):
    t = case(fixtures, "B")
    model.zero_grad()
    batch = batch_of(t, model, t["labels"])
    embeds, mask, labels = model.embed(batch)
    assert labels.tolist() == t["spliced_labels"].tolist()
    close(embeds[mask], t["inputs_embeds"][mask])  # what stands in the padding is nobody's business
    out = model(batch)
    close(out.loss, t["loss"][0])
    out.loss.backward()
    found = to_original_names({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    wanted = {name.removeprefix("grad:"): value for name, value in t.items() if name.startswith("grad:")}
    for name, value in wanted.items():
        close(found[name], value)
    norms = json.loads((fixtures / "model_small.caseB_gradnorms.json").read_text())
    norms = {name: value for name, value in norms.items() if isinstance(value, float) and value > 0}
    compared = {name: float(found[name].norm()) for name in norms if name in found}
    assert len(compared) > 100
    for name, norm in compared.items():
        assert norm == pytest.approx(norms[name], rel=1e-3, abs=1e-5), name


def test_video_only(fixtures, model):
    t = case(fixtures, "C")
    with torch.no_grad():
        close(model(batch_of(t, model)).logits, t["logits"], 1e-4)


def test_frame_indices_for_every_length(fixtures):
    for row in json.loads((fixtures / "prep_frame_sample.json").read_text()):
        assert list(frame_indices(row["duration"], row["num_frames"])) == row["indices"], row
