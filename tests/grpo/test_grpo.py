"""Advantages, rollout and log-probs by property and against transformers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen2ForCausalLM

from erv.engine.generate import rollout
from erv.engine.logprobs import completion_logps, completion_logps_plain, micro_batches
from erv.engine.sampling import Sampling, draw
from erv.grpo.advantages import advantages
from erv.grpo.importance_sampling import ImportanceCorrection
from erv.grpo.loss import Denominators, GRPOLoss, policy_loss

REWARDS = st.lists(st.lists(st.floats(0, 1, width=16), min_size=4, max_size=4), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data.mul_(4)  # away from the uniform distribution
    return model


@pytest.fixture(scope="module")
def prompts(decoder):
    torch.manual_seed(1)
    embeds = torch.randn(3, 7, 32)
    mask = torch.arange(7)[None] < torch.tensor([7, 4, 6])[:, None]
    return embeds, mask


@given(REWARDS)
def test_advantages_of_a_group_sum_to_zero(groups):
    rewards = torch.tensor(groups).reshape(-1, 1)
    values = advantages(rewards, [1.0], 4).values.view(-1, 4)
    torch.testing.assert_close(values.sum(1), torch.zeros(len(groups)), atol=1e-3, rtol=0)
    assert (values.abs() <= 1.5 + 1e-4).all()  # (G - 1) / sqrt(G) bounds a standardised value


@given(REWARDS, st.floats(0.5, 8, width=16))
def test_the_scale_of_rewards_changes_nothing(groups, factor):
    """Up to the 1e-4 beside the deviation, so where rewards do differ."""
    rewards = torch.tensor(groups, dtype=torch.float64)
    spread = rewards.std(1) > 0.05
    plain, scaled = (advantages((rewards * f).reshape(-1, 1), [1.0], 4).values.view(-1, 4) for f in (1, factor))
    torch.testing.assert_close(plain[spread], scaled[spread], atol=1e-2, rtol=5e-3)


@given(REWARDS, st.permutations(range(4)), st.sampled_from(["group", "batch", "none"]))
def test_the_order_within_a_group_changes_nothing(groups, order, scale):
    rewards = torch.tensor(groups, dtype=torch.float64)
    plain = advantages(rewards.reshape(-1, 1), [1.0], 4, scale).values.view(-1, 4)
    moved = advantages(rewards[:, order].reshape(-1, 1), [1.0], 4, scale).values.view(-1, 4)
    torch.testing.assert_close(moved, plain[:, order], atol=1e-9, rtol=1e-9)


@given(REWARDS)
def test_groups_without_spread_have_zero_variance(groups):
    rewards = torch.tensor(groups)
    whole = torch.stack([rewards, rewards.flip(0)], dim=-1).reshape(-1, 2)
    for gdpo in (False, True):
        result = advantages(whole, [1.0, 1.0], 4, normalise_then_sum=gdpo)
        flat = whole.view(-1, 4, 2).amax(1) == whole.view(-1, 4, 2).amin(1)
        assert result.zero_variance[flat.all(1)].all()
        assert not result.zero_variance[(whole.view(-1, 4, 2).sum(-1).std(1) > 1e-3)].any()


@given(REWARDS, st.floats(-5, 5, width=16))
def test_a_constant_added_to_every_reward_changes_nothing(groups, shift):
    rewards = torch.tensor(groups, dtype=torch.float64).reshape(-1, 1)
    moved = advantages(rewards + shift, [1.0], 4).values
    torch.testing.assert_close(moved, advantages(rewards, [1.0], 4).values, atol=1e-6, rtol=1e-6)


@given(REWARDS, st.randoms())
def test_groups_do_not_see_each_other(groups, random):
    rewards = torch.tensor(groups)
    order = list(range(len(groups)))
    random.shuffle(order)
    whole = advantages(rewards.reshape(-1, 1), [1.0], 4).values.view(-1, 4)
    shuffled = advantages(rewards[order].reshape(-1, 1), [1.0], 4).values.view(-1, 4)
    torch.testing.assert_close(shuffled, whole[order])


def test_a_group_without_spread_teaches_nothing():
    result = advantages(torch.tensor([[1.0]] * 4 + [[0.0], [1.0], [0.0], [1.0]]), [1.0], 4)
    assert result.values[:4].tolist() == [0] * 4
    assert result.zero_std.tolist() == [True] * 4 + [False] * 4


def test_a_missing_reward_is_left_out():
    rewards = torch.tensor([[1.0, torch.nan], [0.0, 1.0], [torch.nan, torch.nan], [1.0, 0.0]])
    result = advantages(rewards, [1.0, 1.0], 4)
    assert result.values[2] == 0
    assert result.totals[:2].tolist() == [1, 1]


@pytest.mark.parametrize("group_size", [0, 1, 3])
def test_group_sizes_that_cannot_be(group_size):
    with pytest.raises(ValueError, match="group_size must be at least 2 and divide the number of completions"):
        advantages(torch.zeros(4, 1), [1.0], group_size)


def test_greedy_rollout_is_generate_token_for_token(decoder, prompts):
    embeds, mask = prompts
    result = rollout(decoder, embeds, mask, 1, 12, [5], 0)
    for row in range(3):
        alone = decoder.generate(
            inputs_embeds=embeds[row : row + 1, : int(mask[row].sum())], max_new_tokens=12, do_sample=False,
            eos_token_id=5, pad_token_id=0,
        )  # fmt: skip
        assert result.tokens[row][result.mask[row].bool()].tolist() == alone[0].tolist()


def test_what_a_prompt_gets_does_not_depend_on_the_other_prompts(decoder, prompts):
    embeds, mask = prompts
    together = rollout(decoder, embeds, mask, 4, 10, [5], 0, Sampling(1.0), [11, 12, 13])
    for row in range(3):
        alone = rollout(decoder, embeds[row : row + 1], mask[row : row + 1], 4, 10, [5], 0, Sampling(1.0), [11 + row])
        rows = slice(4 * row, 4 * row + 4)
        width = alone.tokens.shape[1]
        assert torch.equal(together.mask[rows, :width], alone.mask)
        assert torch.equal(together.tokens[rows, :width] * alone.mask, alone.tokens * alone.mask)


def test_rollout_log_probs_are_those_of_training(decoder, prompts):
    embeds, mask = prompts
    result = rollout(decoder, embeds, mask, 4, 10, [5], 0, Sampling(0.8), [1, 2, 3])
    trained = completion_logps(decoder, embeds, mask, result.tokens, result.mask, 4, 0.8).logps
    torch.testing.assert_close(trained, result.logps, atol=2e-4, rtol=0)
    plain = completion_logps_plain(decoder, embeds, mask, result.tokens, result.mask, 4, 0.8)
    torch.testing.assert_close(trained, plain, atol=2e-4, rtol=0)


def test_sampling_follows_the_distribution():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]])).expand(20000, 3)
    tokens, logps = draw(logits.clone(), torch.rand(20000, generator=torch.Generator().manual_seed(0)))
    shares = torch.bincount(tokens, minlength=3) / 20000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.015, rtol=0)
    torch.testing.assert_close(logps.exp(), torch.tensor([0.5, 0.3, 0.2])[tokens], atol=1e-5, rtol=0)


LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=12)


@given(LENGTHS, st.data(), st.integers(1, 400))
def test_micro_batches_hold_every_prompt_once_within_the_budget(prompt_lengths, data, budget):
    group = 3
    size = len(prompt_lengths) * group
    completions = data.draw(st.lists(st.integers(1, 40), min_size=size, max_size=size))
    cuts = micro_batches(prompt_lengths, completions, group, budget)
    assert sorted(i for cut in cuts for i in cut) == list(range(len(prompt_lengths)))
    for cut in cuts:
        longest = max(max(completions[i * group : (i + 1) * group]) for i in cut)
        cost = len(cut) * (max(prompt_lengths[i] for i in cut) + group * longest)
        assert cost <= budget or len(cut) == 1


@settings(max_examples=25)
@given(st.sampled_from(["grpo", "bnpo", "dr_grpo", "dapo", "cispo"]), st.integers(1, 4))
def test_the_loss_does_not_depend_on_how_a_step_is_cut(loss, size):
    torch.manual_seed(size)
    objective = GRPOLoss(loss=loss, beta=0.04, max_completion_length=6)
    logps, ref, old = torch.randn(3, 8, 6).unbind()
    values, lengths = torch.randn(8), torch.randint(1, 7, (8, 1))
    mask = (torch.arange(6)[None] < lengths).long()
    denominators = Denominators.of(mask)

    def part(rows):
        return policy_loss(
            objective, denominators, logps[rows], mask[rows], values[rows], old_logps=old[rows], ref_logps=ref[rows]
        )[0]  # fmt: skip

    pieces = sum(part(slice(start, start + size)) for start in range(0, 8, size))
    torch.testing.assert_close(pieces, part(slice(None)))


def test_a_log_ratio_out_of_bounds_neither_overflows_nor_pulls():
    logps = torch.tensor([[0.0, -1.0]], requires_grad=True)
    old, ref, mask = torch.tensor([[-200.0, -1.0]]), torch.tensor([[200.0, -1.0]]), torch.ones(1, 2)
    loss, _ = policy_loss(
        GRPOLoss(beta=0.1), Denominators.of(mask), logps, mask, torch.tensor([-1.0]), old_logps=old, ref_logps=ref
    )
    assert torch.isfinite(loss)
    (gradient,) = torch.autograd.grad(loss, logps)
    assert gradient[0, 0] == 0
    assert gradient[0, 1] == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"log_ratio_limit must lie in \(0, 88\].*got 100"):
        GRPOLoss(log_ratio_limit=100)


def test_correction_multiplies_the_policy_term_alone():
    torch.manual_seed(0)
    logps, ref, old, sampled = torch.randn(4, 6, 5).unbind()
    mask, values = torch.ones(6, 5), torch.randn(6)
    ratio = ImportanceCorrection("sequence_truncate", 2.0)(old, sampled, mask)
    assert ratio.shape == (6, 1)
    terms = []
    for beta, weight in ((0.0, None), (0.04, None), (0.04, ratio)):
        losses = []
        for i in range(6):
            row = slice(i, i + 1)
            importance_ratio = None if weight is None else weight[row]
            loss, _ = policy_loss(
                GRPOLoss(beta=beta),
                Denominators.of(mask),
                logps[row],
                mask[row],
                values[row],
                old_logps=old[row],
                ref_logps=ref[row],
                importance_ratio=importance_ratio,
            )
            losses.append(loss)
        terms.append(torch.stack(losses))
    policy, both, corrected = terms
    torch.testing.assert_close(corrected, policy * ratio.squeeze(1) + both - policy)
