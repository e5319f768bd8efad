"""Language models behind an OpenAI-compatible endpoint: requests, retries, a cache of replies, prices."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Chat": "erv.llm.client",
        "Price": "erv.llm.pricing",
    },
)
