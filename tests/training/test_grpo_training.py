"""GRPO under a Lightning trainer on a decoder over letters: it learns, repeats itself, and survives what it meets."""

import pytest
import torch
from text_policy import Reward, decoder, prompts, train

from erv.engine.generate import Rollout, loss_mask
from erv.engine.sampling import Sampling
from erv.grpo.importance_sampling import ImportanceCorrection


def vowels(text, gold):
    return sum(letter in "aei" for letter in text) / max(len(text), 1)


def weights(algo):
    return torch.cat([p.detach().flatten() for p in algo.model.parameters()])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_reward_rises(seed, tmp_path):
    """Three of fourteen letters pay; a uniform policy earns 0.19 at most. Margin: 0.3."""
    algo = train([prompts(4, step) for step in range(60)], Reward(vowels), tmp_path, seed=seed, group_size=8)
    earned = [step["train/reward"] for step in algo.logged]
    first, last = sum(earned[:6]) / 6, sum(earned[-6:]) / 6
    assert last > first + 0.3


def test_two_runs_of_one_seed_are_equal_to_the_last_bit(tmp_path):
    batches = [prompts(3, step) for step in range(4)]
    one, other, third = (train(batches, Reward(vowels), tmp_path, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(weights(one), weights(other))
    assert one.logged == other.logged
    assert not torch.equal(weights(one), weights(third))


@pytest.mark.parametrize("loss", ["grpo", "bnpo", "dr_grpo", "dapo", "cispo"])
def test_an_update_does_not_depend_on_how_it_is_cut(loss, tmp_path):
    batches = [prompts(5, step) for step in range(2)]
    whole, cut = (train(batches, Reward(vowels), tmp_path, loss=loss, lr=1e-3, token_budget=b) for b in (10**6, 1))
    for one, other in zip(whole.logged, cut.logged, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    torch.testing.assert_close(weights(whole), weights(cut), atol=2e-6, rtol=0)


def test_a_step_that_is_not_finite_is_left_out_and_kept_for_a_look(tmp_path):
    def run(batches):
        return train(batches, Reward(vowels), tmp_path, max_nonfinite=2)

    good, bad = prompts(2), prompts(2, noise=[0.0, torch.nan])
    algo = run([good, bad])
    torch.testing.assert_close(weights(algo), weights(run([good])), atol=0, rtol=0)
    kept = torch.load(tmp_path / "nonfinite" / "00000002.pt", weights_only=True)
    assert kept["clips"] == ["0", "1"]
    assert kept["tokens"].shape == kept["mask"].shape == (8, kept["tokens"].shape[1])
    assert kept["loss"] != kept["loss"]
    run([bad, good, bad, good])  # never two in a row


def test_too_many_steps_that_are_not_finite_end_the_run(tmp_path):
    bad = prompts(2, noise=[0.0, torch.nan])
    with pytest.raises(
        FloatingPointError, match=r"2 steps in a row were not finite .algo.max_nonfinite=2.*lower optim.lr"
    ):
        train([prompts(2), bad, bad, prompts(2)], Reward(vowels), tmp_path, max_nonfinite=2, verify_shared_prefix=False)
    assert len(list((tmp_path / "nonfinite").iterdir())) == 2


def test_a_policy_whose_weights_are_not_finite_says_so(tmp_path):
    broken = decoder()
    broken.model.norm.weight.data[0] = torch.nan
    with pytest.raises(FloatingPointError, match="log-probs of a rollout must be finite"):
        train([prompts(2)], Reward(vowels), tmp_path, broken)


def test_groups_that_earn_the_same_are_left_out(tmp_path):
    """As if their clip had not been in the batch; kept, it counts in the denominators and has its KL term."""

    def flat_for_0(text, gold):
        return 0.5 if gold == "0" else vowels(text, gold)

    whole = prompts(3)
    left_out = train([whole], Reward(flat_for_0), tmp_path, zero_spread="leave_out")
    without = train([whole[1:]], Reward(flat_for_0), tmp_path)
    kept = train([whole], Reward(flat_for_0), tmp_path)
    torch.testing.assert_close(weights(left_out), weights(without), atol=1e-6, rtol=0)
    norms = [algo.logged[0]["train/grad_norm"] for algo in (left_out, without, kept)]
    assert norms[1:] == pytest.approx([norms[0], norms[0] * 2 / 3], rel=1e-4)
    assert left_out.logged[0]["train/left_out_groups"] == 1
    assert left_out.logged[0]["train/frac_reward_zero_std"] == pytest.approx(1 / 3)


def test_a_batch_in_which_nothing_can_be_learnt_changes_nothing(tmp_path):
    before = weights(train([prompts(2)], Reward(vowels), tmp_path))
    batches = [prompts(2), prompts(2, 1)]
    calls = []

    def flat_later(text, gold):
        calls.append(text)
        return vowels(text, gold) if len(calls) <= 8 else 0.5

    after = train(batches, Reward(flat_later), tmp_path, zero_spread="leave_out")
    assert torch.equal(before, weights(after))


def test_groups_that_earn_the_same_are_sampled_again_within_a_bound(tmp_path):
    seen = {}

    def flat_at_first(text, gold):
        """Clip 0 never pays, clip 1 from its second group on, clip 2 always."""
        seen[gold] = seen.get(gold, 0) + 1
        pays = {"0": False, "1": seen[gold] > 4, "2": True}[gold]
        return len(set(text)) + seen[gold] / 10 if pays else 1.0

    reward = Reward(flat_at_first)
    algo = train([prompts(3)], reward, tmp_path, zero_spread="resample", max_resamples=3)
    assert [sorted({gold for _, gold in call}) for call in reward.calls] == [["0", "1", "2"], ["0", "1"], ["0"], ["0"]]
    first, again = ([text for text, gold in call if gold == "0"] for call in reward.calls[:2])
    assert first != again  # other samples, not the same ones
    assert algo.logged[0]["train/left_out_groups"] == 1
    assert ("train/resampled_groups", 4.0) in algo.singles
    shown = [row["text"] for row in algo.completions if row["clip_id"] == "1"]
    assert shown == [text for text, gold in reward.calls[1] if gold == "1"]


def test_answers_without_an_end_are_not_trained_on_by_option(tmp_path):
    before = weights(train([prompts(2)], Reward(vowels), tmp_path, lr=0.0))
    endless, masked = (
        weights(train([prompts(2)], Reward(vowels), tmp_path, ends=(99,), mask_overlong=option))
        for option in (False, True)
    )
    assert not torch.equal(before, endless)
    assert torch.equal(before, masked)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    done = Rollout(torch.full((2, 3), 5), mask, torch.zeros(2, 3), torch.tensor([False, True]))
    assert loss_mask(done, True).tolist() == [[0, 0, 0], [1, 1, 0]]
    assert loss_mask(done, False).tolist() == mask.tolist()


def test_a_rollout_in_lower_precision_is_made_up_for(tmp_path):
    batches = [prompts(3, step) for step in range(3)]
    algo = train(
        batches,
        Reward(vowels),
        tmp_path,
        rollout_dtype="bfloat16",
        correction=ImportanceCorrection("token_truncate", 2.0),
    )
    for step in algo.logged:
        assert 1e-5 < step["train/sampling/sampling_logp_difference/mean"] < 0.1
        assert (
            step["train/sampling/importance_sampling_ratio/min"]
            < 1
            < step["train/sampling/importance_sampling_ratio/max"]
        )
    same = train(batches, Reward(vowels), tmp_path, correction=ImportanceCorrection("token_truncate", 2.0))
    assert max(step["train/sampling/sampling_logp_difference/max"] for step in same.logged) < 1e-4


def test_several_updates_on_one_rollout_move_the_ratio(tmp_path):
    once, often = (train([prompts(3)], Reward(vowels), tmp_path, updates=n, lr=3e-2) for n in (1, 4))
    assert once.logged[0]["train/clip_ratio/region_mean"] == 0
    assert often.logged[0]["train/clip_ratio/region_mean"] > 0
    assert not torch.equal(weights(once), weights(often))


def test_sampling_may_be_truncated_but_not_greedy(tmp_path):
    algo = train([prompts(2)], Reward(vowels), tmp_path, sampling=Sampling(0.7, top_p=0.9, top_k=5, min_p=0.01))
    assert algo.logged[0]["train/entropy"] > 0
    with pytest.raises(ValueError, match=r"algo.sampling.temperature must be above 0, got 0; set 1"):
        train([prompts(2)], Reward(vowels), tmp_path, sampling=Sampling(0.0))


def test_gradient_checkpointing_changes_nothing(tmp_path):
    saving = decoder()
    saving.activation_checkpointing_enable({"use_reentrant": False})
    plain, saved = (train([prompts(3)], Reward(vowels), tmp_path, model) for model in (None, saving))
    torch.testing.assert_close(weights(plain), weights(saved), atol=1e-7, rtol=0)
