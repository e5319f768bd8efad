"""Write data sets in their published layouts, with real clips, at any size."""

import csv
import json
import shutil
from pathlib import Path

from clips import write_clip, write_folder
from openpyxl import Workbook

from erv.data.datasets.mafw import COMPOUND_COUNTS, SINGLE_5_BY_LABEL, SINGLE_COUNTS
from erv.taxonomy import DFEW, MAFW


def clip_at(path, source):
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, path)


def one_clip(folder):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "one.mp4"
    return path if path.is_file() else Path(write_clip(path, frames=30))


def table(path, head, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


def dfew(root, packaging, rows, source, fold=5, clips=None):
    """`rows`: {"train": [(id, label id), …], "test": …}; clips as 1.mp4, 00001.mp4 or folders of pictures, by packaging."""
    for split, listed in rows.items():
        if packaging == "label":
            table(root / f"label/single_{split}set_{fold}.csv", ["id", "label"], listed)
        else:
            table(root / f"EmoLabel_DataSplit/{split}(single-labeled)/set_{fold}.csv", ["video_name", "label"], listed)
        for number, _ in listed:
            if clips == "folders":
                write_folder(root / "data" / f"{number:05d}", frames=9)
            elif clips != "none":
                name = f"clip/{number}.mp4" if packaging == "label" else f"videos/{number:05d}.mp4"
                clip_at(root / name, source)
    (root / "clip").mkdir(exist_ok=True)


def published_dfew(fold=5):
    """Rows with the published counts of fold 5."""
    counts = {"train": (1956, 1516, 2136, 1739, 1176, 116, 722), "test": (489, 378, 533, 434, 293, 29, 180)}
    number, rows = 0, {}
    for split, by_class in counts.items():
        rows[split] = []
        for label, count in enumerate(by_class, start=1):
            rows[split] += [(number + i + 1, label) for i in range(count)]
            number += count
    assert len(rows["train"]) == 9361
    assert set(DFEW.labels) == {"happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"}
    return rows


def mafw(root, rows, source=None, kind="single", fold=5, spreadsheet=None):
    """`rows`: {"train": [("00025.mp4", "anger"), …]}; `spreadsheet`: {"00025.mp4": "1" or "1,6"}."""
    for split, listed in rows.items():
        file = root / "Train & Test Set" / kind / "no_caption" / f"set_{fold}" / f"{split}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{clip} {label}\n" for clip, label in listed))
        for clip, _ in listed if source else ():
            clip_at(root / "clips" / clip, source)
    (root / "clips").mkdir(exist_ok=True)
    if spreadsheet is not None:
        book = Workbook()
        sheet = book.active
        sheet.append(["clip", *["annotations"] * 11, "label"])
        sheet.append(["", *MAFW.labels, ""])
        for clip, label in spreadsheet.items():
            sheet.append([clip, *[0] * 11, int(label) if label.isdigit() else label])
        (root / "Labels").mkdir(exist_ok=True)
        book.save(root / "Labels" / ("single-set.xlsx" if kind == "single" else "multi-set.xlsx"))


def published_mafw():
    number, rows = 0, {}
    for split, by_class in SINGLE_5_BY_LABEL.items():
        rows[split] = []
        for label, count in zip(MAFW.labels, by_class, strict=True):
            rows[split] += [(f"{number + i:05d}.mp4", label) for i in range(count)]
            number += count
    assert (len(rows["train"]), len(rows["test"])) == SINGLE_COUNTS[5]
    return rows


def published_compound():
    """Set 1 with its published counts: 11 classes and 32 combinations."""
    pairs = [f"{a}_{b}" for i, a in enumerate(MAFW.labels) for b in MAFW.labels[i + 1 :] if "neutral" not in (a, b)][
        :31
    ]
    labels = [*MAFW.labels, *pairs, "anger_disgust_anxiety"]
    rows, number = {}, 0
    for split, count in zip(("train", "test"), COMPOUND_COUNTS[1], strict=True):
        rows[split] = [(f"{number + i:05d}.mp4", labels[i % len(labels)]) for i in range(count)]
        number += count
    return rows


def emer(root, release, rows, language="eng"):
    if release == 1:
        table(root / "dataset-v1" / f"gt-{language}.csv", ["names", "emotions", "subtitles", "reasons"], rows)
    else:
        table(root / "dataset-v2" / "final-EMER-reason.csv", ["name", "chinese", "english"], rows)


def merr(root, entries, grain="fine"):
    root.mkdir(parents=True, exist_ok=True)
    (root / f"MERR_{grain}_grained.json").write_text(json.dumps(entries, ensure_ascii=False))


def meld(root, rows, source=None):
    """`rows`: {split: [(dialogue, utterance, emotion, speaker)]}."""
    folders = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
    head = ["Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID"]
    for split, listed in rows.items():
        table(
            root / f"{split}_sent_emo.csv",
            head,
            [[i, "Oh, no", s, e, "x", d, u] for i, (d, u, e, s) in enumerate(listed)],
        )
        for dialogue, utterance, _, _ in listed if source else ():
            clip_at(root / folders[split] / f"dia{dialogue}_utt{utterance}.mp4", source)


def instructions(path, rows, question="<video>\n<audio>\nWhich emotion?"):
    """`rows`: [(video, answer)]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [
        {"video": video, "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}
        for video, answer in rows
    ]
    path.write_text(json.dumps(entries))
