"""Sampling and log-probabilities of completions of any Hugging Face decoder, with the prompt's work shared by its group.

generate        the rollout: sample G completions per prompt
sampling        temperature, top_k, top_p, min_p, and a seeded draw
kv_cache        key-value caches while sampling (cascade attention)
logprobs        log-probs of completions for the loss, micro-batches
shared_prefix   hidden states of [prompt | completions] with the prompt run once
attention       attention with its log-sum-exp, merged over two sets of keys
layers          a decoder run layer by layer
token_logprobs  log-probs from hidden states in tiles of the vocabulary
self_check      gradients of the shared prefix against the plain ones, at the first step
"""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Sampling": "erv.engine.sampling",
    },
)
