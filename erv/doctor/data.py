"""Whether a data set is what it should be: counts, labels, leaks, and every clip decoded as training would."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from erv.data.datasets.base import SPLITS, Corpus, CorpusError, CorpusMissing
from erv.data.datasets.subset import stratified_subset
from erv.data.media.decode import MediaInfo
from erv.data.media.decode_pool import DecoderPool
from erv.data.media.defects import Note, refusal, tally
from erv.data.media.feature_builder import probe
from erv.data.media.file_records import FileHashes, MediaInfoStore, fingerprint
from erv.data.media.settings import MediaSettings
from erv.doctor import leakage
from erv.types import Clip, MediaSpec, Split
from erv.utils.io import write_json, write_lines

VERSION = 1  # of the manifest's form
SHOWN = 5  # examples of each defect


def describe(
    corpus: Corpus, media: MediaSettings, spec: MediaSpec, sample: int | None, manifests: Path
) -> dict[str, Any]:  # fmt: skip
    """Read, decode and count. `sample` clips of each split are decoded, all when None; the manifest goes to `manifests`.

    "fails" holds why training would not begin, empty when it would.
    """
    here: dict[str, Any] = {"corpus": corpus.name, "root": str(corpus.root)}
    fails: list[str] = []
    try:
        corpus.require()
    except (CorpusMissing, CorpusError) as error:
        fails.append(str(error))
    try:
        corpus.prepare()
        clips = {split: corpus.clips(split) for split in SPLITS}
    except (CorpusMissing, CorpusError):
        return {**here, "fails": fails}
    checked = [clip for split in SPLITS for clip in stratified_subset(clips[split], sample)]
    every = [clip for split in SPLITS for clip in clips[split]]
    hashes = FileHashes(f"{media.cache}/hashes")
    keys = {clip.id: hashes.of_clip(clip.video, clip.audio) for clip in every}
    facts = _facts(checked, keys, media, spec)
    notes = _notes(checked, facts, media, spec)
    fails += filter(None, [refusal(notes, SHOWN)])
    return {
        **here,
        "classes": {split: _classes(corpus, clips[split]) for split in SPLITS if clips[split]},
        "decoded": len(checked),
        "media": _media(facts.values()),
        "defects": {split: tally(n for n in notes if n.split == split) for split in SPLITS if clips[split]},
        "examples": _examples(notes),
        "warnings": [*corpus.warnings(), *leakage.find(corpus, keys)],
        "manifest": _write(manifests, corpus, clips, keys, facts),
        "fails": fails,
    }


def _facts(
    clips: Sequence[Clip], keys: Mapping[str, str | None], media: MediaSettings, spec: MediaSpec
) -> dict[str, MediaInfo]:
    """The facts about each clip, by its id."""
    store = MediaInfoStore.of(media, spec)
    files = {key: (clip.video, clip.audio) for clip in clips if (key := keys[clip.id]) is not None}
    with DecoderPool[str](spec, media.limits, media.num_workers, media.timeout_s, media.memory_gb) as decoders:
        found = probe(files, decoders, store)
    absent = MediaInfo(missing=tuple(media.modalities))
    return {clip.id: found[key] if (key := keys[clip.id]) is not None else absent for clip in clips}


def _notes(clips: Sequence[Clip], facts: Mapping[str, MediaInfo], media: MediaSettings, spec: MediaSpec) -> list[Note]:
    names = tuple(media.modalities)
    settled = (media.defect_actions.apply(c.id, c.split, facts[c.id], names, spec.num_frames) for c in clips)
    return [note for _, notes in settled for note in notes]


def _classes(corpus: Corpus, clips: Sequence[Clip]) -> dict[str, int]:
    counts = Counter(clip.label for clip in clips)
    return {label: counts[label] for label in corpus.taxonomy.labels}


def _media(facts: Iterable[MediaInfo]) -> dict[str, Any]:
    """Codecs, and the least, middle and greatest of what can be measured."""
    known = list(facts)
    pictures = [f for f in known if f.video is not None]
    sounds = [f for f in known if f.audio is not None]

    def spread(values: Iterable[float]) -> list[float] | None:
        listed = sorted(values)
        return [round(v, 2) for v in (listed[0], median(listed), listed[-1])] if listed else None

    return {
        "video": dict(Counter(str(f.video) for f in pictures).most_common()),
        "audio": dict(Counter(str(f.audio) for f in sounds).most_common()),
        "sizes": dict(Counter(f"{f.width}x{f.height}" for f in pictures).most_common(5)),
        "rates": dict(Counter(f"{f.rate} Hz, {f.channels} channels" for f in sounds).most_common(5)),
        "seconds": spread(f.seconds for f in pictures),
        "frames": spread(f.frames for f in pictures),
        "fps": spread(f.fps for f in pictures if f.fps),
    }


def _examples(notes: Iterable[Note]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for note in notes:
        found[note.defect].append(f"{note.clip} ({note.split}): {note.reason}")
    return {defect: list(dict.fromkeys(lines))[:SHOWN] for defect, lines in found.items()}


def _write(
    folder: Path,
    corpus: Corpus,
    clips: Mapping[Split, Sequence[Clip]],
    keys: Mapping[str, str | None],
    facts: Mapping[str, MediaInfo],
) -> dict[str, Any]:
    """Write the manifest, one clip a line, and its summary, whose hashes later runs record as well."""
    digest = corpus.digest()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{corpus.name}-{digest[:12]}.jsonl"
    rows = (
        {**asdict(c), "sha256": keys[c.id], "facts": facts[c.id].row() if c.id in facts else None}
        for split in SPLITS
        for c in clips[split]
    )
    write_lines(file, rows)
    summary = {
        "version": VERSION, "file": str(file), "corpus": corpus.name, "digest": digest,
        "clips": {split: len(clips[split]) for split in SPLITS},
        "sha256": {s: fingerprint((corpus.identity(c), keys[c.id]) for c in clips[s]) for s in SPLITS},
    }  # fmt: skip
    write_json(file.with_suffix(".json"), summary)
    return summary


def page(found: Mapping[str, Any]) -> list[str]:
    """The same as lines to read."""
    lines = ["", f"data: {found['corpus']} at {found['root']}"]
    if "classes" in found:
        lines += [*_table(found["classes"]), "", *_spoken_media(found)]
        lines += [f"defects, {split}: {_spoken_tally(counts)}" for split, counts in found["defects"].items()]
        for defect, examples in found["examples"].items():
            lines += [f"  {defect}:", *(f"    {line}" for line in examples)]
        lines += [f"note: {warning}" for warning in found["warnings"]]
        lines += [f"manifest: {found['manifest']['file']}"]
    for problem in found["fails"]:
        lines += ["", f"training would stop here: {problem}"]
    return lines


def _table(classes: Mapping[str, Mapping[str, int]]) -> list[str]:
    labels = list(next(iter(classes.values())))
    width = max(map(len, labels))
    head = f"{'':<{width}} " + " ".join(f"{split:>8}" for split in classes)
    rows = [f"{label:<{width}} " + " ".join(f"{classes[s][label]:>8,}" for s in classes) for label in labels]
    total = f"{'all':<{width}} " + " ".join(f"{sum(classes[s].values()):>8,}" for s in classes)
    return [head, *rows, total]


def _spoken_media(found: Mapping[str, Any]) -> list[str]:
    media = found["media"]
    lines = [f"decoded: {found['decoded']:,} clips"]
    for name in ("video", "audio", "sizes", "rates"):
        lines.append(f"{name}: " + (", ".join(f"{kind} {count:,}" for kind, count in media[name].items()) or "none"))
    for name in ("seconds", "frames", "fps"):
        if media[name]:
            least, middle, most = media[name]
            lines.append(f"{name}: {least:g} to {most:g}, median {middle:g}")
    return lines


def _spoken_tally(counts: Mapping[str, Mapping[str, int]]) -> str:
    done = {
        "error": "stop the run",
        "skip": "left out",
        "mask": "masked",
        "repeat": "frames repeated",
        "silence": "silence",
    }
    spoken = [f"{n:,} {defect} ({done[action]})" for action, found in counts.items() for defect, n in found.items()]
    return ", ".join(spoken) or "none"
