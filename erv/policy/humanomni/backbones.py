"""Sizes and hub ids of the public models that HumanOmni is made of, by the last part of their hub id.

A HumanOmni checkpoint names its towers but does not hold their configurations (spec: policy.md section 1). The names are
read without their owner, because released checkpoints carry private paths in front of them.
"""

from __future__ import annotations

from typing import Any

VISION: dict[str, dict[str, Any]] = {
    "siglip-base-patch16-224": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
    },
    "siglip-so400m-patch14-384": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    },
}
AUDIO: dict[str, dict[str, Any]] = {
    "whisper-large-v3": {
        "num_mel_bins": 128,
        "d_model": 1280,
        "encoder_layers": 32,
        "encoder_attention_heads": 20,
        "encoder_ffn_dim": 5120,
        "max_source_positions": 1500,
    },
}
BERT: dict[str, dict[str, Any]] = {
    "bert-base-uncased": {
        "vocab_size": 30522,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
    },
}
HUB_IDS = {
    "siglip-base-patch16-224": "google/siglip-base-patch16-224",
    "siglip-so400m-patch14-384": "google/siglip-so400m-patch14-384",
    "whisper-large-v3": "openai/whisper-large-v3",
    "bert-base-uncased": "google-bert/bert-base-uncased",
}


def short_name(reference: str) -> str:
    """The last part of a path or hub id."""
    return reference.rstrip("/").rsplit("/", 1)[-1]
