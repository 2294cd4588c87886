// What the reader has chosen, and small helpers.

const metrics = new Map(data.metrics.map((metric) => [metric.id, metric]));
const variants = new Map(data.variants.map((variant, index) => [variant.name, { ...variant, index }]));
const scoredMetrics = data.metrics.filter((metric) => data.scores.some((score) => score.metric === metric.id));
const resultOf = new Map(data.rows.map((row) => [JSON.stringify([row.edit, row.variant, row.seed]), row]));
const placeOf = new Map(data.metrics.map((metric, index) => [metric.id, index]));

const ARROWS = { 1: "↑", "-1": "↓", 0: "" };
const BETTER = { 1: "higher is better", "-1": "lower is better", 0: "no direction is better" };

const state = {
  category: "",
  text: "",
  hidden: new Set(),
  view: "frames",
  metric: preferred(["psnr/truth", "psnr/outside", "text_alignment"]),
  across: preferred(["psnr/outside", "ssim/outside", "psnr/truth", "frame_consistency"]),
  up: preferred(["text_alignment", "directional_similarity", "frame_accuracy"]),
  field: data.sweeps.length ? data.sweeps[0].field : "",
  curve: "",
  order: "manifest",
  orderBy: data.reference ?? data.variants[0].name,
  size: null, // pixels of a video's width; null is what fits the window
  playing: !matchMedia("(prefers-reduced-motion: reduce)").matches,
};
const listeners = [];

// Tell everyone which choices changed.
function change(choices) {
  Object.assign(state, choices);
  for (const listener of listeners) listener(Object.keys(choices));
}

// Call `update` now and whenever one of the named choices changes.
function follow(names, update) {
  listeners.push((changed) => changed.some((name) => names.includes(name)) && update());
  update();
}

function preferred(names) {
  const found = names.map((name) => scoredMetrics.find((metric) => metric.name === name)).find(Boolean);
  return (found ?? scoredMetrics[0])?.id ?? "";
}

const isShown = (variant) => !state.hidden.has(variant);
const colour = (variant) => `c${(variants.get(variant)?.index ?? 0) % 10}`;

function select(label, options, value, choose) {
  const field = h("select", { onchange: () => choose(field.value) });
  for (const [key, text] of options) field.append(h("option", { value: key, selected: key === value }, text));
  return h("label", { class: "choice" }, h("span", {}, label), field);
}

const arrowed = (metric) => `${metric.name} ${ARROWS[metric.direction]}`.trim();
const metricOptions = () => scoredMetrics.map((metric) => [metric.id, arrowed(metric)]);
const unitOf = (metric) => (metric.display === 1 ? metric.unit : `${metric.unit} × ${metric.display}`);

const decimals = new Map();
for (const metric of data.metrics) {
  const values = data.scores.filter((score) => score.metric === metric.id && score.value !== null);
  const largest = Math.max(0, ...values.map((score) => Math.abs(score.value) * metric.display));
  decimals.set(metric.id, largest ? Math.min(6, Math.max(0, 3 - Math.floor(Math.log10(largest)))) : 2);
}

// A stored value as tables show it.
function shown(value, metric) {
  if (value === null || value === undefined) return "–";
  return (value * metric.display).toFixed(decimals.get(metric.id)).replace("-", "−");
}

function signed(value, metric) {
  return value > 0 ? `+${shown(value, metric)}` : shown(value, metric);
}

function interval(one, metric) {
  if (one.value === null) return "";
  if (one.low === null) return `fewer than ${data.fewest_clips} clips: no interval`;
  return `[${shown(one.low, metric)}, ${shown(one.high, metric)}]`;
}

function counted(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

function scoreOf(variant, metric, category = state.category) {
  return data.scores.find((x) => x.variant === variant && x.metric === metric && x.category === category);
}

function differenceOf(variant, metric, category = state.category) {
  return data.differences.find((x) => x.variant === variant && x.metric === metric && x.category === category);
}

// 1 better than the reference, -1 worse, 0 where the interval of the paired difference does not tell.
function verdict(difference) {
  if (!difference || difference.low === null || (difference.low <= 0 && difference.high >= 0)) return 0;
  return Math.sign(difference.value) * metrics.get(difference.metric).direction;
}

const VERDICTS = { 1: "better", "-1": "worse", 0: "undecided" };

const isMatch = (edit) => {
  if (state.category && edit.category !== state.category) return false;
  const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
  const text = [edit.id, edit.category, edit.clip, edit.source_prompt, edit.target_prompt].join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
};

// A swatch in a variant's colour and shape.
function swatch(variant) {
  return drawnSwatch(marker(variant, 0, 0, 4.2));
}

const drawnSwatch = (shape) => s("svg", { class: "swatch", viewBox: "-6 -6 12 12", "aria-hidden": "true" }, shape);

// A name that may break behind its underscores and slashes.
function breakable(name) {
  return name.split(/(?<=[_/])/).flatMap((part) => [h("wbr"), part]);
}

const SHAPES = [
  (r) => `M${r},0A${r},${r} 0 1 1 ${-r},0A${r},${r} 0 1 1 ${r},0Z`,
  (r) => `M${-0.88 * r},${-0.88 * r}h${1.76 * r}v${1.76 * r}h${-1.76 * r}Z`,
  (r) => `M0,${-1.15 * r}L${1.1 * r},${0.8 * r}H${-1.1 * r}Z`,
  (r) => `M0,${-1.25 * r}L${1.25 * r},0L0,${1.25 * r}L${-1.25 * r},0Z`,
];

function marker(variant, x, y, radius = 5) {
  const known = variants.get(variant);
  const kind = `marker ${colour(variant)}${known?.baseline ? " hollow" : ""}`;
  return s("path", { class: kind, d: SHAPES[(known?.index ?? 0) % SHAPES.length](radius), transform: `translate(${x},${y})` });
}

// One bubble for whatever carries `data-tip`, by pointer or by focus.
function installTip() {
  const tip = h("div", { id: "tip", role: "status", hidden: true });
  document.body.append(tip);
  const show = (event) => {
    const owner = event.target.closest?.("[data-tip]");
    tip.hidden = !owner;
    if (!owner) return;
    tip.textContent = owner.dataset.tip;
    const box = owner.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above < 4 ? box.bottom + 8 : above}px`;
  };
  for (const name of ["pointerover", "focusin"]) document.addEventListener(name, show);
  document.addEventListener("scroll", () => (tip.hidden = true), { passive: true, capture: true });
}
