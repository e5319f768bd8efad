"""Records that one stage of the pipeline passes to the next.

They are frozen and hold plain values only, so that each can be sent to another process or written as a line of JSONL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Split = Literal["train", "dev", "test"]
Status = Literal[
    "ok", "off_list", "refused", "failed"
]  # of a verdict; off_list: no single label of the taxonomy is named
Decoding = Literal["sampled", "greedy"]
Aspect = Literal["pad", "squash"]  # how a frame becomes square: grey borders, or stretched
AUDIO_RATE = 16000  # sampling rate in Hz of every waveform that a policy gets


@dataclass(frozen=True, slots=True)
class Clip:
    """One video clip with its emotion label.

    Attributes:
        id: Unique within the corpus.
        video: A file that PyAV can open, or a folder of pictures.
        label: A label of the corpus' taxonomy; "" for an unlabelled file.
        split: The split of the corpus.
        rationale: The text between the think tags that SFT imitates; None if the corpus has none.
        subject: The speaker or actor; None if unknown.
        language: Language code of the rationale (ISO 639).
        source: The file and row that the clip was read from.
        audio: The file with the sound, if it is not in `video`.
        weight: How often an epoch shows the clip, on average.
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
    """One completion sampled from the policy.

    Attributes:
        text: The decoded text.
        tokens: How many tokens were generated, the end-of-sequence token included.
        finished: Whether it ended with the end-of-sequence token; False if it was cut at the token limit.
    """

    text: str
    tokens: int
    finished: bool


@dataclass(frozen=True, slots=True)
class Group:
    """The G completions sampled for one clip; GRPO compares their rewards with each other only."""

    clip: Clip
    completions: tuple[Completion, ...]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of a rationale, as the verifier reads it.

    Attributes:
        text: The sentence.
        emotions: The emotions that the verifier predicts, as labels of the taxonomy, the most probable first.
        filtered: Whether the neutral filter of the explanation reward leaves the sentence out.
    """

    text: str
    emotions: tuple[str, ...]
    filtered: bool = False


@dataclass(frozen=True, slots=True)
class RewardParts:
    """The rewards of one completion.

    Attributes:
        total: The weighted sum of the parts that are not None (paper, R = R_format + R_answer + R_E); None if all are None.
        parts: The unweighted value of each reward term by name; None for a term that could not be computed.
        sentences: The sentences of the rationale with the verifier's emotions.
    """

    total: float | None
    parts: Mapping[str, float | None]
    sentences: tuple[Sentence, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's reading of one explanation.

    Attributes:
        judge: The judge's name.
        emotion: The emotion that the explanation describes, a label of the taxonomy; None unless `status` is "ok".
        status: "ok" if the judge named one label of the taxonomy.
        reason: Why not, if `status` is not "ok".
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
    """One row of predictions.jsonl: a completion of the policy for one clip, with its rewards and the judges' verdicts.

    Attributes:
        clip_id: The clip's id.
        gold: The clip's label.
        text: The whole completion.
        decoding: How it was generated.
        sample: The number of the sample among those of the clip, from 0; 0 for greedy.
        answer: The label in the answer tag, synonyms resolved; None if it is missing or not in the taxonomy.
        think: The text between the think tags; None if there are none.
        well_formed: Whether the completion has exactly the required tags; see `erv.rationale.parse`.
        tokens: How many tokens were generated, the end-of-sequence token included.
        finished: Whether it ended with the end-of-sequence token.
        sentences: The sentences of `think` with the verifier's emotions.
        rewards: The unweighted value of each reward term by name, and their weighted sum as "total"; None for what could not
            be computed.
        verdicts: One for each judge.
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
        """Convert to a JSON-serialisable dict."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Prediction:
        """Convert back from `row`."""
        values = dict(row)
        values["sentences"] = tuple(
            Sentence(s["text"], tuple(s["emotions"]), s.get("filtered", False)) for s in row["sentences"]
        )
        values["verdicts"] = tuple(Verdict(**v) for v in row["verdicts"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class MediaSpec:
    """The media input that a policy needs of each clip.

    Attributes:
        num_frames: How many frames, evenly spaced.
        side: Width and height of a frame in pixels.
        aspect: How a frame becomes square.
        seconds: How much of the sound, from its beginning.
        rate: Sampling rate of the sound in Hz.
        modalities: "video" and "audio", or one of them.
    """

    num_frames: int = 8
    side: int = 224
    aspect: Aspect = "pad"
    seconds: float = 30.0
    rate: int = AUDIO_RATE
    modalities: tuple[str, ...] = ("video", "audio")
