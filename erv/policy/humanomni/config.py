"""The configuration of HumanOmni: the sizes of four library models and of what connects them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import BertConfig, PretrainedConfig, Qwen2Config, SiglipVisionConfig, WhisperConfig

from erv.policy.humanomni.backbones import AUDIO, BERT, VISION, short_name

# Modules that can be trained or frozen one by one (policy.train).
PARTS = ("language_model", "mm_projector", "audio_projector", "bert_gate", "bert_model", "vision_tower", "audio_tower")
PROJECTORS = ("all_in_one_small", "all_in_one")  # of the 0.5B and the 7B model
AUDIO_POOL = 3  # Whisper positions averaged into one audio token
POSITIONS_PER_SECOND = 50  # of Whisper's encoder: 100 mel frames a second, strided by 2
PUBLIC_MODEL_TYPE = "HumanOmni_qwen2"
# Fields of a public config.json that belong to the language model.
_TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "tie_word_embeddings",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "use_sliding_window",
    "sliding_window",
    "max_window_layers",
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
# Fields of a public config.json with a single supported value.
_FIXED = {"mm_vision_select_feature": "patch", "mm_audio_projector_type": "mlp2x_gelu"}


class HumanOmniConfig(PretrainedConfig):
    """Sizes of HumanOmni (spec: policy.md section 1).

    Args:
        text_config, vision_config, audio_config, bert_config: sizes of Qwen2, SigLIP, Whisper and BERT: a dict, a library
            config, or a name of `erv.policy.humanomni.backbones`.
        mm_projector_type: "all_in_one_small" or "all_in_one".
        gate_hidden_size: hidden width of the gate, 3584 in all public models.
        num_frames: frames of a clip.
        mm_vision_select_layer: SigLIP layer whose output is used, as an index of its hidden states.
        upstream: where the backbones come from, {"vision_tower", "audio_tower", "bert_model": folder or hub id}.
    """

    model_type = "humanomni"
    sub_configs = {  # noqa: RUF012 - the library declares them so
        "text_config": Qwen2Config,
        "vision_config": SiglipVisionConfig,
        "audio_config": WhisperConfig,
        "bert_config": BertConfig,
    }

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
        upstream: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.text_config = _sub(Qwen2Config, text_config, {})
        self.vision_config = _sub(SiglipVisionConfig, vision_config, VISION)
        self.audio_config = _sub(WhisperConfig, audio_config, AUDIO)
        self.bert_config = _sub(BertConfig, bert_config, BERT)
        self.mm_projector_type = mm_projector_type
        self.gate_hidden_size = gate_hidden_size
        self.num_frames = num_frames
        self.mm_vision_select_layer = mm_vision_select_layer
        self.upstream = dict(upstream or {})
        kwargs.setdefault("tie_word_embeddings", self.text_config.tie_word_embeddings)
        super().__init__(**kwargs)
        if (
            kwargs.get("transformers_version") or text_config is not None
        ):  # the library also makes one from defaults alone
            self.check()

    @classmethod
    def from_public(
        cls, values: Mapping[str, Any], vision: Any, audio: Any, bert: Any, upstream: Mapping[str, str] | None = None
    ) -> HumanOmniConfig:
        """Convert the flat `config.json` of a public checkpoint: the language model's sizes and `mm_` fields.

        `vision`, `audio` and `bert` are the configs of the backbones. ValueError for variants of the public code that are not
        supported.
        """
        for name, supported in _FIXED.items():
            if values.get(name, supported) != supported:
                raise ValueError(f"{name} must be {supported!r}, the only kind in use; got {values[name]!r}")
        text = {k: v for k, v in values.items() if k in _TEXT_FIELDS and v is not None}
        return cls(
            text_config=text,
            vision_config=vision,
            audio_config=audio,
            bert_config=bert,
            mm_projector_type=values.get("mm_projector_type", "linear"),  # the public code's default
            num_frames=values.get("num_frames", 8),
            mm_vision_select_layer=values.get("mm_vision_select_layer", -2),
            upstream=upstream,
        )

    def to_public(self) -> dict[str, Any]:
        """Convert to the flat `config.json` that the public code reads; the inverse of `from_public`."""
        text = {k: v for k, v in self.text_config.to_dict().items() if k in _TEXT_FIELDS and v is not None}
        rope = text.pop("rope_parameters", None) or {}
        return {
            "architectures": ["HumanOmniQwen2ForCausalLM"],
            "model_type": PUBLIC_MODEL_TYPE,
            **text,
            **({"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}),
            "mm_projector_type": self.mm_projector_type,
            "mm_hidden_size": self.vision_config.hidden_size,
            "audio_hidden_size": self.audio_config.d_model,
            "mm_vision_select_layer": self.mm_vision_select_layer,
            "num_frames": self.num_frames,
            "mm_use_x_start_end": True,
            "image_aspect_ratio": "pad",
            **_FIXED,
            **{f"mm_{name}": self.upstream[name] for name in ("vision_tower", "audio_tower") if name in self.upstream},
        }

    def check(self) -> None:
        """Raise ValueError for sizes that cannot work together."""
        if self.mm_projector_type not in PROJECTORS:
            raise ValueError(
                f"mm_projector_type must be one of {', '.join(PROJECTORS)}, got {self.mm_projector_type!r}"
            )
        # the convolution halves the grid down (small) or up; only these grids halve to the face branch's ceil(grid / 2)
        grid, small = self.grid, self.mm_projector_type == "all_in_one_small"
        if grid % 2 == (1 if small else 0):
            raise ValueError(
                f"{self.mm_projector_type} needs an {'even' if small else 'odd'} number of patches a side so that its "
                f"branches match, got {grid} (image {self.vision_config.image_size}, patch "
                f"{self.vision_config.patch_size}); change image_size or the projector type"
            )

    @property
    def grid(self) -> int:
        """Patches along a side of a frame."""
        return self.vision_config.image_size // self.vision_config.patch_size

    @property
    def video_tokens(self) -> int:
        """Positions of a clip's picture in the prompt, with `num_frames` frames."""
        return self.num_frames * ((self.grid + 1) // 2) ** 2

    @property
    def audio_tokens(self) -> int:
        """Positions of a clip's sound in the prompt."""
        return self.audio_config.max_source_positions // AUDIO_POOL

    @property
    def feature_bytes(self) -> int:
        """Bytes of one clip's tower features in half precision."""
        video = self.num_frames * self.grid**2 * self.vision_config.hidden_size
        return 2 * (video + self.audio_tokens * self.audio_config.d_model)

    @property
    def audio_seconds(self) -> float:
        """Seconds of sound that the audio tower reads, 30 for Whisper."""
        return self.audio_config.max_source_positions / POSITIONS_PER_SECOND


def _sub(kind: type[PretrainedConfig], value: Any, known_sizes: Mapping[str, Any]) -> PretrainedConfig:
    """A sub-config from a library config, a name in `known_sizes`, a dict or None."""
    if isinstance(value, PretrainedConfig):
        return value
    if isinstance(value, str):
        if short_name(value) not in known_sizes:
            raise ValueError(
                f"no sizes are known for {value!r}; give a mapping of sizes, or one of {', '.join(known_sizes)}"
            )
        value = known_sizes[short_name(value)]
    return kind(**(value or {}))
