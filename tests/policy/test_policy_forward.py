"""The forward pass: ragged batches, precision, memory-saving and adapters change nothing they should not."""

import copy
from dataclasses import replace

import pytest
import released
import torch
from safetensors.torch import load_file
from small_configs import tiny
from transformers.utils import is_flash_attn_2_available

from erv.policy import Policy, load_policy, save_policy
from erv.policy.humanomni.config import HumanOmniConfig
from erv.policy.humanomni.model import HumanOmni
from erv.policy.humanomni.processor import Processor

NAME = "model_small"


@pytest.fixture(scope="module")
def policy():
    model = released.model(NAME)
    model.language_model.set_attn_implementation("sdpa")
    size = model.config.vision_config.image_size
    processor = Processor(released.tokenizer(), released.bert_tokenizer(), size, 8, 80, model.config.audio_seconds)
    return Policy(model, processor)


def features(policy, frames=8, audio=True, seed=0):
    """Tower features of one random clip."""
    sizes = policy.model.config
    draw = torch.Generator().manual_seed(seed)
    clip = {"video": torch.randn(frames, sizes.grid**2, sizes.vision_config.hidden_size, generator=draw)}
    if audio:
        clip["audio"] = torch.randn(sizes.audio_tokens, sizes.audio_config.d_model, generator=draw)
    return clip


def clips(policy):
    """Four clips that differ in all that a batch can differ in: modalities, frames, question, length of the answer."""
    make = policy.processor
    prompts = [
        make.prompt(),
        make.prompt(["video"], "which emotion?"),
        make.prompt(["video", "audio"], "the final emotion in the video"),
        make.prompt(["audio"], "emotion, please"),
    ]
    frames_and_audio = [(8, True), (5, False), (3, True), (8, True)]
    rows = [features(policy, frames, audio, seed) for seed, (frames, audio) in enumerate(frames_and_audio)]
    targets = [make.target_ids("a sad face " * n) for n in (3, 1, 2, 4)]
    return prompts, rows, targets


def test_a_batch_of_four_ragged_clips_gives_each_clip_its_own_logits(policy):
    prompts, rows, targets = clips(policy)
    batch = policy.processor.collate(prompts, rows, targets)
    assert batch.frames.tolist() == [8, 5, 3]
    with torch.no_grad():
        together = policy.model(batch)
        _, mask, labels = policy.model.embed(batch)
        losses = []
        for i in range(4):
            alone = policy.model(policy.processor.collate(prompts[i : i + 1], rows[i : i + 1], targets[i : i + 1]))
            length = alone.logits.shape[1]
            assert int(mask[i].sum()) == length
            torch.testing.assert_close(together.logits[i, :length], alone.logits[0], atol=1e-4, rtol=0)
            losses.append(alone.loss * len(targets[i]))
    torch.testing.assert_close(together.loss, sum(losses) / sum(map(len, targets)), atol=1e-5, rtol=0)
    assert (labels != -100).sum(1).tolist() == [len(t) for t in targets]


def test_a_batch_of_four_ragged_clips_gives_each_clip_its_own_text(policy):
    prompts, rows, _ = clips(policy)
    settings = {"max_new_tokens": 16, "min_new_tokens": 16, "do_sample": False}
    together = policy.model.generate(policy.processor.collate(prompts, rows), **settings)
    for i in range(4):
        alone = policy.model.generate(policy.processor.collate(prompts[i : i + 1], rows[i : i + 1]), **settings)
        assert policy.processor.decode(together[i]) == policy.processor.decode(alone[0])
        assert together[i].tolist() == alone[0].tolist()


def test_padding_on_the_left_changes_nothing(policy):
    prompts, rows, _ = clips(policy)
    right = policy.processor.collate(prompts, rows)
    size = right.input_ids.shape[1]
    order = (torch.arange(size)[None] + right.attention_mask.sum(1, keepdim=True)) % size
    left = replace(
        right, input_ids=right.input_ids.gather(1, order), attention_mask=right.attention_mask.gather(1, order)
    )
    assert not left.attention_mask[1, 0]
    with torch.no_grad():
        torch.testing.assert_close(policy.model(left).logits, policy.model(right).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_each_modality_reaches_the_answer(policy, modality):
    prompts, rows, targets = clips(policy)
    batch = policy.processor.collate(prompts[:1], rows[:1], targets[:1])
    with torch.no_grad():
        with_both = policy.model(batch).logits.log_softmax(-1)
        without = policy.model(replace(batch, **{modality: torch.zeros_like(getattr(batch, modality))}))
    assert (with_both - without.logits.log_softmax(-1))[0, -len(targets[0]) :].abs().max() > 0.01


def test_a_clip_of_few_frames_has_few_tokens(policy):
    one = policy.processor.collate([policy.processor.prompt(["video"])], [features(policy, 2, audio=False)])
    per_frame = ((policy.model.config.grid + 1) // 2) ** 2
    _, mask, _ = policy.model.embed(one)
    assert int(mask.sum()) == one.input_ids.shape[1] - 1 + 2 * per_frame


def test_layers_behind_the_selected_one_are_not_needed(policy):
    """encode_video equals the library's own hidden state of that layer."""
    frames = torch.randn(2, 3, 3, 32, 32)
    tower = policy.model.vision_tower
    with torch.no_grad():
        states = tower(frames.flatten(0, 1), output_hidden_states=True).hidden_states
        for layer in (-2, -1, 1):
            model = copy.copy(policy.model)
            model.config = copy.copy(policy.model.config)
            model.config.mm_vision_select_layer = layer
            torch.testing.assert_close(model.encode_video(frames).flatten(0, 1), states[layer])


def test_bf16_stays_close_to_fp32(policy):
    """Norms and softmaxes keep their precision; only matrix products are rounded."""
    prompts, rows, targets = clips(policy)
    batch = policy.processor.collate(prompts, rows, targets)
    half = released.model(NAME, torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        mask = policy.model.embed(batch)[1]
        exact = policy.model(batch).logits[mask].log_softmax(-1)
        rounded = half(batch).logits[mask].float().log_softmax(-1)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = policy.model(batch).logits[mask].float().log_softmax(-1)
    for logps in (rounded, mixed):
        assert logps.isfinite().all()
        assert (logps - exact).abs().mean() < 0.02
        assert (logps.argmax(-1) == exact.argmax(-1)).float().mean() > 0.9
    assert half.gate(batch.bert_input_ids, batch.bert_attention_mask).dtype == torch.float32


@pytest.mark.parametrize("train", [("mm_projector", "audio_projector", "bert_gate"), ("language_model",)])
def test_small_steps_are_not_rounded_away(policy, train):
    """What is trained of a policy in bf16 is widened: a step of RL is smaller than bf16's distance between two weights."""
    prompts, rows, targets = clips(policy)
    batch = policy.processor.collate(prompts, rows, targets)
    shares = []
    for widen in (False, True):
        model = released.model(NAME, torch.bfloat16).set_trainable(train)
        if widen:
            model.widen_trained()
        assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
        trained = [p for p in model.parameters() if p.requires_grad]
        assert {p.dtype for p in trained} == {torch.float32 if widen else torch.bfloat16}
        before = [p.detach().clone() for p in trained]
        model(batch).loss.backward()
        torch.optim.AdamW(trained, lr=1e-6, weight_decay=0.0).step()
        moved, sizes = zip(
            *((int((b != p).sum()), p.numel()) for p, b in zip(trained, before, strict=True) if (p.grad != 0).all()),
            strict=True,
        )
        shares.append(sum(moved) / sum(sizes))
    assert shares[0] < 0.1
    assert shares[1] > 0.9


def gradients(model, batch):
    model.train()
    model.zero_grad()
    loss = model(batch).loss
    loss.backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.eval()
    return loss.detach(), grads


def test_gradient_checkpointing_changes_memory_only(policy):
    prompts, rows, targets = clips(policy)
    batch = policy.processor.collate(prompts, rows, targets)
    loss, plain = gradients(policy.model, batch)
    runs = []
    layers = policy.model.language_model.model.layers
    hook = layers[1].mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    policy.model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    again, checkpointed = gradients(policy.model, batch)
    policy.model.language_model.gradient_checkpointing_disable()
    hook.remove()
    assert len(runs) == 2  # once forward, once again in backward
    assert torch.equal(loss, again)
    assert plain.keys() == checkpointed.keys()
    for name, value in plain.items():
        torch.testing.assert_close(checkpointed[name], value, atol=1e-6, rtol=1e-5)


def test_lora_trains_adapters_of_every_layer_and_is_merged_on_disk(tmp_path, policy):
    save_policy(policy, tmp_path / "start")
    adapted = load_policy(str(tmp_path / "start"), lora={"r": 4, "lora_alpha": 8}, train=["language_model"])
    trained = [n for n, p in adapted.model.named_parameters() if p.requires_grad]
    layers = policy.model.config.text_config.num_hidden_layers
    assert len(trained) == layers * 7 * 2
    assert all("lora_" in n for n in trained)
    prompts, rows, targets = clips(policy)
    batch = policy.processor.collate(prompts, rows, targets)
    with torch.no_grad():
        before = policy.model(batch).logits
        assert torch.equal(adapted.model(batch).logits, before)  # adapters begin as nothing
    optimiser = torch.optim.SGD([p for p in adapted.model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(3):
        adapted.model(batch).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    save_policy(adapted, tmp_path / "end")
    merged = load_policy(str(tmp_path / "end"))
    assert not merged.model.adapted
    assert merged.model.state_dict().keys() == policy.model.state_dict().keys()
    with torch.no_grad():
        after = adapted.model(batch).logits
        assert (after - before).abs().max() > 0.01
        torch.testing.assert_close(merged.model(batch).logits, after, atol=1e-4, rtol=0)


def test_lora_settings_that_do_not_exist(tmp_path, policy):
    save_policy(policy, tmp_path)
    with pytest.raises(ValueError, match=r"policy.lora holds keyword arguments of peft.LoraConfig, .*'rank'"):
        load_policy(str(tmp_path), lora={"rank": 4})


def test_attention_that_is_not_installed(tmp_path, policy):
    save_policy(policy, tmp_path)
    assert load_policy(str(tmp_path), attention="eager").model.language_model.config._attn_implementation == "eager"
    if not is_flash_attn_2_available():
        with pytest.raises(ValueError, match=r"policy.attention=flash_attention_2 cannot be used here .* or set sdpa"):
            load_policy(str(tmp_path), attention="flash_attention_2")


@pytest.mark.parametrize(("projector", "image_size", "tokens"), [("all_in_one", 40, 9), ("all_in_one_small", 32, 4)])
def test_both_projectors_give_the_tokens_that_the_config_promises(projector, image_size, tokens):
    config = tiny(projector, image_size)
    model = HumanOmni(config)
    video = model.fuse(torch.randn(2, 8, config.grid**2, 32), torch.softmax(torch.randn(2, 3), -1))
    assert video.shape == (2, 8 * tokens, 32)
    assert config.video_tokens == 8 * tokens


@pytest.mark.parametrize(
    ("name", "millions", "tensors"), [("humanomni_0_5b", 34.76, 126), ("humanomni_7b", 770.76, 230)]
)  # fmt: skip
def test_projectors_of_the_public_sizes_have_the_documented_parameters(name, millions, tensors):
    import yaml

    from erv.cli.command import conf_folder

    sizes = yaml.safe_load((conf_folder() / "policy" / f"{name}.yaml").read_text())["config"]
    with torch.device("meta"):
        model = HumanOmni(HumanOmniConfig(**sizes))
    parameters = list(model.mm_projector.parameters())
    assert len(parameters) == tensors
    assert round(sum(p.numel() for p in parameters) / 1e6, 2) == millions
    assert all(p.is_meta for p in model.parameters())


def test_sizes_that_cannot_be():
    with pytest.raises(
        ValueError, match=r"all_in_one_small needs an even number of patches a side .* got 5 \(image 40"
    ):
        tiny("all_in_one_small", 40)
    with pytest.raises(
        ValueError, match=r"mm_projector_type must be one of all_in_one_small, all_in_one, got 'linear'"
    ):
        tiny("linear")
    with pytest.raises(ValueError, match=r"no sizes are known for 'whisper-huge'.*whisper-large-v3"):
        HumanOmniConfig(audio_config="whisper-huge")


def test_prompts_that_cannot_be(policy):
    make = policy.processor
    model = copy.copy(policy.model)
    model.config = copy.deepcopy(policy.model.config)
    model.config.text_config.max_position_embeddings = 100
    batch = make.collate([make.prompt()], [features(policy)])
    with pytest.raises(
        ValueError, match=r"a prompt takes \d+ positions, the model has 100; use fewer frames or a shorter"
    ):
        model.embed(batch)
    with pytest.raises(ValueError, match=r"1 prompts have a placeholder for audio but features of 0 clips were given"):
        policy.model.embed(make.collate([make.prompt()], [features(policy, audio=False)]))
    twice = make.prompt()
    twice = replace(twice, ids=twice.ids * 2)
    with pytest.raises(ValueError, match=r"a prompt holds 2 video placeholders; one per sample is the rule"):
        policy.model.embed(make.collate([twice], [features(policy)]))
    long = make.prompt(question="which emotion " * 300)
    with pytest.raises(ValueError, match=r"the question takes \d+ BERT tokens, BERT reads 256; shorten it"):
        policy.model.embed(make.collate([long], [features(policy)]))
    with pytest.raises(ValueError, match=r"modalities are some of image, video, audio; got smell"):
        make.prompt(["smell"])


def test_preprocessing_belongs_to_the_checkpoint(tmp_path, policy):
    paper = Policy(policy.model, Processor(**{**arguments(policy.processor), "preprocessing": "paper"}))
    save_policy(paper, tmp_path)
    assert load_policy(str(tmp_path)).processor.preprocessing == "paper"
    assert load_policy(str(tmp_path), question="why?").processor.question == "why?"
    with pytest.raises(
        ValueError, match=r"was trained with policy.preprocessing=paper, the config asks for consistent"
    ):
        load_policy(str(tmp_path), preprocessing="consistent")


def arguments(processor):
    return {**processor.settings(), "tokenizer": processor.tokenizer, "bert_tokenizer": processor.bert_tokenizer}


def test_squashed_and_padded_features_never_meet_in_the_cache(policy):
    paper = Processor(**{**arguments(policy.processor), "preprocessing": "paper"})
    identities = {stage: paper.at(stage).identity() for stage in ("sft", "grpo", "inference")}
    assert identities["sft"] == identities["grpo"] != identities["inference"]
    consistent = policy.processor
    assert len({consistent.at(stage).identity() for stage in ("sft", "grpo", "inference")}) == 1


def test_a_sharded_folder_of_ours_is_bit_equal(tmp_path, policy):
    save_policy(policy, tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    save_policy(policy, tmp_path / "shards", max_shard_size="100KB")
    assert (tmp_path / "shards" / "model.safetensors.index.json").is_file()
    from erv.policy.checkpoint import read_state

    sharded = read_state(tmp_path / "shards")
    assert sharded.keys() == whole.keys()
    assert all(torch.equal(sharded[n], whole[n]) for n in whole)
