"""A text classifier whose head reads the mean of the token embeddings, for encoders that were trained with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

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

POOLING_FILE = "1_Pooling/config.json"  # of sentence-transformers: how sentence embeddings are made of token embeddings


class MeanPoolingConfig(PretrainedConfig):
    """`encoder` is the encoder's own config.

    The model type is one that transformers does not have: where erv is not imported, the Auto classes refuse the folder
    instead of putting the stock head, which reads the first token, on the encoder.
    """

    model_type = "erv_mean_pooling"
    sub_configs: ClassVar[dict[str, Any]] = {"encoder": AutoConfig}

    def __init__(self, encoder: PretrainedConfig | dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.encoder: Any = AutoConfig.for_model(**encoder) if isinstance(encoder, dict) else encoder
        super().__init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Width of the token embeddings."""
        return int(self.encoder.hidden_size)

    @property
    def max_position_embeddings(self) -> int:
        """Positions that the encoder has embeddings for."""
        return int(self.encoder.max_position_embeddings)


@dataclass
class MeanPoolingOutput(SequenceClassifierOutput):
    """Logits `[S, E]` and the pooled embeddings `[S, D]` that they were computed from."""

    pooler_output: Tensor | None = None


class MeanPoolingClassifier(PreTrainedModel):
    """An encoder, the mean of its last hidden states over the tokens that are not padding, dropout and a linear layer."""

    config_class = MeanPoolingConfig
    base_model_prefix = "encoder"
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: MeanPoolingConfig) -> None:
        super().__init__(config)
        self.encoder = _without_pooler(AutoModel.from_config(config.encoder, trust_remote_code=False))
        sizes = config.encoder.to_dict()
        rates = (sizes.get(name) for name in ("classifier_dropout", "hidden_dropout_prob", "dropout"))
        self.dropout = nn.Dropout(next((rate for rate in rates if rate is not None), 0.0))
        self.head = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @classmethod
    def on_encoder(cls, checkpoint: str, **settings: Any) -> MeanPoolingClassifier:
        """The encoder of `checkpoint` (hub id or folder) under a new head; `settings` go to the config."""
        encoder = AutoModel.from_pretrained(checkpoint, trust_remote_code=False)
        encoder.config._name_or_path = ""  # a path of this machine, which would be saved with the encoder's config
        model = cls(MeanPoolingConfig(encoder.config, **settings))
        model.encoder = _without_pooler(encoder)
        return model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        output_hidden_states: bool = False,
    ) -> MeanPoolingOutput:
        """Logits of tokens `[S, T]`; `attention_mask` is 0 for padding."""
        output = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=output_hidden_states
        )
        mask = attention_mask[..., None].to(output.last_hidden_state.dtype)
        pooled = (output.last_hidden_state * mask).sum(1) / mask.sum(1).clamp(min=1)
        logits = self.head(self.dropout(pooled))
        return MeanPoolingOutput(logits=logits, hidden_states=output.hidden_states, pooler_output=pooled)


def trained_with_mean_pooling(checkpoint: str) -> bool:
    """Whether sentence-transformers' config in the folder or hub repository says that the encoder's pooling is the mean."""
    file = cached_file(
        checkpoint,
        POOLING_FILE,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if file is None:
        return False
    with open(file, encoding="utf-8") as opened:
        return bool(json.load(opened).get("pooling_mode_mean_tokens", False))


def _without_pooler(encoder: Any) -> Any:
    """Take BERT's pooler away: its weights would never get a gradient, which DDP takes for an error."""
    if hasattr(encoder, "pooler"):
        encoder.pooler = None
    return encoder


AutoConfig.register(MeanPoolingConfig.model_type, MeanPoolingConfig)
AutoModelForSequenceClassification.register(MeanPoolingConfig, MeanPoolingClassifier)
