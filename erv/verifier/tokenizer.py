"""Tokenizer of a verifier with random weights."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def train_tokenizer(texts: Sequence[str], vocab_size: int = 1000) -> PreTrainedTokenizerFast:
    """Train a lower-casing byte-level BPE tokenizer with the special tokens and template of RoBERTa's on `texts`."""
    core = ByteLevelBPETokenizer(lowercase=True)
    core.train_from_iterator(texts, vocab_size=vocab_size, special_tokens=_SPECIAL, show_progress=False)
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), _SPECIAL, strict=True))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core._tokenizer, **names)
    template = [(t, tokenizer.convert_tokens_to_ids(t)) for t in ("<s>", "</s>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=template)
    return tokenizer
