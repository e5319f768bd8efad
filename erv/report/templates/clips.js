"use strict";
// The clips: filters, and twenty of those that pass, each with what the two runs said about it.

const PAGE = 20;
const MATCHES = {
  "": () => true,
  right_coherent: (o) => o.judged && o.right && o.coherent, right_incoherent: (o) => o.judged && o.right && !o.coherent,
  wrong_coherent: (o) => o.judged && !o.right && o.coherent, wrong_incoherent: (o) => o.judged && !o.right && !o.coherent,
  right: (o) => o.right, wrong: (o) => !o.right,
  split: (o) => o.read !== null && o.answer !== null && o.read !== o.answer,
  unknown: (o) => o.answer === null, unread: (o) => o.judged && o.read === null, malformed: (o) => !o.well_formed,
};
const VERSUS = {
  "": () => true, answers: (a, b) => a.answer !== b.answer, readings: (a, b) => a.read !== b.read,
  a_right: (a, b) => a.right && !b.right, b_right: (a, b) => b.right && !a.right,
  a_faithful: (a, b) => a.right && a.coherent && !(b.right && b.coherent), b_faithful: (a, b) => b.right && b.coherent && !(a.right && a.coherent),
};
let sides = []; // the shown answers of A and of B: Map of clip -> answer
let matching = [];
let latest = 0; // number of the last change of runs: an earlier one that is still unpacking gives way

const judged = () => page.data.runs[page.state.a].judge !== null;
const versus = () => page.state.b !== null && page.state.b !== undefined;

/** What an answer comes to: right, coherent (the run's judge reads the true emotion), and what was read. */
function outcome(run, answer, gold) {
  const verdict = answer.verdicts.find((v) => v.judge === page.data.runs[run].judge);
  const read = verdict && verdict.status === "ok" ? verdict.emotion : null;
  return { answer: answer.answer, right: answer.answer === gold, read, coherent: read === gold, judged: Boolean(verdict), well_formed: answer.well_formed };
}

function filters() {
  const runs = [page.state.a, ...(versus() ? [page.state.b] : [])].map((i) => page.data.runs[i]);
  const labels = [...new Set(runs.flatMap((run) => run.labels))].map((label) => [label, label]);
  const any = (text) => [["", text]];
  const kinds = [...new Set(runs.flatMap((run) => run.kinds))];
  const named = (kind) => kind.replace("sampled/", "sampled ").replace("greedy/0", "greedy").replace(/\d+$/, (n) => Number(n) + 1);
  const quadrants = judged()
    ? [["right_coherent", "right answer, coherent explanation"], ["right_incoherent", "right answer, wrong reason"],
       ["wrong_coherent", "wrong answer, right reason"], ["wrong_incoherent", "answer and explanation wrong"],
       ["right", "answer right"], ["wrong", "answer wrong"], ["split", "explanation contradicts the answer"], ["unread", "no valid verdict"]]
    : [["right", "answer right"], ["wrong", "answer wrong"]];
  const field = (label, name, options) => select(label, name, options, page.state[name] ?? "", (v) => change({ [name]: v, page: 0 }));
  const search = el("input", { type: "search", name: "text", value: page.state.text ?? "", placeholder: "words, or a clip's id" });
  let timer;
  search.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => change({ text: search.value, page: 0 }), 150); });
  const reset = el("button", { type: "button", class: "button" }, "Show all clips");
  reset.addEventListener("click", () => {
    change({ gold: "", outcome: "", said: "", read: "", versus: "", text: "", page: 0 });
    filters();
  });
  document.getElementById("filters").replaceChildren(
    field("Outcome of A", "outcome", any("any outcome").concat(quadrants, [["unknown", "no answer of the list"], ["malformed", "badly formed"]])),
    versus() ? field("A against B", "versus", any("any").concat([["answers", "different answers"], ["a_right", "A right, B wrong"], ["b_right", "B right, A wrong"]],
      judged() ? [["readings", "explanations read differently"], ["a_faithful", "A right for the right reason, B not"], ["b_faithful", "B right for the right reason, A not"]] : [])) : "",
    field("True emotion", "gold", any("any emotion").concat(labels)),
    field("A answers", "said", any("anything").concat(labels)),
    judged() ? field("A's explanation is read as", "read", any("anything").concat(labels)) : "",
    el("label", {}, "Search rationales", search),
    kinds.length > 1 ? field("Answer shown", "kind", kinds.map((kind) => [kind, named(kind)])) : "",
    field("Order", "order", [["", "as in the corpus"], ["reward", "A's lowest reward first"], ["shuffled", "shuffled"]]),
    reset,
  );
}

/** The clips that pass the filters, in the order asked for. */
function matched() {
  const { a, b, gold, said, read, text } = page.state;
  const test = MATCHES[page.state.outcome ?? ""] ?? MATCHES[""];
  const against = VERSUS[page.state.versus ?? ""] ?? VERSUS[""];
  const wanted = (text ?? "").toLowerCase();
  const holds = (clip, answer) => `${clip.id} ${answer.sentences.map((s) => s[0]).join(" ")} ${answer.raw ?? ""}`.toLowerCase().includes(wanted);
  const passes = (i) => {
    const clip = page.data.clips[i];
    const [first, second] = sides.map((side) => side.get(i));
    const own = outcome(a, first, clip.gold);
    if ((gold && clip.gold !== gold) || (said && own.answer !== said) || (read && own.read !== read) || !test(own)) return false;
    if (page.state.versus && versus() && !(second && against(own, outcome(b, second, clip.gold)))) return false;
    return !wanted || holds(clip, first) || (second && holds(clip, second));
  };
  return ordered([...sides[0].keys()].filter(passes));
}

function ordered(found) {
  const weigh = {
    reward: (i) => sides[0].get(i).rewards.total ?? Infinity,
    shuffled: (i) => (Math.imul(i + 1, 2654435761) ^ Math.imul(i + 7, 40503)) >>> 0, // the same order every time
  }[page.state.order];
  return weigh ? found.sort((x, y) => weigh(x) - weigh(y)) : found.sort((x, y) => x - y);
}

function emotion(label, gold, extra) {
  const grey = page.data.neutral.includes(label) ? " neutral" : "";
  return el("span", { class: `emotion${grey}${label === gold ? " gold" : ""}${extra ?? ""}`, style: { "--hue": page.data.hues[label] ?? 0 } }, label);
}

function sentence([text, emotions], gold) {
  const first = emotions.find((label) => label === gold) ?? emotions[0];
  const kind = first === undefined ? " plain" : page.data.neutral.includes(first) ? " neutral" : "";
  const node = el("span", { class: `sentence${kind}`, style: { "--hue": page.data.hues[first] ?? 0 } }, text);
  node.append(...emotions.map((label) => emotion(label, gold)));
  return [node, " "];
}

function mark(name, value, gold, missing, why) {
  const right = value === gold;
  return el("span", { title: why || null }, `${name} `, el("b", { class: right ? "good" : "bad" }, `${value ?? missing} ${right ? "✓" : "✗"}`));
}

function said(run, letter, answer, clip) {
  const { label, seed, notes } = page.data.runs[run];
  const gold = clip.gold;
  const title = el("h3", {}, `${letter}: ${label}${page.data.several_seeds ? `, seed ${seed}` : ""}`);
  if (!answer) return el("div", {}, title, el("p", { class: "note" }, "This run has no such answer to this clip."));
  const verdicts = answer.verdicts.map((v) => mark(answer.verdicts.length > 1 ? `${v.judge} reads` : "explanation", v.emotion, gold, v.status.replace("_", " "), v.reason));
  const number = (value) => (value === null ? "–" : Number(value.toFixed(2)));
  const rewards = Object.entries(answer.rewards).map(([name, value]) => `${name} ${number(value)}`).join(" · ");
  const flaws = [answer.well_formed ? "" : "badly formed", answer.finished ? "" : "cut off", ...(notes[clip.id] ?? [])].filter(Boolean).join("; ");
  return el("div", {}, title,
    el("div", { class: "outcome" }, mark("answer", answer.answer, gold, "none of the list"), verdicts, flaws ? el("span", { class: "warn" }, flaws) : null),
    el("div", { class: "rationale", tabindex: 0 }, answer.sentences.flatMap((s) => sentence(s, gold))),
    el("div", { class: "small note" }, [rewards ? `reward: ${rewards}` : "", `${answer.tokens} tokens`].filter(Boolean).join(" · ")),
    answer.raw === undefined ? null : el("details", {}, el("summary", { class: "small" }, "what was written"), el("pre", {}, answer.raw)));
}

/** The clip's player, or a line that says where the file would be. */
function player(clip) {
  const absent = (why) => el("p", { class: "small note isolate" }, `${why}: ${clip.file}`);
  if (!clip.file) return el("p", { class: "small note" }, "no file is known for this clip");
  if (!clip.source) return absent("the clip's file is not here");
  const kind = /\.(wav|mp3|flac|ogg|m4a)$/i.test(clip.file) ? "audio" : "video";
  const node = el(kind, { src: clip.source, controls: true, loop: true, preload: "metadata", "aria-label": `clip ${clip.id}` });
  node.addEventListener("error", () => node.replaceWith(absent("the browser cannot play it")), { once: true });
  return node;
}

function card(i) {
  const clip = page.data.clips[i];
  const runs = [page.state.a, page.state.b];
  return el("article", { class: "clip" },
    el("div", {}, player(clip), el("div", { class: "about" }, el("b", {}, clip.gold), el("div", { class: "small note isolate" }, clip.id))),
    el("div", { class: "answers" }, sides.map((side, n) => said(runs[n], "AB"[n], side.get(i), clip))));
}

function show() {
  const pages = Math.max(1, Math.ceil(matching.length / PAGE));
  const current = Math.min(Number(page.state.page) || 0, pages - 1);
  const from = current * PAGE;
  const shown = matching.slice(from, from + PAGE);
  document.getElementById("list").replaceChildren(...shown.map(card));
  const total = sides[0].size;
  const range = shown.length ? `${from + 1}–${from + shown.length} of ` : "";
  document.getElementById("count").textContent = `${range}${matching.length} clips${matching.length < total ? `, of ${total} in run A` : ""}`;
  const button = (text, target) => {
    const node = el("button", { type: "button", class: "button", disabled: target < 0 || target >= pages }, text);
    node.addEventListener("click", () => { change({ page: target }); document.getElementById("filters").scrollIntoView(); });
    return node;
  };
  document.getElementById("pager").replaceChildren(button("← Earlier", current - 1), el("span", {}, `page ${current + 1} of ${pages}`), button("Later →", current + 1));
}

async function update(values) {
  if ("a" in values || "b" in values || "kind" in values) {
    const runs = [page.state.a, ...(versus() ? [page.state.b] : [])];
    const number = ++latest;
    const kinds = await Promise.all(runs.map(answersOf));
    if (number !== latest) return;
    const kind = kinds[0].has(page.state.kind) ? page.state.kind : page.data.runs[page.state.a].kinds[0];
    page.state.kind = kind;
    // a run that was asked otherwise shows its first kind of answer beside A's
    sides = kinds.map((found, n) => found.get(kind) ?? found.get(page.data.runs[runs[n]].kinds[0]));
    filters();
  }
  if (Object.keys(values).some((key) => key !== "page")) matching = matched();
  show();
}

async function startClips() {
  page.listeners.push(update);
  for (const button of document.querySelectorAll(".quadrants button")) {
    button.addEventListener("click", () => {
      change({ a: Number(button.dataset.run), outcome: button.dataset.quadrant, page: 0 });
      document.getElementById("clips").scrollIntoView();
    });
  }
  await update({ a: page.state.a });
}
