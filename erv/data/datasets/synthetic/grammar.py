"""The sentences of the embedded corpus: context, visual cues, voice cues and conclusions, and the rationales made of them.

A cue or conclusion names exactly one emotion, a context sentence none. The oracle judge looks for the phrases, so no phrase
may contain another emotion's phrase.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

EMOTIONS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
# Emotion -> the one that it is confused with: in blended clips, and in the unfaithful rationales that SFT imitates.
CONFUSED_WITH = {
    "happy": "surprise",
    "sad": "neutral",
    "neutral": "sad",
    "angry": "disgust",
    "surprise": "fear",
    "disgust": "angry",
    "fear": "surprise",
}

FACE_CUES = {
    "happy": (
        "the mouth corners rise",
        "the cheeks lift",
        "a broad smile appears",
        "the eyes crinkle warmly",
        "the lips curve upward",
    ),
    "sad": (
        "the mouth corners droop",
        "the inner brows rise",
        "the eyelids hang low",
        "the lips turn downward",
        "the gaze sinks",
    ),
    "neutral": (
        "the face stays relaxed",
        "the brows rest level",
        "the mouth stays even",
        "the features hardly move",
        "the gaze stays calm",
    ),
    "angry": (
        "the brows draw together",
        "the eyes glare",
        "the lips press tight",
        "the jaw clenches",
        "the brows slant inward",
    ),
    "surprise": (
        "the eyes open wide",
        "the mouth falls open",
        "the brows shoot up",
        "the jaw drops",
        "the brows arch high",
    ),
    "disgust": (
        "the nose wrinkles",
        "the upper lip curls",
        "the eyes narrow in aversion",
        "the mouth twists aside",
        "the nostrils pull up",
    ),
    "fear": (
        "the eyes dart about",
        "the lips stretch thin",
        "the brows pull up tensely",
        "the face stiffens",
        "the chin trembles",
    ),
}
FACE_FRAMES = (
    "{cue} as the clip goes on",
    "we can see that {cue}",
    "over these frames {cue}",
    "in the picture {cue}",
    "it is visible that {cue}",
)
VOICE_CUES = {
    "happy": ("bright and lively", "light and melodic", "cheerful in pitch"),
    "sad": ("low and slow", "weak and falling", "quiet and heavy"),
    "neutral": ("flat and steady", "even and plain", "regular in pitch"),
    "angry": ("loud and harsh", "sharp and forceful", "rough and pressed"),
    "surprise": ("suddenly high", "jumping in pitch", "quick with a gasp"),
    "disgust": ("creaky and drawn out", "low with a grunt", "throaty and repelled"),
    "fear": ("shaky and thin", "trembling and breathless", "high and unsteady"),
}
VOICE_FRAMES = (
    "the voice is {cue}",
    "the voice sounds {cue}",
    "we hear a voice that is {cue}",
    "the tone of speech is {cue}",
)
WORDS = {
    "happy": ("happiness", "joy", "delight", "cheerfulness"),
    "sad": ("sadness", "sorrow", "grief", "gloom"),
    "neutral": ("calmness", "composure", "neutrality", "indifference"),
    "angry": ("anger", "rage", "irritation", "fury"),
    "surprise": ("surprise", "astonishment", "amazement", "startle"),
    "disgust": ("disgust", "revulsion", "loathing", "distaste"),
    "fear": ("fear", "fright", "dread", "terror"),
}
CONCLUSIONS = (
    "together this points to {word}",
    "all of this suggests {word}",
    "the person seems to feel {word}",
    "so the scene conveys {word}",
    "this is the picture of {word}",
)
COLOURS = ("red", "blue", "green", "grey", "yellow", "brown")
CONTEXT = (
    "the person wears a {colour} shirt",
    "the background is {colour}",
    "the camera holds still",
    "a person looks into the camera",
    "the clip is short",
    "the wall behind is {colour}",
)
# In the verifier's training text only, which is to cover more than what the policy says.
EXTRA_FACE_CUES = {
    "happy": ("the eyes sparkle", "the teeth show in a grin"),
    "sad": ("the eyes fill with tears", "the head bows"),
    "neutral": ("the eyes blink slowly", "the posture stays loose"),
    "angry": ("the nostrils flare", "the stare hardens"),
    "surprise": ("the head jerks back", "the breath catches"),
    "disgust": ("the tongue pushes out", "the head turns away"),
    "fear": ("the pupils widen", "the shoulders shrink"),
}


def phrases() -> dict[str, list[str]]:
    """Emotion -> every phrase that names it; the oracle judge looks for these."""
    return {e: [*FACE_CUES[e], *VOICE_CUES[e], *WORDS[e]] for e in EMOTIONS}


def sentence(text: str) -> str:
    """A clause with a capital and a full stop."""
    return text[0].upper() + text[1:] + "."


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def context(rng: np.random.Generator, shirt: str, wall: str) -> str:
    """A sentence about the setting, which names no emotion."""
    frame = _pick(rng, CONTEXT)
    return sentence(frame.format(colour=shirt if "shirt" in frame else wall))


def face(rng: np.random.Generator, cue: str) -> str:
    """A sentence that describes the visual cue `cue`."""
    return sentence(_pick(rng, FACE_FRAMES).format(cue=cue))


def voice(rng: np.random.Generator, cue: str) -> str:
    """A sentence that describes the vocal cue `cue`."""
    return sentence(_pick(rng, VOICE_FRAMES).format(cue=cue))


def conclusion(rng: np.random.Generator, word: str) -> str:
    """A sentence that names the emotion by `word`."""
    return sentence(_pick(rng, CONCLUSIONS).format(word=word))


def mixed(rng: np.random.Generator, first: str, second: str) -> str:
    """One sentence that names two emotions."""
    return sentence(f"{_pick(rng, FACE_CUES[first])} but the voice is {_pick(rng, VOICE_CUES[second])}")


def rationale(
    rng: np.random.Generator, emotion: str, shirt: str, wall: str, confused: float = 0.65, mixing: float = 0.08
) -> str:
    """The rationale that SFT imitates for a clip of `emotion`.

    With probability `confused` all emotional sentences name the emotion that it is confused with (unfaithful, as R1-Omni's
    rationales are); each emotional sentence is mixed with any other emotion with probability `mixing`.
    """
    named = CONFUSED_WITH[emotion] if rng.random() < confused else emotion
    kinds = ["context"] + ["context"] * (rng.random() < 0.3) + ["face"] + ["face"] * (rng.random() < 0.3)
    kinds += ["context"] * (rng.random() < 0.25) + ["voice", "conclusion"]
    sentences = []
    for kind in kinds:
        if kind == "context":
            sentences.append(context(rng, shirt, wall))
        elif rng.random() < mixing:
            sentences.append(mixed(rng, named, _pick(rng, [e for e in EMOTIONS if e != named])))
        elif kind == "face":
            sentences.append(face(rng, _pick(rng, FACE_CUES[named])))
        elif kind == "voice":
            sentences.append(voice(rng, _pick(rng, VOICE_CUES[named])))
        else:
            sentences.append(conclusion(rng, _pick(rng, WORDS[named])))
    return " ".join(sentences)
