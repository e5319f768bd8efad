"""Tiny models and tokenizers whose outputs the released code computed, from the fixtures' folder (fixtures/README.md)."""

import json
import os
from pathlib import Path

from safetensors.torch import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from erv.policy.humanomni.checkpoint import build, from_original_names
from erv.policy.humanomni.config import HumanOmniConfig

REPOSITORY_FIXTURES = Path(__file__).parents[1] / "fixtures"
FIXTURES = Path(os.environ.get("ERV_FIXTURES", REPOSITORY_FIXTURES))
MODELS = sorted(config.name.removesuffix(".config.json") for config in FIXTURES.glob("model_*.config.json"))


def file(name):
    """Path of a fixture: that of ERV_FIXTURES, or the repository's where that folder has none."""
    return FIXTURES / name if (FIXTURES / name).exists() else REPOSITORY_FIXTURES / name


def sizes(name):
    """The sizes {"llm", "vision", "audio", "bert", ...} of a model."""
    return json.loads(file(f"{name}.config.json").read_text())


def state(name):
    """The weights of a model under their original names."""
    weights = {}
    for part in sorted(file(f"{name}.config.json").parent.glob(f"{name}.state*.safetensors")):
        weights |= load_file(part)
    return weights


def model(name, dtype=None):
    """HumanOmni with the weights of `name`, in eval mode; the parts that the released SFT trains are trainable."""
    import torch

    values = sizes(name)
    config = HumanOmniConfig.from_public(values["llm"], values["vision"], values["audio"], values["bert"])
    humanomni = build(config, from_original_names(state(name)), dtype or torch.float32, name, public=True)
    humanomni.language_model.set_attn_implementation("eager")  # as in the run that made the fixtures
    return humanomni.set_trainable(["language_model", "mm_projector", "audio_projector", "bert_gate"]).eval()


def case(name, letter):
    """The tensors of one case (A picture and sound, B an SFT batch, C picture only) of a model."""
    (path,) = file(f"{name}.config.json").parent.glob(f"{name}.case{letter}_*.safetensors")
    return load_file(path)


def tokenizer():
    """The toy Qwen2-like tokenizer with its ChatML template."""
    settings = json.loads(file("toy_tokenizer.tokenizer_config.json").read_text())
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(file("toy_tokenizer.json")),
        eos_token=settings["eos_token"],
        pad_token=settings["pad_token"],
    )
    tokenizer.chat_template = settings["chat_template"]
    return tokenizer


def bert_tokenizer():
    """The toy BERT tokenizer."""
    words = json.loads(file("toy_bert_vocab.json").read_text())
    core = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    special = [(token, words.index(token)) for token in ("[CLS]", "[SEP]")]
    core.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
