"""Frames, sound, prompts and labels against what the released code made of the same arrays and texts."""

import json

import numpy as np
import pytest
import released
import soundfile
import torch
from safetensors.torch import load_file
from transformers import WhisperFeatureExtractor

from erv.media.audio import read_audio
from erv.media.frames import frame_indices
from erv.policy.processor import Processor
from erv.policy.prompts import QUESTION
from erv.policy.tokenizer import train_tokenizer

VIDEO = load_file(released.FIXTURES / "prep_video.safetensors")
AUDIO = load_file(released.FIXTURES / "prep_audio.safetensors")
PROMPTS = json.loads((released.FIXTURES / "prep_prompts.json").read_text())
CLIPS = sorted({name.split(".")[0] for name in VIDEO})


def close(got, want, tolerance=1e-5):
    torch.testing.assert_close(got.float(), want.float(), atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def paper():
    return processor("paper")


def processor(preprocessing, mel_bins=128, question=QUESTION):
    tokenizers = released.tokenizer(), released.bert_tokenizer()
    return Processor(*tokenizers, 32, 8, mel_bins, 30.0, question, preprocessing)


def test_frame_indices_for_every_length():
    rows = json.loads((released.FIXTURES / "prep_frame_sample.json").read_text())
    assert rows
    for row in rows:
        assert frame_indices(row["duration"], row["num_frames"]) == row["indices"], row


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize(("stage", "aspect"), [("sft", "pad"), ("grpo", "pad"), ("inference", "None")])
def test_pixels(paper, clip, stage, aspect):
    rgb = VIDEO[f"{clip}.rgb"].numpy()
    frames = rgb[frame_indices(len(rgb), 8)]
    close(paper.at(stage).normalise(frames), VIDEO[f"{clip}.{aspect}"])


@pytest.mark.parametrize("clip", CLIPS)
def test_consistent_preprocessing_pads_at_every_stage(clip):
    rgb = VIDEO[f"{clip}.rgb"].numpy()
    for stage in ("sft", "grpo", "inference"):
        close(processor("consistent").at(stage).normalise(rgb[frame_indices(len(rgb), 8)]), VIDEO[f"{clip}.pad"])


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
    stereo, mono = (torch.from_numpy(read_audio(str(tmp_path / f"{kind}.wav"))) for kind in ("stereo", "mono"))
    close(stereo[:64], AUDIO["stereo_mean_first_64"])
    close(mono, AUDIO["train_raw"])


def test_a_clip_without_sound_is_silence_in_the_paper_and_nothing_otherwise(tmp_path):
    from test_media import write_video

    path = write_video(tmp_path / "silent.mp4", [np.zeros((32, 32, 3), dtype=np.uint8)] * 9)
    mel = processor("paper").load_media(path)["audio"]
    assert list(mel[None].shape) == PROMPTS["audio"]["no_audio_mel_shape"]
    assert (
        mel.unique().tolist() == PROMPTS["audio"]["no_audio_mel_unique"] == AUDIO["no_audio.mel_unique_values"].tolist()
    )
    assert "audio" not in processor("consistent").load_media(path)


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
    found = processor(preprocessing, question=PROMPTS["inference"]["question"])
    prompt = found.prompt(case["modal"].split("_"))
    assert list(prompt.ids) == case["input_ids"]
    assert found.bert_tokenizer([prompt.bert])["input_ids"] == case["bert_input_ids"]


def test_inference_prompt_as_text(paper):
    text = PROMPTS["inference"]["prompt_video_audio"]
    assert paper.split_ids(text) == list(paper.at("inference").prompt().ids)


def test_grpo_prompt_has_the_foreign_template():
    stated = json.loads((released.FIXTURES / "grpo.json").read_text())["e2e"]
    grpo = processor("paper", question=stated["bert_prompt"]).at("grpo")
    prompt = grpo.prompt()
    assert list(prompt.ids) == grpo.split_ids(stated["prompt_text"])
    assert prompt.bert == stated["bert_prompt"]


def test_placeholders_are_split_off():
    found = processor("paper")
    for case in PROMPTS["split"]:
        if "modal" not in case:  # a text prompt, whose tags are ordinary text, never passes through here
            assert found.split_ids(case["text"]) == case["ids"], case


def test_placeholder_ids():
    from erv.policy.prompts import PLACEHOLDERS

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
