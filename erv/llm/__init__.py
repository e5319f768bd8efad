"""Language models behind an OpenAI-compatible endpoint: asked politely, paid once, remembered on disk."""

from erv.llm.cache import Reply
from erv.llm.chat import Chat, CircuitOpen, Question
from erv.llm.prompts import Prompt, data

__all__ = ["Chat", "CircuitOpen", "Prompt", "Question", "Reply", "data"]
