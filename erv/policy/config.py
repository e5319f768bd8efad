"""The configuration of HumanOmni: four library models and what joins them."""

from __future__ import annotations

from typing import Any

from transformers import BertConfig, PretrainedConfig, Qwen2Config, SiglipVisionConfig, WhisperConfig

PARTS = ("language_model", "mm_projector", "audio_projector", "bert_gate", "bert_model", "vision_tower", "audio_tower")
PROJECTORS = ("all_in_one_small", "all_in_one")
AUDIO_POOL = 3  # Whisper positions averaged into one audio token


class HumanOmniConfig(PretrainedConfig):
    """Sizes of HumanOmni (spec: policy.md section 1). The four sub-configs are dicts or library config objects."""

    model_type = "humanomni"
    sub_configs = {  # noqa: RUF012 - the library's own way of declaring them
        "text_config": Qwen2Config, "vision_config": SiglipVisionConfig, "audio_config": WhisperConfig,
        "bert_config": BertConfig,
    }  # fmt: skip

    def __init__(
        self,
        text_config: Any = None,
        vision_config: Any = None,
        audio_config: Any = None,
        bert_config: Any = None,
        mm_projector_type: str = "all_in_one_small",
        gate_hidden_size: int = 3584,
        num_frames: int = 8,
        mm_vision_select_layer: int = -2,
        **kwargs: Any,
    ) -> None:
        self.text_config = _sub(Qwen2Config, text_config)
        self.vision_config = _sub(SiglipVisionConfig, vision_config)
        self.audio_config = _sub(WhisperConfig, audio_config)
        self.bert_config = _sub(BertConfig, bert_config)
        self.mm_projector_type = mm_projector_type
        self.gate_hidden_size = gate_hidden_size
        self.num_frames = num_frames
        self.mm_vision_select_layer = mm_vision_select_layer
        kwargs.setdefault("tie_word_embeddings", self.text_config.tie_word_embeddings)
        super().__init__(**kwargs)
        if kwargs.get("transformers_version") or text_config is not None:
            self.check()

    def check(self) -> None:
        """Raise ValueError for sizes that cannot work together."""
        if self.mm_projector_type not in PROJECTORS:
            raise ValueError(
                f"mm_projector_type must be one of {', '.join(PROJECTORS)}, got {self.mm_projector_type!r}"
            )
        grid, small = self.grid, self.mm_projector_type == "all_in_one_small"
        if grid % 2 == (1 if small else 0):
            raise ValueError(
                f"{self.mm_projector_type} needs an {'even' if small else 'odd'} number of patches a side so that its "
                f"branches match, got {grid} (image {self.vision_config.image_size}, patch "
                f"{self.vision_config.patch_size}); change image_size or the projector type"
            )

    @property
    def grid(self) -> int:
        """Patches a side."""
        return self.vision_config.image_size // self.vision_config.patch_size

    @property
    def audio_tokens(self) -> int:
        """Audio tokens of a clip."""
        return self.audio_config.max_source_positions // AUDIO_POOL


def _sub(kind: type[PretrainedConfig], value: Any) -> PretrainedConfig:
    return value if isinstance(value, PretrainedConfig) else kind(**(value or {}))
