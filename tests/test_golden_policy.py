"""HumanOmni against every intermediate tensor the released code produced on tiny random weights.

Set ERV_FIXTURES to run on another folder; every `model_*.config.json` in it is a model to check.
"""

import json

import pytest
import released
import torch

from erv.policy.checkpoint import to_original_names
from erv.policy.model import PolicyBatch


def close(got, want, tolerance=1e-5):
    torch.testing.assert_close(got.float(), want.float(), atol=tolerance, rtol=0)


@pytest.fixture(scope="module", params=released.MODELS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    return released.model(name)


def batch_of(t, model, labels=None):
    ids = t["input_ids"]
    mask = t.get("attention_mask", torch.ones_like(ids, dtype=torch.bool))
    frames = t["frames"] if t["frames"].ndim == 5 else t["frames"][None]
    with torch.no_grad():
        video = model.encode_video(frames)
        audio = model.encode_audio(t["mel"]) if "mel" in t else None
    return PolicyBatch(ids, mask.bool(), t["bert_input_ids"], t["bert_attention_mask"], video, audio, labels)


def test_there_is_a_model_to_check():
    assert released.MODELS


def test_the_config_lists_exactly_our_weights(name, model):
    """Names and shapes of all parameters, as the released code printed them."""
    listed = {n: tuple(shape) for n, (shape, _) in released.sizes(name)["state_dict"].items()}
    found = {n: tuple(v.shape) for n, v in to_original_names(model.state_dict()).items()}
    unused = {n for n in listed if ".audio_tower.audio_tower." in n and ".encoder." not in n}
    tied = {"lm_head.weight"} if model.config.text_config.tie_word_embeddings else set()
    assert {n: s for n, s in found.items() if n not in tied} == {
        n: s for n, s in listed.items() if n not in unused | tied
    }


def test_towers_and_bert(name, model):
    t = released.case(name, "A")
    batch = batch_of(t, model)
    close(batch.video[0], t["vision_tower"])
    with torch.no_grad():
        close(model.audio_tower(t["mel"]).last_hidden_state, t["audio_tower"])
        bert = {"input_ids": t["bert_input_ids"], "attention_mask": t["bert_attention_mask"]}
        close(model.bert_model(**bert).last_hidden_state, t["bert"])
        close(model.bert_gate(t["bert"][:, 0]), t["gate_logits"])
    close(batch.audio, t["audio_pooled"])


def test_every_tensor_of_one_clip_with_picture_and_sound(name, model):
    t = released.case(name, "A")
    batch = batch_of(t, model)
    with torch.no_grad():
        close(model.audio_projector(batch.audio), t["audio_projector"])
        weights = model.gate(batch.bert_input_ids, batch.bert_attention_mask)
        close(weights, t["branch_probs"])
        video, body, face = model.mm_projector(batch.video)
        close(video, t["proj_video"])
        close(body, t["proj_body"])
        close(model.mm_projector.face(batch.video)[0], t["proj_face"])
        close(face.reshape(t["face_pooled"].shape), t["face_pooled"])
        close(model.fuse(batch.video, weights), t["fused"])
        embeds, _, _ = model.embed(batch)
        close(embeds, t["inputs_embeds"])
        close(model(batch).logits, t["logits"], 1e-4)


def test_greedy_continuation_is_the_same(name, model):
    t = released.case(name, "A")
    new = model.generate(batch_of(t, model), max_new_tokens=12, min_new_tokens=12, do_sample=False)
    assert new.tolist() == t["greedy_12"].tolist()


def test_logits_that_predict_the_continuation(name, model):
    t = released.case(name, "A")
    with torch.no_grad():
        embeds, _, _ = model.embed(batch_of(t, model))
        follow = model.language_model.get_input_embeddings()(t["greedy_12"])
        logits = model.language_model(inputs_embeds=torch.cat([embeds, follow], dim=1)).logits
    close(logits[:, -13:-1], t["logits_with_continuation_last12"], 1e-4)


def test_sft_batch_of_two_ragged_prompts(name, model):
    t = released.case(name, "B")
    model.zero_grad()
    batch = batch_of(t, model, t["labels"])
    embeds, mask, labels = model.embed(batch)
    assert labels.tolist() == t["spliced_labels"].tolist()
    close(embeds[mask], t["inputs_embeds"][mask])  # what stands in the padding is nobody's business
    out = model(batch)
    close(out.logits[mask], t["logits"][mask], 1e-4)
    close(out.loss, t["loss"][0])
    out.loss.backward()
    found = to_original_names({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    wanted = {n.removeprefix("grad:"): value for n, value in t.items() if n.startswith("grad:")}
    assert wanted
    for parameter, value in wanted.items():
        close(found[parameter], value)
    norms = json.loads((released.FIXTURES / f"{name}.caseB_gradnorms.json").read_text())
    norms = {n: value for n, value in norms.items() if isinstance(value, float) and value > 0}
    assert len(norms) > 100
    assert norms.keys() <= found.keys()
    for parameter, norm in norms.items():
        assert float(found[parameter].norm()) == pytest.approx(norm, rel=1e-3, abs=1e-5), parameter


def test_video_only(name, model):
    t = released.case(name, "C")
    with torch.no_grad():
        batch = batch_of(t, model)
        close(model.fuse(batch.video, model.gate(batch.bert_input_ids, batch.bert_attention_mask)), t["fused"])
        close(model(batch).logits, t["logits"], 1e-4)
