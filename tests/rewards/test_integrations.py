"""The reward as TRL and verl call it; TRL itself where it is installed (extra `bench`)."""

import math

import numpy as np
import pytest

from erv.rewards.answer import AnswerReward
from erv.rewards.composite import CompositeReward
from erv.rewards.explanation import ExplanationReward
from erv.rewards.format import FormatReward
from erv.rewards.integrations import TRLReward, VerlReward
from erv.taxonomy import DFEW

GOOD, BAD = "<think>He is sad.</think>\n<answer>sad</answer>", "<think>He is happy.</think>\n<answer>sad</answer>"


def verifier(sentences):
    return np.array([[0.9 if label in s else 0.01 for label in DFEW.labels] for s in sentences])


def broken(sentences):
    raise RuntimeError("out of memory")


def reward(by=verifier):
    return CompositeReward(DFEW, FormatReward(), AnswerReward(), ExplanationReward(weight=2.0), by)


def test_trl_gives_texts_or_conversations_and_columns_by_name():
    talk = [[{"role": "assistant", "content": text}] for text in (GOOD, BAD)]
    for completions in ([GOOD, BAD], talk):
        found = TRLReward(reward())(
            prompts=["?"] * 2, completions=completions, completion_ids=[[1], [2]], solution=["sad"] * 2
        )
        assert found == [4.0, 2.0]
    tagged = TRLReward(reward(), column="gold", part="explanation")
    assert tagged(completions=[GOOD, BAD], gold=["<answer> sad </answer>"] * 2) == [1.0, 0.0]
    assert (TRLReward(reward()).__name__, tagged.__name__) == ("erv_total", "erv_explanation")


def test_trl_is_told_none_when_the_verifier_fails():
    assert TRLReward(reward(broken), part="explanation")(completions=[GOOD], solution=["sad"]) == [None]
    assert TRLReward(reward(broken))(completions=[GOOD], solution=["sad"]) == [2.0]


def test_trl_mistakes_are_named():
    with pytest.raises(ValueError, match="no column 'solution' with the gold labels \\(it has label\\)"):
        TRLReward(reward())(completions=[GOOD], label=["sad"])
    with pytest.raises(ValueError, match="part is one of format, answer, explanation, got 'length'"):
        TRLReward(reward(), part="length")


def test_verl_gets_a_score_and_the_parts():
    compute_score = VerlReward(reward())
    assert compute_score("dfew", GOOD, "sad", extra_info={"index": 1}) == {
        "score": 4.0, "format": 1.0, "answer": 1.0, "explanation": 1.0,
    }  # fmt: skip
    assert compute_score(data_source="dfew", solution_str=BAD, ground_truth="sad", extra_info=None)["score"] == 2.0


def test_verl_is_never_told_zero_for_a_failure():
    found = VerlReward(reward(broken))("dfew", GOOD, "sad")
    assert found["score"] == 2.0
    assert math.isnan(found["explanation"])
    only = CompositeReward(DFEW, explanation=ExplanationReward(), verifier=broken)
    with pytest.raises(RuntimeError, match="no reward could be computed for a completion of 'dfew'"):
        VerlReward(only)("dfew", GOOD, "sad")


def taught(tokenizer, prompt):
    """A two-layer Qwen2 that writes either of the two answers; without that much no reward differs."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    sizes = AutoConfig.for_model(
        "qwen2", hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, intermediate_size=64,
        vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(sizes)
    rows = [
        tokenizer(prompt)["input_ids"] + tokenizer(text + "</s>", add_special_tokens=False)["input_ids"]
        for text in (GOOD, BAD)
    ]
    batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(80):
        optimiser.zero_grad()
        model(**batch, labels=labels).loss.backward()
        optimiser.step()
    return model


def test_trl_trains_three_steps_with_it(tmp_path):
    pytest.importorskip("trl", reason="extra bench: pip install 'erv[bench]'")
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from erv.verifier.tokenizer import train_tokenizer

    prompt = "What does he feel?"
    tokenizer = train_tokenizer([GOOD, BAD, prompt], vocab_size=320)
    model = taught(tokenizer, prompt)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = GRPOConfig(
        output_dir=str(tmp_path), max_steps=3, per_device_train_batch_size=8, num_generations=8, max_completion_length=48,
        learning_rate=1e-3, logging_steps=1, report_to=[], use_cpu=True, bf16=False, save_strategy="no", seed=0,
    )  # fmt: skip
    parts = [TRLReward(reward(), part=name) for name in ("format", "answer", "explanation")]
    data = Dataset.from_list([{"prompt": prompt, "solution": "<answer> sad </answer>"}] * 16)
    trainer = GRPOTrainer(
        model=model, reward_funcs=parts, args=settings, train_dataset=data, processing_class=tokenizer
    )
    trainer.train()
    logged = [row for row in trainer.state.log_history if "reward" in row]
    assert len(logged) == 3
    for row in logged:
        means = [row[f"rewards/erv_{name}/mean"] for name in ("format", "answer", "explanation")]
        assert row["reward"] == pytest.approx(sum(means), abs=1e-5)
    assert any(row["rewards/erv_explanation/std"] > 0 for row in logged)
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
