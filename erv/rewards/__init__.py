"""R_format, R_answer, R_E and their sum; pure functions of text and probabilities (paper, rewards)."""

from erv.utils.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "AnswerReward": "erv.rewards.answer",
        "CompositeReward": "erv.rewards.composite",
        "ExplanationReward": "erv.rewards.explanation",
        "FormatReward": "erv.rewards.format",
    },
)
