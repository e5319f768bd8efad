"""The tiny policy: processor, saving, training only what is to be trained, order of batches."""

import os
import subprocess
import sys

import hydra
import pytest
import torch
from files import encode_files

from erv.cli.command import conf_folder
from erv.config.instantiate import plain
from erv.policy import load_policy, save_policy
from erv.policy.policy import frozen_copy
from erv.rationale import compose


@pytest.fixture(scope="module")
def policy(corpus):
    torch.manual_seed(0)
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        node = plain(hydra.compose("train", overrides=["policy=tiny"]).policy)
    node.pop("_target_")
    return load_policy(**node, texts=[compose(c.rationale, c.label) for c in corpus.clips("train")])


def batch_of(policy, corpus, count=3):
    clips = corpus.clips("test")[:count]
    features = encode_files(policy, [c.video for c in clips])
    prompt = policy.processor.prompt()
    targets = [policy.processor.target_ids(compose(c.rationale, c.label)) for c in clips]
    return policy.processor.collate([prompt] * count, features, targets)


def test_saving_and_loading_is_bit_equal(policy, corpus, tmp_path):
    save_policy(policy, tmp_path)
    again = load_policy(str(tmp_path))
    batch = batch_of(policy, corpus)
    with torch.no_grad():
        assert torch.equal(policy.model(batch).logits, again.model(batch).logits)
    assert again.processor.settings() == policy.processor.settings()


def test_only_the_parts_to_be_trained_get_gradients_and_training_mode(policy, corpus):
    model = policy.model.set_trainable(["language_model", "audio_projector"]).train()
    model.zero_grad()
    model(batch_of(policy, corpus)).loss.backward()
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {"language_model", "audio_projector"}
    assert model.language_model.training
    assert not model.vision_tower.training
    with pytest.raises(ValueError, match=r"policy.train takes language_model, .*; got lm"):
        model.set_trainable(["lm"])


def test_the_reference_shares_frozen_parts_and_stays_where_it_was(policy):
    model = policy.model.set_trainable(["language_model"])
    reference = frozen_copy(model)
    assert (
        reference.vision_tower.embeddings.patch_embedding.weight is model.vision_tower.embeddings.patch_embedding.weight
    )
    before = reference.language_model.lm_head.weight.clone()
    with torch.no_grad():
        model.language_model.lm_head.weight.add_(1)
    assert torch.equal(reference.language_model.lm_head.weight, before)
    assert not any(p.requires_grad for p in reference.parameters())
    with torch.no_grad():
        model.language_model.lm_head.weight.sub_(1)


def test_placeholders_and_features_must_agree(policy, corpus):
    batch = batch_of(policy, corpus)
    from dataclasses import replace

    with pytest.raises(ValueError, match=r"3 prompts have a placeholder for audio but features of 0 clips were given"):
        policy.model.embed(replace(batch, audio=None))


def test_tokenizers_are_the_same_in_every_process(tmp_path):
    """Vocabularies once depended on hash order; two processes with other hash seeds must agree."""
    code = (
        "from erv.policy.humanomni.tokenizer import train_bert_tokenizer, train_tokenizer\n"
        "from erv.data.datasets.synthetic import labels\n"
        "from erv.verifier.classifier import train_tokenizer as third\n"
        "texts = [row['text'] for row in labels.rows(0, train=300, heldout=1, withheld=1)]\n"
        "for train in (train_tokenizer, train_bert_tokenizer, third):\n"
        "    print(train(texts).backend_tokenizer.to_str())\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) > 10_000


def test_random_weights_of_parts_that_are_named_by_their_models(corpus):
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        node = plain(
            hydra.compose("train", overrides=["policy=tiny", "policy.config.bert_config=bert-base-uncased"]).policy
        )
    node.pop("_target_")
    policy = load_policy(**node, texts=[compose(c.rationale, c.label) for c in corpus.clips("train")])
    assert policy.model.config.bert_config.hidden_size == 768
    assert policy.model.config.bert_config.vocab_size == len(policy.processor.bert_tokenizer)
    assert policy.model.bert_model.embeddings.word_embeddings.num_embeddings == len(policy.processor.bert_tokenizer)
