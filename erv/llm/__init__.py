"""Language models behind an OpenAI-compatible endpoint: client with retries, cache of replies, prices, the Batch API."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Chat": "erv.llm.client",
        "Price": "erv.llm.pricing",
    },
)
