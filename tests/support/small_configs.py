"""Sizes of a HumanOmni small enough for any test."""

from erv.policy.humanomni.config import HumanOmniConfig

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def tiny(projector, image_size=40, patch_size=8, layers=2):
    """A config with the given projector type, picture size and number of decoder layers."""
    text = {
        **SMALL,
        "num_hidden_layers": layers,
        "num_key_value_heads": 2,
        "vocab_size": 320,
        "max_position_embeddings": 256,
    }
    vision = {**SMALL, "image_size": image_size, "patch_size": patch_size}
    audio = {
        "d_model": 32,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "max_source_positions": 30,
    }
    bert = {**SMALL, "vocab_size": 121, "max_position_embeddings": 64}
    return HumanOmniConfig(
        text_config=text,
        vision_config=vision,
        audio_config=audio,
        bert_config=bert,
        mm_projector_type=projector,
        gate_hidden_size=16,
    )
