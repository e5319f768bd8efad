"""Losses, gradients and advantages of TRL 1.16 and of the released ERV loop, from the fixtures' own list of cases.

Set ERV_FIXTURES to run on another folder. Every case and every tensor named in the files is checked; an option this
code does not know fails the test.
"""

import copy
import json
import os
from pathlib import Path

import pytest
import released
import torch
from safetensors.torch import load_file

from erv.engine.logprobs import completion_logps
from erv.grpo.advantages import advantages, reward_metrics
from erv.grpo.importance_sampling import high_entropy_mask, importance_ratio
from erv.grpo.loss import Denominators, GRPOLoss, policy_loss
from erv.policy.humanomni.batch import HumanOmniBatch
from erv.policy.humanomni.checkpoint import to_original_names

FOLDER = Path(os.environ.get("ERV_FIXTURES", Path(__file__).parent / "fixtures"))
GOLDEN = json.loads((FOLDER / "grpo_golden.json").read_text())
TENSORS = load_file(FOLDER / "grpo_golden.safetensors")
RELEASED = json.loads((FOLDER / "grpo.json").read_text())
GRPO_PARTS = ("language_model", "mm_projector", "audio_projector", "bert_gate", "bert_model")  # policy.md section 7
RELEASED_TENSORS = load_file(FOLDER / "grpo_loss.safetensors")

ADVANTAGE_TENSORS = [n for n in TENSORS if n.startswith("adv.") and not n.startswith("adv.rewards_per_func")]
RATIO_TENSORS = [n for n in TENSORS if n.startswith("isratio.")]
ENTROPY_TENSORS = [n for n in TENSORS if n.startswith("entropymask.")]


def close(got, want, tolerance=1e-5):
    torch.testing.assert_close(
        got.detach().double(), torch.as_tensor(want).double().reshape(got.shape), atol=tolerance, rtol=tolerance
    )


def read_arguments(args):
    """Split a case's arguments into a GRPOLoss and the rest; whatever is left over is an error."""
    args = dict(args)
    objective = GRPOLoss(
        loss=args.pop("loss_type"),
        level=args.pop("importance_sampling_level"),
        beta=args.pop("beta"),
        epsilon_low=args.pop("epsilon_low"),
        epsilon_high=args.pop("epsilon_high"),
        delta=args.pop("delta"),
        bias_corrected_kl=args.pop("use_bias_correction_kl"),
        off_policy_threshold=args.pop("off_policy_mask_threshold"),
        max_completion_length=TENSORS["loss.mask"].shape[1],
    )
    rest = {name: args.pop(name) for name in ("old_logp_given", "top_entropy_quantile", "importance_sampling_ratio")}
    rest["grad_accum"], rest["steps_per_generation"] = args.pop("grad_accum", 1), args.pop("steps_per_generation", 1)
    assert not args, f"unknown options {sorted(args)}"
    return objective, rest


def loss_of(case, rows=slice(None)):
    objective, rest = read_arguments(case["args"])
    mask = TENSORS["loss.mask"]
    # With accumulation the 16 rows are one of several micro-batches; TRL counts dapo's tokens over the generation batch.
    steps = rest["grad_accum"]
    counts = Denominators.of(mask)
    token_steps = steps if objective.loss == "bnpo" else steps / rest["steps_per_generation"]
    ratio = rest["importance_sampling_ratio"]
    assert ratio in (None, "loss.is_ratio", True), f"unknown importance_sampling_ratio {ratio!r}"
    top = rest["top_entropy_quantile"]
    token_filter = high_entropy_mask(TENSORS["loss.entropy"], mask, top)[rows] if top < 1 else None
    logps = TENSORS["loss.logp"][rows].clone().requires_grad_()
    loss, metrics = policy_loss(
        objective,
        Denominators(counts.rows * steps, counts.tokens * token_steps),
        logps,
        mask[rows],
        TENSORS["loss.advantages"][rows],
        old_logps=TENSORS["loss.old_logp"][rows] if rest["old_logp_given"] else None,
        ref_logps=TENSORS["loss.ref_logp"][rows],
        importance_ratio=None if ratio is None else TENSORS["loss.is_ratio"][rows],
        token_filter=token_filter,
        entropy=TENSORS["loss.entropy"][rows],
    )
    (gradient,) = torch.autograd.grad(loss, logps)
    return loss, gradient, metrics, steps


@pytest.mark.parametrize("case", GOLDEN["loss_cases"], ids=lambda c: c["name"])
def test_loss_and_gradient(case):
    loss, gradient, metrics, steps = loss_of(case)
    close(loss, case["loss"])
    close(gradient, TENSORS[f"case.{case['name']}.grad_logp"])
    for name, want in case["metrics"].items():
        share = 1 if name.endswith(("_min", "_max")) else own_share(name, case, steps)
        close(metrics[name] / share, want)


def own_share(name, case, steps):
    """Which share of the step's mean these 16 rows are; TRL logs the mean of the micro-batch."""
    per_row = name.startswith("clip_ratio") and case["args"]["importance_sampling_level"] == "sequence"
    per_row |= name == "vespo/phi_seq_mean"
    in_tokens = case["args"]["loss_type"] != "bnpo" and not per_row
    return 1 / steps * (case["args"].get("steps_per_generation", 1) if in_tokens else 1)


@pytest.mark.parametrize("case", GOLDEN["loss_cases"], ids=lambda c: c["name"])
def test_loss_adds_up_over_micro_batches(case):
    loss, gradient, _, _ = loss_of(case)
    parts = [loss_of(case, rows) for rows in (slice(0, 3), slice(3, 4), slice(4, 16))]
    close(sum(p[0] for p in parts), loss, 1e-6)
    close(torch.cat([p[1] for p in parts]), gradient, 1e-6)


def test_every_gradient_has_its_case():
    named = {f"case.{case['name']}.grad_logp" for case in GOLDEN["loss_cases"]}
    assert named == {name for name in TENSORS if name.startswith("case.")}


@pytest.mark.parametrize("name", ADVANTAGE_TENSORS)
def test_advantages(name):
    case = next(c for c in GOLDEN["advantage_cases"] if c["name"] == name)
    aggregation = case["multi_objective_aggregation"]
    assert aggregation in ("sum_then_normalize", "normalize_then_sum")
    rewards = TENSORS[case["rewards"]]
    result = advantages(
        rewards,
        case["reward_weights"],
        case["num_generations"],
        scale=case["scale_rewards"],
        normalise_then_sum=aggregation == "normalize_then_sum",
    )
    close(result.values, TENSORS[name])
    names = [key.split("/")[1] for key in case["metrics"] if key.endswith("/mean")]
    got = reward_metrics(rewards, names, result)
    assert got.keys() == case["metrics"].keys()
    for key, want in case["metrics"].items():
        close(got[key], want)


@pytest.mark.parametrize("name", RATIO_TENSORS)
def test_importance_ratio(name):
    mode, limits = name.split(".", 2)[1:]
    # <max>.<min>, each a number with one point or None
    case = next((c for c in GOLDEN["is_ratio_cases"] if c["name"] == name), None)
    if case is None:
        parts = limits.split(".")
        high, low = (limits[:-5], None) if parts[-1] == "None" else (".".join(parts[:2]), ".".join(parts[2:]))
        case = {
            "mode": mode,
            "clip_max": None if high == "None" else float(high),
            "clip_min": None if low is None else float(low),
            "old": "loss.old_logp",
            "sampling": "loss.sampling_logp",
            "mask": "loss.mask",
        }
    ratio = importance_ratio(
        TENSORS[case["old"]],
        TENSORS[case["sampling"]],
        TENSORS[case["mask"]],
        case["mode"],
        case["clip_max"],
        case["clip_min"],
    )
    close(ratio, TENSORS[name])


@pytest.mark.parametrize("name", ENTROPY_TENSORS)
def test_high_entropy_mask(name):
    top = float(name.removeprefix("entropymask.top"))
    got = high_entropy_mask(TENSORS["loss.entropy"], TENSORS["loss.mask"], top)
    assert torch.equal(got.long(), TENSORS[name])


@pytest.mark.parametrize("case", RELEASED["loss_cases"], ids=lambda c: c["name"])
def test_released_loss(case):
    tensors = {key: RELEASED_TENSORS[f"{case['name']}.{key}"] for key in ("logps", "mask", "advantages", "grad_logps")}
    rewards = RELEASED_TENSORS[f"{case['name']}.rewards_per_func"]
    ref = RELEASED_TENSORS[f"{case['name']}.ref_logps"] if case["use_ref"] else None
    assert tensors["mask"].shape == (case["G"], case["L"])

    result = advantages(rewards, [1.0] * rewards.shape[1], case["G"])
    close(result.values, tensors["advantages"])
    close(result.group_mean.mean(), case["metrics"]["reward"])
    close(result.group_std.mean(), case["metrics"]["reward_std"])

    # without a reference the original drops the KL term, whatever beta says
    objective = GRPOLoss(loss="grpo", beta=case["beta"] if case["use_ref"] else 0.0)
    logps = tensors["logps"].clone().requires_grad_()
    loss, metrics = policy_loss(
        objective, Denominators.of(tensors["mask"]), logps, tensors["mask"], result.values, ref_logps=ref
    )
    close(loss, case["loss"])
    close(loss, RELEASED_TENSORS[f"{case['name']}.loss"])
    close(torch.autograd.grad(loss, logps)[0], tensors["grad_logps"])
    assert ("kl" in metrics) == case["use_ref"] == ("kl" in case["metrics"])


END_TO_END = sorted(FOLDER.glob("grpo_e2e_*.safetensors"))


def engine(tensors, case):
    """The released step on a real clip through our engine: (log-probs of policy and reference, loss, gradients, metrics)."""
    policy = released.model(case["model"]).set_trainable(GRPO_PARTS)
    reference = copy.deepcopy(policy)
    reference.language_model.model.norm.weight.data *= 0.8
    tokens = tensors["completion_ids"]
    prompt = tensors["input_ids"][:1]
    if prompt.shape[1] == tensors["attention_mask"].shape[1]:  # prompt and completion in one
        prompt = prompt[:, : -tokens.shape[1]]
    media = {"video": policy.encode_video(tensors["frames"][None] if tensors["frames"].ndim == 4 else tensors["frames"]),
             "audio": policy.encode_audio(tensors["mel"])}  # fmt: skip
    bert = (tensors["bert_input_ids"][:1], tensors["bert_attention_mask"][:1])
    batch = HumanOmniBatch(prompt, torch.ones_like(prompt, dtype=torch.bool), *bert, **media)
    answers = (tokens, tensors["mask"].long(), case["G"])
    embeds, mask, _ = policy.embed(batch)
    logps = completion_logps(policy.language_model, embeds, mask, *answers).logps
    with torch.no_grad():
        ref = completion_logps(reference.language_model, reference.embed(batch)[0], mask, *answers).logps
    rewards = tensors["rewards_per_func"]
    advantage = advantages(rewards, [1.0] * rewards.shape[1], case["G"])
    objective, denominators = GRPOLoss(loss="grpo", beta=case["beta"]), Denominators.of(tensors["mask"])
    loss, metrics = policy_loss(objective, denominators, logps, answers[1], advantage.values, ref_logps=ref)
    loss.backward()
    gradients = to_original_names({n: p.grad for n, p in policy.named_parameters() if p.grad is not None})
    return logps, ref, advantage, loss, gradients, metrics


def check_end_to_end(tensors, case):
    logps, ref, advantage, loss, gradients, metrics = engine(tensors, case)
    mask = tensors["mask"].bool()
    for name, values in (("logps", logps), ("ref_logps", ref)):
        if name in tensors:
            close(values[mask], tensors[name][mask])
    close(advantage.values, tensors["advantages"])
    close(loss, case["loss"])
    close(metrics["kl"], case["metrics"]["kl"])  # equal lengths: the mean over tokens is that over rows
    expected = {name.removeprefix("grad:"): value for name, value in tensors.items() if name.startswith("grad:")}
    assert expected
    for name, value in expected.items():
        close(gradients[name], value)
    moved = {
        name
        for name in case["modules_with_nonzero_grad"]
        if any(f".{name}." in n and g.any() for n, g in gradients.items())
    }
    assert moved == set(case["modules_with_nonzero_grad"])


@pytest.mark.parametrize("path", END_TO_END, ids=lambda path: path.stem)
def test_end_to_end(path):
    """Only where the folder has such a file; what runs everywhere is the next test."""
    check_end_to_end(load_file(path), {**RELEASED["e2e"], "model": path.stem.replace("grpo_e2e", "model")})


def test_end_to_end_against_the_released_computation():
    """The same check on numbers made here, as the released loop makes them: a row and an encoding per sample, all logits."""
    torch.manual_seed(0)
    tensors, case = dict(released.case("model_small", "A")), dict(RELEASED["e2e"])
    tensors |= {
        "completion_ids": torch.randint(0, 320, (4, 6)), "mask": torch.ones(4, 6, dtype=torch.long),
        "attention_mask": torch.ones(4, tensors["input_ids"].shape[1] + 6),
        "rewards_per_func": torch.tensor([[1.0, 0.0, 0.5], [1.0, 1.0, 0.25], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]]),
    }  # fmt: skip
    policy = released.model("model_small").set_trainable(GRPO_PARTS)
    reference = copy.deepcopy(policy)
    reference.language_model.model.norm.weight.data *= 0.8

    def log_probs(model):
        rows = []
        for ids in tensors["completion_ids"]:
            media = {"video": model.encode_video(tensors["frames"][None]), "audio": model.encode_audio(tensors["mel"])}
            prompt = tensors["input_ids"]
            bert = (tensors["bert_input_ids"], tensors["bert_attention_mask"])
            embeds, _, _ = model.embed(
                HumanOmniBatch(prompt, torch.ones_like(prompt, dtype=torch.bool), *bert, **media)
            )
            answer = model.language_model.get_input_embeddings()(ids[None])
            logits = model.language_model(inputs_embeds=torch.cat([embeds, answer], 1)).logits[0, -7:-1]
            rows.append(logits.log_softmax(-1).gather(1, ids[:, None]).squeeze(1))
        return torch.stack(rows)

    logps, ref = log_probs(policy), log_probs(reference).detach()
    total = tensors["rewards_per_func"].sum(1)
    advantage = (total - total.mean()) / (total.std() + 1e-4)
    kl = torch.exp(ref - logps) - (ref - logps) - 1
    loss = (-torch.exp(logps - logps.detach()) * advantage[:, None] + case["beta"] * kl).mean(1).mean()
    loss.backward()
    gradients = to_original_names({n: p.grad for n, p in policy.named_parameters() if p.grad is not None})
    assert len(gradients) > 100
    tensors |= {"logps": logps, "ref_logps": ref, "advantages": advantage}
    tensors |= {f"grad:{name}": gradient for name, gradient in gradients.items()}
    case |= {"loss": float(loss), "metrics": {"kl": float(kl.mean())}}
    check_end_to_end(tensors, case)
