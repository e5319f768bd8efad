"""The records one stage hands the next: frozen, plain values only, so that every one of them can be a line of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Split = Literal["train", "dev", "test"]
Status = Literal["ok", "off_list", "refused", "failed"]
Decoding = Literal["sampled", "greedy"]
Aspect = Literal["pad", "squash"]
AUDIO_RATE = 16000  # samples per second of every wave that a policy gets


@dataclass(frozen=True, slots=True)
class Clip:
    """One video clip with its emotion label.

    `video` is a path that PyAV can open, or a folder of pictures; `audio` is where the sound is, if not in `video`. `label` is a
    label of the corpus' taxonomy ("" for a file that nobody has labelled); `rationale` is the text between the think tags that
    SFT imitates, where the corpus has one; `source` names the file and row the clip came from; `weight` is how often a pass
    over the data shows it, on average.
    """

    id: str
    video: str
    label: str
    split: Split
    rationale: str | None = None
    subject: str | None = None
    language: str = "en"
    source: str = ""
    audio: str | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer. `tokens` counts generated tokens, the end token included; `finished` says whether it came."""

    text: str
    tokens: int
    finished: bool


@dataclass(frozen=True, slots=True)
class Group:
    """The G completions sampled for one clip; their rewards are compared with each other only."""

    clip: Clip
    completions: tuple[Completion, ...]


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a rationale and the emotions the verifier finds in it (labels of the taxonomy, likeliest first).

    `filtered` says whether the neutral filter of the explanation reward leaves it out.
    """

    text: str
    emotions: tuple[str, ...]
    filtered: bool = False


@dataclass(frozen=True, slots=True)
class RewardParts:
    """The rewards of one completion.

    `parts` maps a reward's name to its unweighted value, None where it could not be computed; `total` is the weighted
    sum over the parts that are not None (paper, R = R_format + R_answer + R_E), None when there is none at all.
    """

    total: float | None
    parts: Mapping[str, float | None]
    sentences: tuple[Sentence, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's reading of one explanation.

    `emotion` is a label only when `status` is "ok"; otherwise it is None and `reason` says why.
    """

    judge: str
    emotion: str | None
    status: Status
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.emotion is None) == (self.status == "ok"):
            raise ValueError(
                f"a verdict has an emotion exactly when its status is 'ok'; got emotion={self.emotion!r}, "
                f"status={self.status!r}; set emotion=None for every other status"
            )


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row of predictions.jsonl: what the policy said about one clip, and what the judges read in it.

    `sample` numbers the samples of one clip (0 for greedy). `answer` is the label in the answer tag after synonyms,
    None when it is missing or off the list; `think` is the text between the think tags, None when there is none.
    """

    clip_id: str
    gold: str
    text: str
    decoding: Decoding = "greedy"
    sample: int = 0
    answer: str | None = None
    think: str | None = None
    well_formed: bool = False
    tokens: int = 0
    finished: bool = True
    sentences: tuple[Sentence, ...] = ()
    rewards: Mapping[str, float | None] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()

    def row(self) -> dict[str, Any]:
        """The prediction as a JSON-serialisable dict."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Prediction:
        """The inverse of `row`."""
        values = dict(row)
        values["sentences"] = tuple(
            Sentence(s["text"], tuple(s["emotions"]), s.get("filtered", False)) for s in row["sentences"]
        )
        values["verdicts"] = tuple(Verdict(**v) for v in row["verdicts"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a policy wants of a clip: `num_frames` pictures of `side` pixels, the first `seconds` of the sound at `rate` Hz."""

    num_frames: int = 8
    side: int = 224
    aspect: Aspect = "pad"
    seconds: float = 30.0
    rate: int = AUDIO_RATE
    modalities: tuple[str, ...] = ("video", "audio")
