"""The released counting, reimplemented line by line, to make golden files that the project does not have (MAFW).

Written from spec (policy.md 9, original-defects.md 25 to 28) and independent of erv.evaluation.metrics on purpose, with the
variables that the released code carries from one line to the next.
"""

import re

import numpy as np

IDS = {
    "DFEW": {"happy": 1, "sad": 2, "neutral": 3, "angry": 4, "surprise": 5, "disgust": 6, "fear": 7},
    "MAFW": {
        "anger": 1,
        "disgust": 2,
        "fear": 3,
        "happiness": 4,
        "neutral": 5,
        "sadness": 6,
        "surprise": 7,
        "contempt": 8,
        "anxiety": 9,
        "helplessness": 10,
        "disappointment": 11,
    },
}


def normal(text, name):
    """The label, or None."""
    low = text.lower().replace("\n", "")
    if name == "DFEW":
        low = "sad" if low == "sadness" else low
        for part, whole in (("happiness", "happy"), ("anger", "angry")):
            if part in low:
                return whole
    else:
        exact = {
            "angry": "anger",
            "sad": "sadness",
            "anxious": "anxiety",
            "helpless": "helplessness",
            "disappointed": "disappointment",
        }
        if low in exact:
            return exact[low]
        for part, whole in (("happy", "happiness"), ("contemptuous", "contempt")):
            if part in low:
                return whole
    return low if low in IDS[name] else None


def joined(content):
    rows = []
    for line in content.split("\n"):
        if re.match(r"\d+\|", line):
            rows.append(line.strip())
        elif rows:
            rows[-1] = f"{rows[-1]} {line.strip()}"
    return [row.strip() for row in rows]


def answer(row, name):
    fields = row.split("|")
    if "<answer>" in row:
        inside = row[row.index("<answer>") + 8 :]
        return inside.split("</answer>")[0].strip()
    return (fields[1].split("<")[0] if name == "MAFW" and "<|im_end|>" in row else fields[1]).strip()


def count(rows, labels, name, several=False):
    """`labels` maps an id to a list of label ids; with `several` any of them is right."""
    size = len(IDS[name])
    per_class, matrix = [[0, 0] for _ in range(size)], [[0] * (size + 1) for _ in range(size)]
    correct, unknown, charged = 0, [], None
    for row in rows:
        said, gold = answer(row, name), labels[row.split("|")[0]]
        number = IDS[name].get(normal(said, name))
        if name == "DFEW":
            per_class[gold[0] - 1][1] += 1
            charged = gold
        if number is None:
            unknown.append(said)
            matrix[charged[0] - 1][size] += 1  # on MAFW that is the row of the last sample that was known
            continue
        charged = gold
        if name == "MAFW" and len(gold) == 1:
            per_class[gold[0] - 1][1] += 1
        matrix[gold[0] - 1][number - 1] += 1
        if number in gold if several else number == gold[0]:
            correct += 1
            per_class[gold[0] - 1][0] += 1
    head = {"correct": correct, "unknown": len(unknown), "n_lines": len(rows), "unknown_list": unknown}
    if several:
        return {**head, "WAR": 100 * correct / len(rows)}
    return {
        "per_class_[correct,total]": dict(zip(IDS[name], per_class, strict=True)),
        **head,
        "confusion_rows=gt_cols=pred+unknown": matrix,
    }


def compared(rows, labels, judge, name):
    ids = {}
    lost, consistent = 0, "Explanation-Consistency"
    names = {number: label for label, number in IDS[name].items()}
    for row in rows:
        id_, field = row.split("|")[:2]
        said = normal(field.split("<answer>")[1].split("</answer>")[0].strip(), name) if "<answer>" in field else None
        read = normal(judge[id_], name) if id_ in judge else None
        if said is None or read is None:
            lost += 1
            ids.setdefault("R1-False/GPT-False", []).append(id_)
            continue
        gold = names[labels[id_][0]]
        if said == read:
            ids.setdefault(consistent, []).append(id_)
        ids.setdefault(f"R1-{said == gold}/GPT-{read == gold}", []).append(id_)
    n = {key: len(found) for key, found in ids.items()}
    coherent = n.get("R1-True/GPT-True", 0) + n.get("R1-False/GPT-True", 0)
    return {
        "quarter_table": n,
        "total": len(rows),
        "unknown": lost,
        "ids": ids,
        "EEA": 100 * coherent / len(rows),
        "EPC": 100 * n.get(consistent, 0) / len(rows),
        "FCR": 100 * n.get("R1-True/GPT-True", 0) / len(rows),
    }


def judge_side_parse(rows, name):
    parsed = {}
    for row in rows:
        field = row.split("|")[1]
        reason = field.split("<think>")[1].split("</think>")[0].strip() if "<think>" in field else ""
        said = normal(field.split("<answer>")[-1].replace("</answer>", "").strip(), name)
        parsed[row.split("|")[0]] = {"reason": reason, "pred_emotion": said or "neutral"}
    return parsed


def stored(content, labels, judge, name, compound=None):
    """A metrics_*.json of `content`; `labels` maps an id to a label id, `compound` to "1,6"."""
    rows = joined(content)
    single = {id_: [number] for id_, number in labels.items()}
    found = count(rows, single, name)
    recall = [100 * right / total if total else 0 for right, total in found["per_class_[correct,total]"].values()]
    whole = {label: sum(labels[row.split("|")[0]] == number for row in rows) for label, number in IDS[name].items()}
    full = [
        100 * found["per_class_[correct,total]"][label][0] / total if total else 0 for label, total in whole.items()
    ]
    war, uar = 100 * found["correct"] / len(rows), float(np.mean(recall))
    result = {
        "emotion_dict": IDS[name],
        "prediction_file": content,
        "labels": labels,
        "one_line_per_sample": rows,
        "count": found,
        "WAR": war,
        "UAR": uar,
        "WAR_printed": round(war, 3),
        "UAR_printed": round(uar, 3),
        "UAR_if_all_ground_truth_counted": float(np.mean(full)),
        "true_class_totals": whole,
        "judge": judge,
        "compare": compared(rows, single, judge, name),
        "judge_side_parse": judge_side_parse(rows, name),
    }
    if compound:
        mixed = {**single, **{id_: [int(part) for part in text.split(",")] for id_, text in compound.items()}}
        result["compound"] = {"labels": compound, **count(rows, mixed, name, several=True)}
    return result
