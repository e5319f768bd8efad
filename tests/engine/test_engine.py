"""Shared prefix, kernels and decoding: every decoder against its own forward pass and its own `generate`."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from erv.engine import attention
from erv.engine.generate import rollout
from erv.engine.layers import supports_shared_prefix
from erv.engine.logprobs import completion_logps, completion_logps_plain
from erv.engine.self_check import self_check_sample, verify_shared_prefix
from erv.engine.token_logprobs import token_logps
from erv.policy.policy import frozen_copy

SIZES = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
         "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 5}  # fmt: skip
GQA = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
DECODERS = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**GQA, tie_word_embeddings=True)),
    "qwen2 untied": lambda: Qwen2ForCausalLM(Qwen2Config(**GQA, tie_word_embeddings=False)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**GQA)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**GQA)),
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES)),  # not supported by layers.py, nor are the last two
    "gelu": lambda: Qwen2ForCausalLM(Qwen2Config(**GQA, hidden_act="gelu")),
    "window": lambda: Qwen2ForCausalLM(
        Qwen2Config(**GQA, use_sliding_window=True, sliding_window=6, max_window_layers=1)
    ),
}
SHARED_PREFIX = ("qwen2", "qwen2 untied", "qwen3", "llama")


def build_decoder(name):
    torch.manual_seed(0)
    model = DECODERS[name]().eval()
    for parameter in model.parameters():
        parameter.data.mul_(3 if parameter.ndim > 1 else 1)  # away from the uniform distribution
    return model


def ragged(padding, sizes=(7, 4, 6), width=7):
    """Prompts of three lengths, padded on a side, and completions of every length from 1 on."""
    torch.manual_seed(1)
    mask = torch.arange(width)[None] < torch.tensor(sizes)[:, None]
    mask = mask.flip(1) if padding == "left" else mask
    lengths = torch.tensor([9, 1, 5, 3, 2, 9, 1, 1, 4, 4, 8, 6])
    tokens = torch.randint(0, 60, (12, 9))
    return torch.randn(len(sizes), width, 32), mask, tokens, (torch.arange(9)[None] < lengths[:, None]).long(), 4


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("name", DECODERS)
def test_gradients_are_the_plain_ones(name, padding):
    model = build_decoder(name)
    assert supports_shared_prefix(model) == (name in SHARED_PREFIX)
    batch = ragged(padding)
    shared, plain = completion_logps(model, *batch).logps, completion_logps_plain(model, *batch)
    torch.testing.assert_close(shared, plain, atol=5e-6, rtol=0)
    assert verify_shared_prefix(model, *batch, tolerance=1e-6) < 1e-6


def test_gradients_without_padding_and_with_one_position():
    model = build_decoder("qwen2")
    for width in (1, 5):
        batch = ragged("right", (width,) * 3, width)
        assert verify_shared_prefix(model, *batch, tolerance=1e-6) < 1e-6


def test_one_token_everywhere_is_predicted_by_the_prompt_alone():
    model, (embeds, mask, tokens, _, group) = build_decoder("qwen2"), ragged("left")
    ones = (torch.arange(9)[None] < 1).long().expand(12, 9)
    assert verify_shared_prefix(model, embeds, mask, tokens, ones, group, tolerance=1e-6) < 1e-6


def test_the_check_refuses_what_differs(monkeypatch):
    """Without rotary embedding, as for a decoder that layers.py does not support."""
    model, batch = build_decoder("qwen2"), ragged("right")
    with pytest.raises(ValueError, match=r"rounding explains at most 0\.0e"):
        verify_shared_prefix(model, *batch, tolerance=0)
    monkeypatch.setattr("erv.engine.shared_prefix.rotate", lambda states, cos, sin: states)
    with pytest.raises(ValueError, match=r"algo\.verify_shared_prefix=false skips this check"):
        verify_shared_prefix(model, *self_check_sample(*batch))


def biased(std, layers):
    """A Qwen2 whose key biases are as large as those of released checkpoints (up to 211 in Qwen2.5-0.5B)."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=60, num_hidden_layers=layers, **sizes)).eval()
    for layer in model.model.layers if std else ():
        torch.nn.init.normal_(layer.self_attn.k_proj.bias, std=std)
    return model


def two_prompts(width=64):
    """A batch of two prompts, the first one padded, with two completions each."""
    torch.manual_seed(1)
    mask = torch.ones(2, 20, dtype=torch.bool)
    mask[0, :5] = False
    return torch.randn(2, 20, width) * 0.02, mask, torch.randint(0, 60, (4, 12)), torch.ones(4, 12).long(), 2


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("std", "layers"), [(0, 2), (0, 24), (30, 4), (30, 24), (100, 4)])
def test_the_check_tells_a_wrong_layer_from_rounding(std, layers, autocast, caplog):
    """Also under bf16 autocast, which the check leaves; what 30 and 100 do to rounding is beyond any fixed tolerance."""
    model = biased(std, layers)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        verify_shared_prefix(model, *two_prompts())
        wrong = model.model.layers[layers // 2].self_attn
        wrong.register_forward_hook(lambda _module, _inputs, output: (output[0] * 1.05, *output[1:]))
        with pytest.raises(ValueError, match="do not compute what"):
            verify_shared_prefix(model, *two_prompts())
    assert "not checked" not in caplog.text


def test_the_check_says_when_rounding_hides_everything(caplog):
    verify_shared_prefix(biased(100, 4).to(torch.bfloat16), *(two_prompts()[0].bfloat16(), *two_prompts()[1:]))
    assert "the shared prefix is not checked: rounding alone changes these gradients by" in caplog.text


def test_the_check_draws_no_random_numbers_of_the_step():
    before = torch.random.get_rng_state()
    model, batch = biased(0, 2), two_prompts()
    torch.random.set_rng_state(before)
    verify_shared_prefix(model, *batch)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_plain_products_and_the_fused_kernel_agree(monkeypatch, padding):
    """The plain matrix products of other devices, run on the CPU."""
    model, batch = build_decoder("qwen2"), ragged(padding)
    result = rollout(model, *batch[:2], 4, 8, [5], 0, seeds=[1, 2, 3])
    monkeypatch.setattr(attention, "_uses_fused_kernel", lambda query: False)
    assert verify_shared_prefix(model, *batch, tolerance=1e-6) < 1e-6
    again = rollout(model, *batch[:2], 4, 8, [5], 0, seeds=[1, 2, 3])
    assert torch.equal(result.tokens, again.tokens)
    torch.testing.assert_close(result.logps, again.logps, atol=1e-5, rtol=0)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant):
    model, batch = build_decoder("qwen2").train(), ragged("left")

    def gradients():
        model.zero_grad()
        prompt = batch[0].clone().requires_grad_()
        completion_logps(model, prompt, *batch[1:]).logps.sum().backward()
        return [prompt.grad, *(p.grad for p in model.parameters())]

    plain = gradients()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    largest = max(float(g.abs().max()) for g in plain)
    for got, want in zip(plain, gradients(), strict=True):
        torch.testing.assert_close(got, want, atol=1e-6 * largest, rtol=0)


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("name", DECODERS)
def test_greedy_rollout_is_generate_token_for_token(name, padding):
    model, (embeds, mask, *_) = build_decoder(name), ragged(padding)
    result = rollout(model, embeds, mask, 2, 12, [5], 0)
    for row in range(3):
        alone = model.generate(
            inputs_embeds=embeds[row : row + 1, mask[row]], max_new_tokens=12, do_sample=False, eos_token_id=5,
            pad_token_id=0,
        )  # fmt: skip
        for copy in range(2):
            index = row * 2 + copy
            assert result.tokens[index][result.mask[index].bool()].tolist() == alone[0].tolist()


@pytest.mark.parametrize("name", DECODERS)
def test_rollout_log_probs_are_those_of_training(name):
    model, (embeds, mask, *_) = build_decoder(name), ragged("left")
    result = rollout(model, embeds, mask, 4, 10, [5, 7, 11, 13], 0, seeds=[1, 2, 3])
    assert not result.finished.all()
    assert result.finished.any()  # rows left the batch on the way
    trained = completion_logps(model, embeds, mask, result.tokens, result.mask, 4).logps
    torch.testing.assert_close(trained, result.logps, atol=1e-5, rtol=0)


def test_a_prompt_and_its_answers_must_fit_the_positions():
    model, (embeds, mask, *_) = build_decoder("qwen2"), ragged("right")
    with pytest.raises(
        ValueError, match=r"64 positions.*a prompt of 7 and max_new_tokens=58; set max_new_tokens to at most 57"
    ):
        rollout(model, embeds, mask, 2, 58, [5], 0)


def test_dropout_in_attention_is_refused():
    model = build_decoder("qwen2").train()
    model.config.attention_dropout = 0.1
    with pytest.raises(ValueError, match=r"set the decoder's attention_dropout to 0, got 0.1"):
        completion_logps(model, *ragged("left"))


def adapted():
    torch.manual_seed(0)
    model = get_peft_model(build_decoder("qwen2"), LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"]))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model


def test_with_lora_the_reference_costs_its_adapters_alone():
    model = adapted()
    reference = frozen_copy(model)
    ours = {weight.data_ptr() for weight in model.parameters()}
    extra = sum(weight.numel() for weight in reference.parameters() if weight.data_ptr() not in ours)
    adapters = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert 0 < extra == adapters < 0.05 * sum(weight.numel() for weight in model.parameters())
    batch = ragged("left")
    before = completion_logps(reference, *batch).logps
    optimiser = torch.optim.SGD([w for w in model.parameters() if w.requires_grad], 0.1)
    completion_logps(model, *batch).logps.sum().backward()
    optimiser.step()
    torch.testing.assert_close(completion_logps(reference, *batch).logps, before, atol=0, rtol=0)
    assert not torch.allclose(completion_logps(model, *batch).logps, before, atol=1e-3)


def test_lora_trains_and_samples_through_the_shared_prefix():
    model, batch = adapted(), ragged("right")
    assert supports_shared_prefix(model)
    assert verify_shared_prefix(model, *batch, tolerance=1e-6) < 1e-6
    result = rollout(model, *batch[:2], 4, 8, [5], 0, seeds=[1, 2, 3])
    trained = completion_logps(model, *batch[:2], result.tokens, result.mask, 4).logps
    torch.testing.assert_close(trained, result.logps, atol=1e-5, rtol=0)


def test_a_head_in_the_lora_targets_is_refused():
    model = get_peft_model(build_decoder("qwen2 untied"), LoraConfig(r=2, target_modules=["q_proj", "lm_head"]))
    with pytest.raises(ValueError, match="leave lm_head out of the LoRA targets"):
        completion_logps(model, *ragged("left"))


@pytest.mark.parametrize("max_saved", [10**9, 0])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_in_tiles(monkeypatch, max_saved, temperature):
    """With probabilities saved for the backward pass, and with recomputed ones."""
    monkeypatch.setattr("erv.engine.token_logprobs.MAX_SAVED", max_saved)
    monkeypatch.setattr("erv.engine.token_logprobs.ROWS", 3)
    monkeypatch.setattr("erv.engine.token_logprobs.TILE", 1)
    torch.manual_seed(0)
    hidden, head, targets = torch.randn(10, 8), torch.randn(50, 8), torch.randint(0, 50, (10,))
    leaves = [t.clone().requires_grad_() for t in (hidden, head)]
    logps, entropy = token_logps(*leaves, targets, temperature, with_entropy=True)
    plain = [t.clone().requires_grad_() for t in (hidden, head)]
    whole = (plain[0] @ plain[1].t() / temperature).log_softmax(-1)
    expected = whole.gather(1, targets[:, None]).squeeze(1)
    torch.testing.assert_close(logps, expected)
    torch.testing.assert_close(entropy, -(whole.exp() * whole).sum(1))
    grads = torch.autograd.grad(logps.sin().sum(), leaves)
    for got, want in zip(grads, torch.autograd.grad(expected.sin().sum(), plain), strict=True):
        torch.testing.assert_close(got, want)
    with torch.no_grad():
        torch.testing.assert_close(token_logps(*leaves, targets, temperature)[0], expected)


def test_a_softcapped_head_does_not_pass_the_check():
    """Log-probs are formed from the head's weight; a decoder that does more to its logits is refused, not trained wrong."""
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(Gemma2Config(**GQA, final_logit_softcapping=0.5)).eval()
    with pytest.raises(ValueError, match="do not compute what"):
        verify_shared_prefix(model, *ragged("left"))
