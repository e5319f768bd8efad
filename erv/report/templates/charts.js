"use strict";
// Learning curves. The drawing library is unpacked when they come near the window, so that it never delays the page.

const DASHES = ["solid", "dash", "dot", "dashdot"];
const hidden = new Set();

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** [colour, dash] of a row of the table: eight colours, then other dashes. */
function stroke(row) {
  return [colour(`row-${row % 8}`), DASHES[Math.floor(row / 8) % DASHES.length]];
}

function draw(curve, place) {
  const traces = curve.lines.filter((line) => !hidden.has(page.data.runs[line.run].label)).map((line) => {
    const run = page.data.runs[line.run];
    const [stroked, dash] = stroke(run.row);
    const name = page.data.several_seeds ? `${run.label}, seed ${run.seed}` : run.label;
    const few = line.x.length < 40;
    return { x: line.x, y: line.y, name, type: "scatter", mode: few ? "lines+markers" : "lines", line: { color: stroked, dash, width: 1.6 },
             marker: { size: 5 }, hovertemplate: "%{y:.4g} at %{x}<extra>%{fullData.name}</extra>" };
  });
  const axis = { gridcolor: colour("line"), zerolinecolor: colour("line"), linecolor: colour("line"), automargin: true };
  const layout = {
    height: 230, margin: { l: 44, r: 8, t: 6, b: 30 }, showlegend: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("muted"), size: 12, family: "system-ui, sans-serif" }, xaxis: axis, yaxis: axis, hovermode: "closest",
    hoverlabel: { bgcolor: colour("panel"), font: { color: colour("ink") }, namelength: -1 },
  };
  Plotly.react(place, traces, layout, { displayModeBar: false, responsive: true });
}

function drawAll() {
  page.data.curves.forEach((curve, i) => draw(curve, document.getElementById(`plot-${i}`)));
}

function legend() {
  const drawn = new Set(page.data.curves.flatMap((curve) => curve.lines.map((line) => line.run)));
  const labels = [...new Set(page.data.runs.filter((run, i) => drawn.has(i)).map((run) => run.label))];
  document.getElementById("legend").append(...labels.map((label) => {
    const run = page.data.runs.find((r) => r.label === label);
    const box = el("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => { if (box.checked) hidden.delete(label); else hidden.add(label); drawAll(); });
    return el("label", {}, box, " ", el("span", { class: "swatch", style: { "--colour": `var(--row-${run.row % 8})` } }), label);
  }));
}

function startCharts() {
  const place = document.getElementById("charts");
  if (!place) return;
  place.append(...page.data.curves.map((curve, i) => el("figure", {}, el("h3", {}, curve.title),
    el("div", { class: "plot", id: `plot-${i}`, role: "img", "aria-label": `${curve.title}: ${curve.said}` }))));
  legend();
  const near = new IntersectionObserver(async (entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    near.disconnect();
    const script = el("script");
    script.textContent = await unpack("plotly");
    document.head.append(script);
    drawAll();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
    place.dataset.drawn = "true";
  }, { rootMargin: "600px" });
  near.observe(place);
}
