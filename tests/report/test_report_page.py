"""The report's page in a real headless Chromium: errors, network, hostile text, filters, speed, both colour schemes."""

import json
import random
import re
import shutil
from urllib.parse import parse_qs

import chromium
import pytest
from report_runs import CLIPS, prediction, write_run

from erv.report.__main__ import main
from erv.taxonomy import DFEW
from erv.types import Sentence, Verdict

HOSTILE = (
    '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=2">{{ 7*7 }} "\'` &lt;b&gt; \u202egnp'
)


@pytest.fixture(scope="module")
def browser():
    with chromium.browser() as started:
        yield started


@pytest.fixture(autouse=True)
def _light(request):
    if "browser" in request.fixturenames:
        request.getfixturevalue("browser").scheme("light")


def page_of(folder, *arguments):
    file = folder / "page.html"
    main([str(folder), "--html", str(file), *arguments])
    return file


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Three arms, one of two seeds, with curves, a diagnosis and what was skipped."""
    root = tmp_path_factory.mktemp("plain")
    finding = {
        "rule": "right answers, wrong reasons",
        "figures": {"war": 0.5, "eea": 0.25},
        "advice": "Train the verifier on.",
    }
    write_run(root, "sft", 0, 2, 4)
    write_run(
        root,
        "grpo",
        0,
        2,
        4,
        metrics={"diagnosis": [finding], "media": {"skipped": {"unreadable": 3}, "masked": {"audio": 7}}},
    )
    write_run(root, "grpo_erv", 0, 2, 2, text="A smile. The jaw drops.")
    write_run(root, "grpo_erv", 1, 4, 1)
    note = {"clip": "c0", "split": "test", "defect": "no_audio", "action": "mask", "reason": "has no sound track"}
    (next((root / "grpo").iterdir()) / "media.jsonl").write_text(json.dumps(note) + "\n")
    return page_of(root)


def test_the_page_opens_without_errors_and_without_the_network(browser, plain):
    browser.open(plain)
    browser.run("document.getElementById('curves').scrollIntoView()")
    browser.wait("return document.querySelector('#charts').dataset.drawn")
    assert browser.wait("return document.querySelectorAll('#charts .scatterlayer .trace').length") == 8
    for section in (
        "results",
        "comparison",
        "diagnosis",
        "quadrants",
        "classes",
        "confusion",
        "style",
        "clips",
        "data",
        "runs",
    ):
        browser.run("document.getElementById(arguments[0]).scrollIntoView()", section)
    assert "right answers, wrong reasons" in browser.text("#diagnosis").lower()
    assert browser.texts("#data tbody tr") == ["skipped · unreadable\t3", "masked · audio\t7"]
    assert browser.texts("#list .warn") == ["mask: has no sound track"]  # of run B's first clip
    assert browser.errors() == []
    assert {address.split(":")[0] for address in browser.requests()} <= {"file", "data", "blob"}


def test_a_script_that_is_not_the_pages_own_does_not_run(browser, plain):
    browser.open(plain)
    browser.run(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 3'; document.body.append(s)"
    )
    assert browser.run("return window.hacked") is None
    assert any("Content Security Policy" in message for message in browser.errors())


def test_what_models_and_file_names_say_is_text(browser, tmp_path, corpus):
    """A rationale, a judge, an arm, a clip's id and its file's name, a diagnosis and a key of the data, all hostile."""
    video = tmp_path / 'a "clip" <b>#1?.mp4%41&.mp4'
    shutil.copy(corpus.clips("test")[0].video, video)
    rows = [
        prediction(
            i,
            2,
            4,
            judge=HOSTILE,
            text=HOSTILE,
            clip_id=f"{HOSTILE}{i}",
            rewards={HOSTILE: 1.0},
            well_formed=i > 2,
            sentences=(Sentence(HOSTILE, ("sad",)), Sentence("x" * 100_000, ())),
        )
        for i in range(5)
    ]
    finding = {"rule": HOSTILE, "figures": {HOSTILE: HOSTILE}, "advice": HOSTILE}
    more = {"arm": HOSTILE, "diagnosis": [finding], "media": {HOSTILE: {HOSTILE: HOSTILE}}, "signature": HOSTILE}
    folder = write_run(
        tmp_path, "hostile", 0, rows=rows, judge=HOSTILE, videos={rows[0].clip_id: str(video)}, metrics=more
    )
    write_run(tmp_path, "other", 0, rows=rows, judge=HOSTILE)
    (folder / "logs" / "version_0" / "metrics.csv").write_text("step,train/reward\n0,1.0\n1,2.0\n")
    browser.open(page_of(tmp_path, "--baseline", "other"))
    browser.run("document.getElementById('curves').scrollIntoView()")
    browser.wait("return document.querySelector('#charts').dataset.drawn")
    assert browser.run("return window.hacked") is None
    assert browser.run("return document.querySelectorAll('img[src=x]').length") == 0
    assert HOSTILE in browser.run("return document.querySelector('#list .rationale').textContent")
    assert HOSTILE in browser.run("return document.querySelector('#results').textContent")
    assert HOSTILE in browser.run("return document.querySelector('#diagnosis').textContent")
    assert browser.run("return document.querySelector('#list details pre').textContent") == HOSTILE
    assert (
        browser.wait("return document.querySelector('#list video')?.videoWidth") > 0
    )  # the file was found and decoded
    assert [message for message in browser.errors() if "x" * 20 not in message] == []
    assert {address.split(":")[0] for address in browser.requests()} <= {"file", "data", "blob"}


def shown(browser):
    return browser.text("#count")


def test_filters(browser, plain):
    browser.open(plain)
    assert shown(browser) == f"1–20 of {CLIPS} clips"
    assert len(browser.texts("#list .clip")) == 20
    browser.choose("outcome", "right_coherent")
    assert shown(browser) == "1–20 of 20 clips, of 40 in run A"
    browser.choose("outcome", "right_incoherent")
    assert shown(browser) == "0 clips, of 40 in run A"
    browser.choose("outcome", "wrong_incoherent")
    browser.choose("said", "happy")
    assert shown(browser) == "1–20 of 20 clips, of 40 in run A"
    browser.choose("said", "angry")
    assert shown(browser) == "0 clips, of 40 in run A"
    browser.run("document.querySelector('#filters button').click()")
    assert shown(browser) == f"1–20 of {CLIPS} clips"
    browser.choose("versus", "a_faithful")
    assert shown(browser) == "1–10 of 10 clips, of 40 in run A"  # every second is faithful in A, every fourth in B
    browser.choose("versus", "")
    browser.choose("gold", "fear")
    assert shown(browser) == "0 clips, of 40 in run A"
    assert browser.errors() == []


def test_search_pages_and_the_address(browser, plain):
    browser.open(plain)
    browser.run(
        "const n = document.querySelector('input[type=search]'); n.value = 'C1'; n.dispatchEvent(new Event('input'))"
    )
    browser.wait("return document.getElementById('count').innerText.includes('11 clips')")  # c1, c10 … c19
    browser.run("document.querySelector('#filters button').click()")
    browser.run("document.querySelector('#pager button:last-child').click()")
    assert shown(browser) == f"21–40 of {CLIPS} clips"
    browser.choose("outcome", "right")
    noted = browser.run("return location.hash")
    assert parse_qs(noted[1:])["outcome"] == ["right"]
    before = browser.texts("#list .clip")
    browser.open(plain, noted)
    assert browser.texts("#list .clip") == before


def test_a_part_of_a_bar_shows_its_clips_from_the_keyboard(browser, plain):
    browser.open(plain)
    part = ".quadrants button[data-run='0'][data-quadrant='right_incoherent']"
    assert (
        browser.run("return document.querySelector(arguments[0]).title", part) == "right answer, wrong reason: 25.0 %"
    )
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.driver.find_element(By.CSS_SELECTOR, part).send_keys(Keys.ENTER)
    browser.wait("return document.getElementById('count').innerText.startsWith('1–10 of 10')")
    assert "A: sft" in browser.text("#list .clip")
    assert browser.run("return document.querySelector('#clips').getBoundingClientRect().top") < 200


def test_two_runs_stand_side_by_side_and_one_alone(browser, plain):
    browser.open(plain)
    assert browser.texts("#list .clip:first-child h3") == ["A: grpo_erv, seed 0", "B: grpo, seed 0"]
    assert len(browser.texts("#confusions table")) == 4
    browser.choose("b", "none")
    browser.wait("return document.querySelectorAll('#list .clip:first-child h3').length === 1")
    assert len(browser.texts("#confusions table")) == 2
    first = browser.run(
        "return [...document.querySelectorAll('#confusions table tbody tr')].map((r) => [...r.cells].map((c) => c.textContent))"
    )
    assert first[1] == ["sad", "50", "50", "", "", "", "", "", ""]
    browser.run("document.getElementById('counts').click()")
    assert browser.texts("#confusions tbody tr:nth-child(2) td")[:2] == ["20", "20"]
    assert browser.errors() == []


def test_sentences_carry_their_emotions_and_the_true_one_is_ringed(browser, plain):
    browser.open(plain)
    assert browser.texts("#list .clip:first-child .answers > div:first-child .emotion") == ["sad", "fear"]
    assert browser.texts("#list .clip:first-child .answers > div:first-child .emotion.gold") == ["sad"]
    assert browser.texts("#list .clip:first-child .outcome")[0].split() == [
        "answer",
        "sad",
        "✓",
        "explanation",
        "sad",
        "✓",
    ]


def test_columns_sort(browser, plain):
    browser.open(plain)

    def order():
        return browser.run(
            "return [...document.querySelectorAll('#results tbody th')].map((e) => e.innerText.split(/\\s/)[0])"
        )

    assert order() == ["sft", "grpo", "grpo_erv"]
    click = "[...document.querySelectorAll('#results th button')].find((b) => b.innerText === 'WAR').click()"
    browser.run(click)
    assert order() == ["grpo_erv", "sft", "grpo"]
    browser.run(click)
    assert order()[-1] == "grpo_erv"


@pytest.mark.parametrize("case", ["no judge", "no verifier", "one run", "unjudged beside judged"])
def test_what_is_missing_is_no_error(browser, tmp_path, case):
    judge = None if case == "no judge" else "oracle"
    rows = [prediction(i, 2, 4, judge, emotions=() if case == "no verifier" else ("sad",)) for i in range(CLIPS)]
    folder = write_run(tmp_path, "grpo", 0, rows=rows, judge=judge)
    if case != "one run":
        write_run(tmp_path, "sft", 0, rows=[prediction(i, 1, 4, None) for i in range(CLIPS)], judge=None)
    shutil.rmtree(folder / "logs")
    browser.open(page_of(tmp_path))
    assert "The jaw drops." in browser.text("#list .rationale")
    assert browser.run("return document.querySelector('select[name=read]') !== null") == (judge is not None)
    assert browser.errors() == []


CONTRAST = """
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255);
  };
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const over = (under, [r, g, b, a]) => [r, g, b].map((v, i) => v * a + under[i] * (1 - a));
  const behind = (node) => {
    for (let n = node, layers = []; ; n = n.parentElement) {
      layers.unshift(rgb(getComputedStyle(n).backgroundColor));
      if (layers[0][3] === 1 || !n.parentElement) return layers.reduce(over, [1, 1, 1]);
    }
  };
  const seen = [...document.querySelectorAll(arguments[0])].filter((n) => n.innerText && n.offsetParent);
  return seen.map((n) => {
    const [a, b] = [light(rgb(getComputedStyle(n).color)), light(behind(n))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), n.tagName + "." + n.className + ": " + n.innerText.slice(0, 30)];
  }).sort((x, y) => x[0] - y[0])[0];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_in_both_schemes(browser, plain, tmp_path, scheme):
    labels = [*DFEW.labels]
    rows = [
        prediction(i, 2, 2, gold=labels[i % 7], emotions=(labels[i % 7], labels[(i + 3) % 7])) for i in range(CLIPS)
    ]
    write_run(tmp_path, "sft", 0, rows=rows)
    write_run(
        tmp_path, "grpo", 0, rows=rows, metrics={"diagnosis": [{"rule": "r", "figures": {"war": 1}, "advice": "a"}]}
    )
    browser.scheme(scheme)
    browser.open(page_of(tmp_path))
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
    ratio, where = browser.run(
        CONTRAST, "p, a, b, th, td, span, h1, h2, h3, li, button, select, input, summary, dt, dd, label"
    )
    assert ratio >= 4.5, where


def test_plots_follow_the_scheme(browser, plain):
    browser.open(plain)
    browser.run("document.getElementById('curves').scrollIntoView()")
    tick = "return document.querySelector('#charts .xtick text')?.style.fill"
    before = browser.wait(tick)
    browser.scheme("dark")
    after = browser.wait(f"const now = (() => {{ {tick} }})(); return now !== arguments[0] && now", before)
    assert (before, after) == ("rgb(87, 96, 106)", "rgb(163, 173, 184)")


PARTS = [
    ("brow", "voice", "mouth", "gaze", "hand", "tone", "lip", "chin"),
    ("s", "ing", "ed", "ly", "less", "ness", "y"),
]
KINDS = (("sampled", 0), ("sampled", 1), ("greedy", 0))


def long_answer(draw, words, i, decoding, sample):
    """Eight sentences of fifteen words, with two emotions each."""
    gold, said, read = DFEW.labels[i % 7], *draw.choices(DFEW.labels, k=2)
    sentences = tuple(
        Sentence(" ".join(draw.choices(words, k=15)) + ".", tuple(draw.sample(DFEW.labels, 2))) for _ in range(8)
    )
    think = " ".join(s.text for s in sentences)
    text = f"<think>{think}</think><answer>{said}</answer>"
    verdicts = (Verdict("oracle", read, "ok"),)
    return prediction(
        i,
        1,
        1,
        gold=gold,
        answer=said,
        text=text,
        think=think,
        decoding=decoding,
        sample=sample,
        sentences=sentences,
        verdicts=verdicts,
    )


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """2,000 clips of seven classes, three arms, two sampled answers and a greedy one each, rationales of 120 words."""
    root, draw = tmp_path_factory.mktemp("large"), random.Random(0)
    words = [first + last for first in PARTS[0] for last in PARTS[1]]
    for arm in ("sft", "grpo", "grpo_erv"):
        write_run(root, arm, 0, rows=[long_answer(draw, words, i, *kind) for i in range(2000) for kind in KINDS])
    return page_of(root)


def test_two_thousand_clips_open_in_under_two_seconds(browser, large):
    times = sorted(browser.open(large) for _ in range(3))
    print(f"2,000 clips, 18,000 answers: {large.stat().st_size / 1e6:.1f} MB, ready after {times} ms")
    assert shown(browser) == "1–20 of 2000 clips"
    assert times[1] < 2000
    assert browser.run("return document.querySelectorAll('*').length") < 5000  # only what is seen is built
    started = browser.run(
        "const t = performance.now(); change({ outcome: 'split', page: 0 }); return performance.now() - t"
    )
    assert started < 200
    assert re.fullmatch(r"1–20 of 1[,\d]+ clips, of 2000 in run A", shown(browser))
    assert browser.errors() == []
