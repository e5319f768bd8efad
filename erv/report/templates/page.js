"use strict";
// What all parts of the page share: its data, the two runs that are compared, and small helpers.
// Text goes into the page by textContent only: what a model wrote is never parsed as HTML.

const page = { data: null, state: {}, listeners: [] };

/** An element with attributes and children; strings become text. */
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") for (const [key, v] of Object.entries(value)) node.style.setProperty(key, v);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** The text packed (gzip, base64) in the page as `id`. */
async function unpack(id) {
  const raw = atob(document.getElementById(`packed-${id}`).textContent);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

const loaded = new Map();

/** The answers of a run: Map of "decoding/sample" -> Map of clip -> answer; unpacked when first wanted. */
function answersOf(run) {
  if (!loaded.has(run)) {
    loaded.set(run, unpack(`run-${run}`).then((text) => {
      const kinds = new Map();
      for (const answer of JSON.parse(text)) {
        const kind = `${answer.decoding}/${answer.sample}`;
        if (!kinds.has(kind)) kinds.set(kind, new Map());
        kinds.get(kind).set(answer.clip, answer);
      }
      return kinds;
    }));
  }
  return loaded.get(run);
}

/** A labelled select; `options` are [value, text] pairs, or [group, pairs]. */
function select(label, name, options, value, onchange) {
  const option = ([v, text]) => el("option", { value: v, selected: String(v) === String(value) }, text);
  const children = options.map((o) => (Array.isArray(o[1]) ? el("optgroup", { label: o[0] }, o[1].map(option)) : option(o)));
  const node = el("select", { name }, children);
  node.addEventListener("change", () => onchange(node.value));
  return el("label", {}, label, node);
}

/** Change the page's state, note it in the address, and tell who listens. */
function change(values) {
  Object.assign(page.state, values);
  const noted = Object.entries(page.state).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  history.replaceState(null, "", `#${new URLSearchParams(noted)}`);
  for (const listener of page.listeners) listener(values);
}

function runOptions() {
  const rows = new Map();
  page.data.runs.forEach((run, i) => {
    if (!rows.has(run.label)) rows.set(run.label, []);
    rows.get(run.label).push([i, rows.size && page.data.several_seeds ? `${run.label}, seed ${run.seed}` : run.label]);
  });
  const lists = [...rows.values()];
  return page.data.several_seeds ? [...rows.keys()].map((label, i) => [label, lists[i]]) : lists.flat();
}

/** The selects for the two runs, wherever the page has a place for them. */
function pairs() {
  for (const place of document.querySelectorAll("[data-pair]")) {
    const none = [["none", "nothing: one run alone"]];
    place.replaceChildren(
      select("Run A", "a", runOptions(), page.state.a, (v) => change({ a: Number(v), page: 0 })),
      page.data.runs.length > 1
        ? select("Run B", "b", none.concat(runOptions()), page.state.b ?? "none", (v) => change({ b: v === "none" ? null : Number(v), page: 0 }))
        : "",
    );
  }
}

/** Columns sort by their `data-sort` numbers, or by their text. */
function sortable(table) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = el("button", { type: "button", title: "Sort by this column" });
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
      const order = new Intl.Collator("en", { numeric: true });
      const numbers = (a, b) => (isNaN(a) || isNaN(b) ? order.compare(a, b) : a - b);
      const rows = [...table.tBodies[0].rows].sort((a, b) => (down ? -1 : 1) * numbers(key(a), key(b)));
      table.tBodies[0].append(...rows);
    });
  });
}

function confusions() {
  const sides = [page.state.a, page.state.b].filter((run) => run !== null && run !== undefined).map((i) => page.data.runs[i]);
  const names = { answer: "answer", explanation: "emotion the judge reads in the explanation" };
  const kinds = Object.keys(names).filter((kind) => sides.some((run) => run.confusion[kind]));
  const tables = kinds.flatMap((kind) => sides.map((run) => confusion(run, kind, names[kind])));
  document.getElementById("confusions").replaceChildren(...tables);
}

function confusion(run, kind, name) {
  const title = el("h3", {}, `${page.data.several_seeds ? `${run.label}, seed ${run.seed}` : run.label}: ${name}`);
  const counts = run.confusion[kind];
  if (!counts) return el("div", {}, title, el("p", { class: "note" }, "No judge has read the explanations of this run."));
  const last = kind === "answer" ? "unknown" : "no verdict";
  const shown = (n, share) => (document.getElementById("counts").checked ? String(n) : (100 * share).toFixed(share < 0.0995 ? 1 : 0));
  const head = el("tr", {}, el("td", {}), [...run.labels, last].map((label) => el("th", { scope: "col" }, label)));
  const body = counts.map((row, i) => {
    const total = row.reduce((sum, n) => sum + n, 0);
    return el("tr", {}, el("th", { scope: "row" }, run.labels[i]), row.map((n, j) => {
      const share = total ? n / total : 0;
      return el("td", {
        class: j === run.labels.length ? "unknown" : null, title: `${n} of ${total}: ${run.labels[i]} → ${run.labels[j] ?? last}`,
        style: { background: `rgb(var(--heat) / ${(0.62 * share).toFixed(3)})`, "font-weight": i === j ? 650 : 400 },
      }, n ? shown(n, share) : "");
    }));
  });
  const table = el("table", { class: "heat" }, el("thead", {}, head), el("tbody", {}, body));
  return el("div", {}, title, el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": title.textContent }, table));
}

async function start() {
  page.data = JSON.parse(await unpack("data"));
  const noted = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const run = (value, otherwise) => (page.data.runs[value] ? Number(value) : otherwise);
  page.state = { ...noted, a: run(noted.a, page.data.a), b: "a" in noted ? run(noted.b, null) : page.data.b };
  document.querySelectorAll("table.sortable").forEach(sortable);
  page.listeners.push((values) => { if ("a" in values || "b" in values) { pairs(); confusions(); } });
  document.getElementById("counts").addEventListener("change", confusions);
  pairs();
  confusions();
  await startClips();
  document.documentElement.dataset.ready = performance.now().toFixed(0); // milliseconds since the page was asked for
  startCharts();
}

document.addEventListener("DOMContentLoaded", () => start().catch((error) => {
  document.getElementById("count").textContent = `The clips cannot be shown in this browser: ${error.message}`;
  throw error;
}));
