"""A text classifier with mean pooling, and how to tell the pooling that an encoder was trained with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils.hub import cached_file

Pooling = Literal["cls", "mean"]  # what the head reads: the first token, or the mean over the tokens
POOLING_FILE = "1_Pooling/config.json"  # of sentence-transformers: how token embeddings become a sentence embedding


class MeanPoolingConfig(PretrainedConfig):
    """Config of a MeanPoolingClassifier; `encoder` is the config of its encoder.

    The model type is deliberately unknown to transformers: where erv is not imported, the Auto classes refuse the folder
    instead of putting their own head, which reads the first token, on the encoder.
    """

    model_type = "erv_mean_pooling"
    sub_configs: ClassVar[dict[str, Any]] = {"encoder": AutoConfig}

    def __init__(self, encoder: PretrainedConfig | dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.encoder: Any = AutoConfig.for_model(**encoder) if isinstance(encoder, dict) else encoder
        super().__init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Width D of the token embeddings."""
        return int(self.encoder.hidden_size)

    @property
    def max_position_embeddings(self) -> int:
        """Number of positions that the encoder has embeddings for."""
        return int(self.encoder.max_position_embeddings)


@dataclass
class MeanPoolingOutput(SequenceClassifierOutput):
    """Logits `[S, E]` and the pooled embeddings that they were computed from."""

    pooler_output: Tensor | None = None  # [S, D], before dropout


class MeanPoolingClassifier(PreTrainedModel):
    """An encoder, the mean of its last hidden states over the tokens that are not padding, dropout and a linear layer."""

    config_class = MeanPoolingConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: MeanPoolingConfig) -> None:
        super().__init__(config)
        self.encoder = _without_pooler(AutoModel.from_config(config.encoder, trust_remote_code=False))
        # the encoder's own rate, under the name that its family gives it
        settings = config.encoder.to_dict()
        rates = (settings.get(name) for name in ("classifier_dropout", "hidden_dropout_prob", "dropout"))
        self.dropout = nn.Dropout(next((rate for rate in rates if rate is not None), 0.0))
        self.head = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @classmethod
    def on_encoder(cls, checkpoint: str, **settings: Any) -> MeanPoolingClassifier:
        """Put a new head on the encoder of `checkpoint` (hub id or folder); `settings` go to the config."""
        encoder = AutoModel.from_pretrained(checkpoint, trust_remote_code=False)
        encoder.config._name_or_path = ""  # may be a path of this machine, and would be saved with the encoder's config
        model = cls(MeanPoolingConfig(encoder.config, **settings))
        model.encoder = _without_pooler(encoder)
        return model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        output_hidden_states: bool = False,
    ) -> MeanPoolingOutput:
        """Compute the logits of token ids `[S, T]`; `attention_mask` `[S, T]` is 0 for padding, which the mean leaves out."""
        output = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=output_hidden_states
        )
        mask = attention_mask[..., None].to(output.last_hidden_state.dtype)
        pooled = (output.last_hidden_state * mask).sum(1) / mask.sum(1).clamp(min=1)
        logits = self.head(self.dropout(pooled))
        return MeanPoolingOutput(logits=logits, hidden_states=output.hidden_states, pooler_output=pooled)


def sentence_pooling(checkpoint: str) -> Pooling | None:
    """Read the pooling that the encoder of a folder or hub repository was trained with.

    None without sentence-transformers' config, or when that names no pooling. Raises ValueError for a pooling, or a
    concatenation of several, that the verifier does not have: with another one the encoder's training would be lost.
    """
    file = cached_file(
        checkpoint,
        POOLING_FILE,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if file is None:
        return None
    with open(file, encoding="utf-8") as stream:
        settings = json.load(stream)
    modes = [name for name, enabled in settings.items() if name.startswith("pooling_mode_") and enabled]
    if not modes:
        return None
    if modes == ["pooling_mode_cls_token"]:
        return "cls"
    if modes == ["pooling_mode_mean_tokens"]:
        return "mean"
    raise ValueError(
        f"{checkpoint} was trained with another pooling than a verifier can have: {POOLING_FILE} sets {', '.join(modes)}; set "
        "verifier.model.pooling=cls (first token) or verifier.model.pooling=mean (mean over the tokens)"
    )


def _without_pooler(encoder: Any) -> Any:
    """Remove BERT's pooler: its weights would never get a gradient, which DistributedDataParallel reports as an error."""
    if hasattr(encoder, "pooler"):
        encoder.pooler = None
    return encoder


AutoConfig.register(MeanPoolingConfig.model_type, MeanPoolingConfig)
AutoModelForSequenceClassification.register(MeanPoolingConfig, MeanPoolingClassifier)
