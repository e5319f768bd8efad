"""HumanOmni and its preprocessing against what the released code made of tiny random weights, arrays and texts.

Set ERV_FIXTURES to run on another folder; every `model_*.config.json` in it is a model to check.
"""

import json

import numpy as np
import pytest
import released
import soundfile
import torch
from clips import write_clip
from files import load_media
from safetensors.torch import load_file
from transformers import WhisperFeatureExtractor

from erv.data.media.audio import read_audio
from erv.data.media.frames import frame_indices
from erv.data.media.resize import fit
from erv.policy.humanomni.batch import HumanOmniBatch
from erv.policy.humanomni.checkpoint import to_original_names
from erv.policy.humanomni.processor import Processor
from erv.policy.humanomni.prompts import PLACEHOLDERS, QUESTION
from erv.policy.humanomni.tokenizer import train_tokenizer

VIDEO = load_file(released.file("prep_video.safetensors"))
AUDIO = load_file(released.file("prep_audio.safetensors"))
PROMPTS = json.loads(released.file("prep_prompts.json").read_text())
CLIPS = sorted({name.split(".")[0] for name in VIDEO})


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
    return HumanOmniBatch(ids, mask.bool(), t["bert_input_ids"], t["bert_attention_mask"], video, audio, labels)


def test_there_is_a_model_to_check():
    assert released.MODELS


def test_the_config_lists_exactly_our_weights(name, model):
    """Names and shapes of all parameters, as the released code printed them."""
    listed = {n: tuple(shape) for n, (shape, _) in released.sizes(name)["state_dict"].items()}
    ours = {n: tuple(v.shape) for n, v in to_original_names(model.state_dict()).items()}
    unused = {n for n in listed if ".audio_tower.audio_tower." in n and ".encoder." not in n}
    tied = {"lm_head.weight"} if model.config.text_config.tie_word_embeddings else set()
    assert {n: s for n, s in ours.items() if n not in tied} == {
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
    gradients = to_original_names({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    expected = {n.removeprefix("grad:"): value for n, value in t.items() if n.startswith("grad:")}
    assert expected
    for parameter, value in expected.items():
        close(gradients[parameter], value)
    norms = json.loads(released.file(f"{name}.caseB_gradnorms.json").read_text())
    norms = {n: value for n, value in norms.items() if isinstance(value, float) and value > 0}
    assert len(norms) > 100
    assert norms.keys() <= gradients.keys()
    for parameter, norm in norms.items():
        assert float(gradients[parameter].norm()) == pytest.approx(norm, rel=1e-3, abs=1e-5), parameter


def test_video_only(name, model):
    t = released.case(name, "C")
    with torch.no_grad():
        batch = batch_of(t, model)
        close(model.fuse(batch.video, model.gate(batch.bert_input_ids, batch.bert_attention_mask)), t["fused"])
        close(model(batch).logits, t["logits"], 1e-4)


@pytest.fixture(scope="module")
def paper():
    return processor("paper")


def processor(preprocessing, mel_bins=128, question=QUESTION):
    tokenizers = released.tokenizer(), released.bert_tokenizer()
    return Processor(*tokenizers, 32, 8, mel_bins, 30.0, question, preprocessing)


def test_frame_indices_for_every_length():
    rows = json.loads(released.file("prep_frame_sample.json").read_text())
    assert rows
    for row in rows:
        assert frame_indices(row["duration"], row["num_frames"]) == row["indices"], row


def normalise(processor, frames):
    settings = processor.media_spec()
    return processor.tensors(fit(frames, settings.side, settings.aspect), None)["video"]


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize(("stage", "aspect"), [("sft", "pad"), ("grpo", "pad"), ("inference", "None")])
def test_pixels(paper, clip, stage, aspect):
    rgb = VIDEO[f"{clip}.rgb"].numpy()
    frames = rgb[frame_indices(len(rgb), 8)]
    close(normalise(paper.at(stage), frames), VIDEO[f"{clip}.{aspect}"])


@pytest.mark.parametrize("clip", CLIPS)
def test_consistent_preprocessing_pads_at_every_stage(clip):
    rgb = VIDEO[f"{clip}.rgb"].numpy()
    for stage in ("sft", "grpo", "inference"):
        close(normalise(processor("consistent").at(stage), rgb[frame_indices(len(rgb), 8)]), VIDEO[f"{clip}.pad"])


@pytest.mark.parametrize("bins", [80, 128])
def test_log_mel(bins):
    mel = processor("consistent", bins).log_mel(AUDIO["wave"].numpy())
    assert mel.shape == (bins, 3000)
    close(mel[:, :110], AUDIO[f"mel{bins}.first_110_frames"], 1e-4)
    if f"mel{bins}.last_3_frames" in AUDIO:
        close(mel[:, -3:], AUDIO[f"mel{bins}.last_3_frames"], 1e-4)


def test_log_mel_statistics_and_filters():
    stated = PROMPTS["audio"]
    mel = processor("paper").log_mel(AUDIO["wave"].numpy())[None]
    assert list(mel.shape) == stated["mel_shape"]
    for name in ("mean", "std", "min", "max"):
        assert float(getattr(mel, name)()) == pytest.approx(stated[f"mel_{name}"], abs=1e-4)
    filters = torch.from_numpy(np.asarray(WhisperFeatureExtractor(feature_size=128).mel_filters))
    close(filters, AUDIO["mel_filters_128"])


def test_sound_is_the_mean_of_its_channels(tmp_path):
    wave = AUDIO["wave"].numpy()
    soundfile.write(tmp_path / "stereo.wav", np.stack([wave, -wave / 2], axis=1), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "mono.wav", wave, 16000, subtype="FLOAT")
    stereo, mono = (torch.from_numpy(read_audio(str(tmp_path / f"{kind}.wav")).waveform) for kind in ("stereo", "mono"))
    close(stereo[:64], AUDIO["stereo_mean_first_64"])
    close(mono, AUDIO["train_raw"])


def test_a_clip_without_sound_is_silence_in_the_paper_and_nothing_otherwise(tmp_path):
    path = write_clip(tmp_path / "silent.mp4", frames=9, audio=None)
    mel = load_media(processor("paper"), path)["audio"]
    assert list(mel[None].shape) == PROMPTS["audio"]["no_audio_mel_shape"]
    assert (
        mel.unique().tolist() == PROMPTS["audio"]["no_audio_mel_unique"] == AUDIO["no_audio.mel_unique_values"].tolist()
    )
    assert "audio" not in load_media(processor("consistent"), path)


def modalities_of(text):
    return [name for name in ("image", "video", "audio") if f"<{name}>" in text]


@pytest.mark.parametrize("case", PROMPTS["sft"], ids=range(len(PROMPTS["sft"])))
def test_sft_prompt_target_and_bert_text(paper, case):
    sft = paper.at("sft")
    prompt = sft.prompt(modalities_of(case["after_add_audio"]))
    answer = case["chat_text"].split("<|im_start|>assistant\n")[1].removesuffix("<|im_end|>\n")
    target = sft.target_ids(answer)
    assert sft.style.content(modalities_of(case["user_text"]), QUESTION) == case["user_text"]
    assert [*prompt.ids, *target] == case["input_ids"]
    assert [-100] * len(prompt.ids) + target == case["labels"]
    assert prompt.bert == case["bert_prompt"]


def test_a_ragged_sft_batch_is_collated_as_it_was(paper):
    """The second row is the first one's first 30 tokens, read by BERT as another text."""
    stated = next(value for key, value in PROMPTS.items() if key.startswith("sft_collate"))
    case = PROMPTS["sft"][0]
    prompt = paper.at("sft").prompt()
    target = case["input_ids"][len(prompt.ids) :]
    short = prompt.__class__(tuple(case["input_ids"][:30]), "short")
    features = [{"video": torch.zeros(8, 16, 4), "audio": torch.zeros(10, 4)}] * 2
    batch = paper.collate([prompt, short], features, [target, []])
    assert batch.attention_mask.sum(1).tolist() == stated["attention_mask_sum"]
    assert batch.input_ids[1].tolist() == stated["input_ids_row1"]
    assert batch.labels[1].tolist() == stated["labels_row1"]
    assert batch.bert_input_ids[0].tolist() == stated["bert_input_ids"][0]
    assert batch.bert_attention_mask[0].tolist() == stated["bert_attention_mask"][0]


@pytest.mark.parametrize("case", PROMPTS["inference"]["cases"], ids=lambda c: c["modal"])
@pytest.mark.parametrize("preprocessing", ["paper", "consistent"])
def test_inference_prompt(case, preprocessing):
    """`consistent` writes prompts as the released inference does."""
    inference = processor(preprocessing, question=PROMPTS["inference"]["question"])
    prompt = inference.prompt(case["modal"].split("_"))
    assert list(prompt.ids) == case["input_ids"]
    assert inference.bert_tokenizer([prompt.bert])["input_ids"] == case["bert_input_ids"]


def test_inference_prompt_as_text(paper):
    text = PROMPTS["inference"]["prompt_video_audio"]
    assert paper.split_ids(text) == list(paper.at("inference").prompt().ids)


def test_grpo_prompt_has_the_foreign_template():
    stated = json.loads(released.file("grpo.json").read_text())["e2e"]
    grpo = processor("paper", question=stated["bert_prompt"]).at("grpo")
    prompt = grpo.prompt()
    assert list(prompt.ids) == grpo.split_ids(stated["prompt_text"])
    assert prompt.bert == stated["bert_prompt"]


def test_placeholders_are_split_off():
    paper = processor("paper")
    for case in PROMPTS["split"]:
        if "modal" not in case:  # a text prompt, whose tags are ordinary text, never passes through here
            assert paper.split_ids(case["text"]) == case["ids"], case


def test_placeholder_ids():
    assert PROMPTS["modal_index_map"] == PLACEHOLDERS


def test_an_answer_ends_where_the_released_criterion_stops():
    """Its rule: stop when the last token is the end token."""
    ends = processor("paper").eos_ids
    for case in PROMPTS["stopping"]:
        assert (case["ids"][-1] in ends) == case["stop"]


def test_the_foreign_template_needs_its_tokens():
    plain = train_tokenizer(["a text"] * 10)
    with pytest.raises(ValueError, match=r"preprocessing=paper writes GRPO prompts with .*video_pad.* does not know"):
        Processor(plain, released.bert_tokenizer(), 32, 8, 80, 30.0, preprocessing="paper")
    with pytest.raises(ValueError, match=r"policy.preprocessing is one of consistent, paper; got 'papr'"):
        Processor(plain, released.bert_tokenizer(), 32, 8, 80, 30.0, preprocessing="papr")
