"""The golden test of the metrics on files it was not written for: MAFW, alone and beside DFEW."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from commands import ROOT
from counting import IDS, stored

ODD = [
    "<think>cut off <answer>{a}",
    "<think>nothing more",
    "{a}<|im_end|>",
    "<think>a | b</think> <answer>{a}</answer>",
    "<think>x</think>\n\n<answer>\n{A}\n</answer>",
    "<think>x</think><answer>{a}.</answer>",
    "<answer></answer>",
    "{a}",
    "<think>x</think><answer>unhappy</answer>",
    "<think>x</think><answer>Contemptuous</answer>",
    "<think>x</think><answer>sad</answer>",
    "<think>x</think><answer>{a} and tired</answer>",
]


def made(name, seed, clips=160):
    """A file of answers, a third of them odd, with labels, replies of a judge, and compound labels."""
    rng = np.random.default_rng(seed)
    names = list(IDS[name])
    lines, labels, judge, compound = [], {}, {}, {}
    for number in range(clips):
        id_ = f"{number + 100:05d}"
        gold, said = (int(rng.integers(len(names))) for _ in range(2))
        said = gold if rng.random() < 0.5 else said
        labels[id_] = gold + 1
        usual = f"<think>He looks tense.</think>\n<answer>{names[said]}</answer>"
        odd = ODD[int(rng.integers(len(ODD)))].format(a=names[said], A=names[said].upper())
        lines.append(f"{id_}|{odd if number and rng.random() < 0.5 else usual}")
        if rng.random() < 0.9:
            judge[id_] = str(rng.choice([*names, "unsure", names[gold], names[gold]]))
        if rng.random() < 0.3:
            other = int(rng.integers(len(names))) + 1
            compound[id_] = f"{gold + 1},{other}" if other != gold + 1 else f"{gold + 1}"
    return "\n".join(lines) + "\n", labels, judge, compound


def test_the_restatement_is_the_released_counting(fixtures):
    """Checked on the file that the released code made itself."""
    golden = json.loads((ROOT / "tests" / "fixtures" / "metrics_DFEW.json").read_text())
    again = stored(golden["prediction_file"], golden["labels"], golden["judge"], "DFEW")
    assert again.keys() == golden.keys()
    for key, value in golden.items():
        assert again[key] == (pytest.approx(value, abs=1e-9) if key.startswith(("WAR", "UAR")) else value), key


@pytest.mark.slow
def test_the_golden_test_runs_unchanged_on_mafw(tmp_path):
    """On a folder with MAFW's file alone; then, beside DFEW's, with two facts of it falsified."""
    content, labels, judge, compound = made("MAFW", seed=0)
    file = stored(content, labels, judge, "MAFW", compound)
    assert file["count"]["unknown"] > 10
    assert file["UAR"] != file["UAR_if_all_ground_truth_counted"]
    assert file["compound"]["correct"] > file["count"]["correct"]
    file["compound"] = {"count": file["compound"], "prediction_file": content}  # wherever it is kept
    file["compound"]["count"]["confusion_rows=gt_cols=pred+unknown"] = file["count"][
        "confusion_rows=gt_cols=pred+unknown"
    ]
    (tmp_path / "metrics_MAFW.json").write_text(json.dumps(file))
    found = golden_test(tmp_path)
    assert found.returncode == 0, found.stdout
    shutil.copy(ROOT / "tests" / "fixtures" / "metrics_DFEW.json", tmp_path)
    file["compare"]["ids"]["R1-True/GPT-True"].pop()
    file["compound"]["count"]["correct"] += 1
    (tmp_path / "metrics_MAFW.json").write_text(json.dumps(file))
    broken = golden_test(tmp_path)
    assert broken.stdout.count("FAILED") == 2, broken.stdout
    assert "metrics_DFEW]" not in broken.stdout


def golden_test(folder):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_golden_metrics.py"]
    env = {**os.environ, "ERV_FIXTURES": str(folder)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
