"""How the released code reads answers and prediction files, defects included (policy.md 8 and 9, original-defects.md 25 to 28).

Kept so that published figures can be repeated; nothing else may read answers this way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from erv.taxonomy import Taxonomy

_LINE_END = re.compile(r"\r\n|\r|\n")  # of a file; a text may hold other characters that end lines elsewhere
_MAFW_EXACT = {
    "angry": "anger", "sad": "sadness", "anxious": "anxiety", "helpless": "helplessness", "disappointed": "disappointment",
}  # fmt: skip


def released_dfew(text: str) -> str:
    """The released normalisation of an answer on DFEW; what it does not know stays as it is, in lower case."""
    low = text.lower().replace("\n", "")
    if low == "sadness":
        return "sad"
    return "happy" if "happiness" in low else "angry" if "anger" in low else low


def released_mafw(text: str) -> str:
    """The released normalisation of an answer on MAFW; "unhappy" becomes happiness."""
    low = text.lower().replace("\n", "")
    if low in _MAFW_EXACT:
        return _MAFW_EXACT[low]
    return "happiness" if "happy" in low else "contempt" if "contemptuous" in low else low


RULES: dict[str, Callable[[str], str]] = {"dfew": released_dfew, "mafw": released_mafw}


@dataclass(frozen=True, slots=True)
class Line:
    """One sample of a prediction file: `id|text`, in one line."""

    id: str
    text: str

    def answer(self, taxonomy: Taxonomy) -> str:
        """What the accuracy is counted on, before normalisation.

        An answer without its end tag goes to the end of the line. Without any answer tag the first field counts, and on DFEW
        `sad<|im_end|>` is cut at its first bar, which leaves `sad<`.
        """
        field = self.text.split("|")[0]
        if "<answer>" in self.text:
            tail = self.text.split("<answer>", 1)[1]
            closed = taxonomy.name != "dfew" or "</answer>" in self.text
            return (tail.split("<answer>")[0].split("</answer>")[0] if closed else tail).strip()
        return (field.split("<")[0] if taxonomy.name == "mafw" and "<|im_end|>" in self.text else field).strip()

    def compared(self) -> str | None:
        """What the explanation is compared with: the answer of the first field; None without an answer tag there."""
        parts = self.text.split("|")[0].split("<answer>")
        return parts[1].split("</answer>")[0].strip() if len(parts) > 1 else None

    def seen_by_judge(self, taxonomy: Taxonomy) -> tuple[str, str]:
        """(the text a judge is shown, the answer kept beside it): an answer off the list becomes neutral there."""
        field = self.text.split("|")[0]
        parts = field.split("<think>")
        reason = parts[1].split("</think>")[0].strip() if len(parts) > 1 else ""
        return reason, label(field.split("<answer>")[-1].replace("</answer>", ""), taxonomy) or taxonomy.neutral


def label(text: str | None, taxonomy: Taxonomy) -> str | None:
    """The label that an answer or a judge's reply stands for by the released rules; None when it is off the list."""
    if text is None:
        return None
    found = rule(taxonomy)(text.strip())
    return found if found in taxonomy.labels else None


def rule(taxonomy: Taxonomy) -> Callable[[str], str]:
    """The normalisation of a data set; ValueError for one that the released code does not count."""
    if taxonomy.name not in RULES:
        raise ValueError(
            f"the released code counts answers on {' and '.join(RULES)}, this is {taxonomy.name!r}; set "
            "metrics.unknown=wrong metrics.answers=erv"
        )
    return RULES[taxonomy.name]


def one_line(id_: str, text: str) -> Line:
    """An answer of ours as the released file would hold it."""
    return Line(id_, " ".join(part.strip() for part in _LINE_END.split(text)).strip())


def read_lines(content: str) -> list[Line]:
    """The samples of a prediction file; a line without `digits|` at its start goes on with the sample before it."""
    joined: list[str] = []
    for row in _LINE_END.split(content):
        if "|" in row and row.split("|")[0].isdigit():
            joined.append(row.strip())
        elif joined:
            joined[-1] += f" {row.strip()}"
    return [Line(*row.strip().split("|", 1)) for row in joined]
