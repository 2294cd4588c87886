// Plots as SVG, drawn again for every width and choice.

// Draw into `element` at its width, now, when it is resized and when one of the named choices changes.
function plot(element, names, draw) {
  let width = 0;
  const redraw = () => width > 0 && element.replaceChildren(...[draw(width)].flat());
  new ResizeObserver(([entry]) => {
    if (Math.round(entry.contentRect.width) === width) return;
    width = Math.round(entry.contentRect.width);
    redraw();
  }).observe(element);
  follow(names, redraw);
  return element;
}

// About `count` round numbers that cover low..high.
function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (String(step / power).includes(".") ? 1 : 0));
  const place = (index) => ({ value: index * step, text: (index * step).toFixed(digits).replace("-", "−") });
  return Array.from({ length: last - first + 1 }, (_, index) => place(first + index));
}

function scale(low, high, from, to) {
  return (value) => from + ((value - low) / (high - low || 1)) * (to - from);
}

// The range of some numbers with a margin on both sides.
function range(values, margin = 0.08) {
  const known = values.filter((value) => value !== null && value !== undefined);
  const low = Math.min(...known);
  const high = Math.max(...known);
  const slack = (high - low || Math.abs(high) * 0.1 || 1) * margin;
  return [low - slack, high + slack];
}

const ruler = document.createElement("canvas").getContext("2d");
function textWidth(text, size = 12) {
  ruler.font = `${size}px system-ui, sans-serif`;
  return ruler.measureText(text).width;
}

function fitted(text, width, size = 12) {
  if (textWidth(text, size) <= width) return text;
  let end = text.length;
  while (end > 1 && textWidth(`${text.slice(0, end)}…`, size) > width) end -= 1;
  return `${text.slice(0, end)}…`;
}

const line = (x1, y1, x2, y2, kind) => s("line", { x1, y1, x2, y2, class: kind });
const label = (x, y, text, attributes = {}) => s("text", { x, y, ...attributes }, text);

function drawing(width, height, title, ...children) {
  return s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title }, ...children);
}

function axes(box, x, y, xTicks, yTicks) {
  return [
    ...yTicks.map((tick) => line(box.left, y(tick.value), box.right, y(tick.value), "grid")),
    ...yTicks.map((tick) => label(box.left - 8, y(tick.value) + 4, tick.text, { class: "tick", "text-anchor": "end" })),
    line(box.left, box.bottom, box.right, box.bottom, "axis"),
    ...xTicks.map((tick) => label(x(tick.value), box.bottom + 17, tick.text, { class: "tick", "text-anchor": "middle" })),
  ];
}

const scaledEnds = (score, metric) => [score.value, score.low, score.high].map((v) => (v === null ? null : v * metric.display));

function scoreTip(score, metric) {
  const unclear = score.undefined ? `, ${counted(score.undefined, "undefined row")}` : "";
  return `${score.variant}\n${arrowed(metric)} ${shown(score.value, metric)} ${interval(score, metric)}\n${counted(score.clips, "clip")}${unclear}`;
}

// Alignment with the words against what was left alone, each with its interval.
function tradeOff(width) {
  const [across, up] = [metrics.get(state.across), metrics.get(state.up)];
  const points = data.variants
    .filter((variant) => isShown(variant.name))
    .map(({ name }) => ({ name, across: scoreOf(name, across.id), up: scoreOf(name, up.id) }))
    .filter((point) => point.across && point.up && point.across.value !== null && point.up.value !== null);
  if (!points.length) return h("p", { class: "empty" }, "No variant has both metrics here.");
  const height = Math.max(320, Math.min(460, width * 0.6));
  const box = { left: 62, top: 16, right: width - 18, bottom: height - 50 };
  // The axes are the methods': an unedited source is perfect in what was left alone and would flatten the rest.
  const methods = points.filter((point) => !variants.get(point.name).baseline);
  const framed = methods.length ? methods : points;
  const xEnds = range(framed.flatMap((point) => scaledEnds(point.across, across)), 0.12);
  const yEnds = range(framed.flatMap((point) => scaledEnds(point.up, up)), 0.12);
  const within = (value, low, high) => Math.min(high, Math.max(low, value));
  const x = (value) => within(scale(...xEnds, box.left, box.right)(value), box.left, box.right);
  const y = (value) => within(scale(...yEnds, box.bottom, box.top)(value), box.top, box.bottom);
  const isOff = (point) => [[point.across.value * across.display, xEnds], [point.up.value * up.display, yEnds]].some(([value, [low, high]]) => value < low || value > high);
  const taken = [];
  const marks = points.map((point) => {
    const [px, xl, xh] = scaledEnds(point.across, across).map((value) => (value === null ? null : x(value)));
    const [py, yl, yh] = scaledEnds(point.up, up).map((value) => (value === null ? null : y(value)));
    taken.push({ left: px - 8, right: px + 8, top: py - 8, bottom: py + 8 });
    if (xl !== null) taken.push({ left: xl, right: xh, top: py - 2, bottom: py + 2 });
    if (yl !== null) taken.push({ left: px - 2, right: px + 2, top: yh, bottom: yl });
    const tip = `${scoreTip(point.across, across)}\n${scoreTip(point.up, up).split("\n")[1]}`;
    const group = s("g", { class: `point ${colour(point.name)}`, tabindex: 0, role: "img", "aria-label": tip, "data-tip": tip });
    if (xl !== null) group.append(line(xl, py, xh, py, "whisker"));
    if (yl !== null) group.append(line(px, yl, px, yh, "whisker"));
    if (point.name === data.reference) group.append(s("circle", { cx: px, cy: py, r: 9, class: "ring" }));
    group.append(marker(point.name, px, py, 5.5));
    const name = isOff(point) ? `${point.name} (off scale: ${shown(point.across.value, across)}, ${shown(point.up.value, up)})` : point.name;
    return { group, px, py, name };
  });
  const names = marks.map(({ px, py, name }) => placedLabel(name, px, py, box, taken));
  return drawing(
    width,
    height,
    `${up.name} against ${across.name}`,
    ...axes(box, x, y, ticks(...xEnds, Math.max(3, width / 110)), ticks(...yEnds, 6)),
    label((box.left + box.right) / 2, height - 8, `${across.name}, ${unitOf(across)} ${toward(across, "→", "←")}`, { class: "title", "text-anchor": "middle" }),
    label(0, 0, `${up.name}, ${unitOf(up)} ${toward(up, "→", "←")}`, { class: "title", "text-anchor": "middle", transform: `translate(14,${(box.top + box.bottom) / 2}) rotate(-90)` }),
    ...marks.map((mark) => mark.group),
    ...names,
  );
}

// The end of an axis that is better.
function toward(metric, high, low) {
  return { 1: `(better ${high})`, "-1": `(${low} better)`, 0: "" }[metric.direction];
}

// A name beside its point, where it hides least of what is there already.
function placedLabel(name, px, py, box, taken) {
  const width = textWidth(name, 12);
  const places = [14, 28, 42].flatMap((far) => [
    [px + far, py + 4], [px - far - width, py + 4], [px - width / 2, py - far], [px - width / 2, py + far + 8],
    [px + far * 0.7, py - far * 0.7], [px + far * 0.7, py + far * 0.7 + 8], [px - far * 0.7 - width, py - far * 0.7], [px - far * 0.7 - width, py + far * 0.7 + 8],
  ]);
  const boxed = places.map(([left, base]) => ({ left, right: left + width, top: base - 11, bottom: base + 3, base }));
  const overlap = (a, b) => Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left)) * Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));
  const outside = (a) => (a.left < box.left || a.right > box.right || a.top < box.top || a.bottom > box.bottom ? 1e4 : 0);
  const cost = (a, index) => outside(a) + index * 0.5 + taken.reduce((sum, b) => sum + overlap(a, b), 0);
  const best = boxed.reduce((a, b, index) => (cost(b, index) < cost(a.box, a.index) ? { box: b, index } : a), { box: boxed[0], index: 0 }).box;
  taken.push(best);
  return label(best.left, best.base, name, { class: "name" });
}

const HEADLINE = ["text_alignment", "psnr/outside", "frame_consistency", "directional_similarity", "psnr/truth", "warp_error"];

// One small plot for each metric; beyond the first few they wait behind a summary.
function cards(names, draw) {
  const FIRST = 6;
  const card = (metric) => {
    const element = h("div", { class: "plot" });
    const about = [unitOf(metric), BETTER[metric.direction]].join("; ");
    const figure = h("figure", { class: "card" }, h("figcaption", {}, h("b", {}, arrowed(metric)), h("span", {}, about)), element);
    plot(element, names, (width) => draw(metric, width));
    return figure;
  };
  const telling = HEADLINE.map((name) => scoredMetrics.find((metric) => metric.name === name)).filter(Boolean);
  const ordered = [...new Set([...telling, ...scoredMetrics])];
  const few = h("div", { class: "cards" }, ordered.slice(0, FIRST).map(card));
  if (ordered.length <= FIRST) return [few];
  const more = h("div", { class: "cards" }, ordered.slice(FIRST).map(card));
  return [few, h("details", { class: "more" }, h("summary", {}, `${ordered.length - FIRST} more metrics`), more)];
}

// Paired differences to the reference in one metric.
function effects(metric, width) {
  const rows = data.variants
    .filter((variant) => variant.name !== data.reference && !variant.baseline && isShown(variant.name))
    .map(({ name }) => differenceOf(name, metric.id))
    .filter((difference) => difference && difference.value !== null);
  if (!rows.length) return h("p", { class: "empty" }, "Not defined for these edits.");
  const names = Math.min(width * 0.32, Math.max(...rows.map((row) => textWidth(row.variant, 12))) + 18);
  const numbers = Math.max(...rows.map((row) => textWidth(signed(row.value, metric), 12))) + 10;
  const [step, top] = [24, 6];
  const box = { left: names + 8, right: width - numbers - 6, top, bottom: top + rows.length * step };
  const ends = range([0, ...rows.flatMap((row) => scaledEnds(row, metric))]);
  const x = scale(...ends, box.left, box.right);
  const marks = rows.map((row, index) => {
    const y = top + (index + 0.5) * step;
    const [value, low, high] = scaledEnds(row, metric).map((v) => (v === null ? null : x(v)));
    const p = row.holm === null ? "" : `\nWilcoxon p = ${row.holm.toPrecision(2)} (Holm over variants)`;
    const missing = row.undefined ? `, ${counted(row.undefined, "edit")} left out` : "";
    const tip = `${row.variant} − ${row.reference}\n${signed(row.value, metric)} ${interval(row, metric)}\n${counted(row.clips, "clip")}${missing}${p}`;
    return s(
      "g",
      { class: `effect ${VERDICTS[verdict(row)]}`, tabindex: 0, role: "img", "aria-label": tip, "data-tip": tip },
      s("rect", { x: 0, y: y - step / 2, width, height: step, class: "hit" }),
      label(names, y + 4, fitted(row.variant, names - 4), { class: "row", "text-anchor": "end" }),
      low === null ? null : line(low, y, high, y, "whisker"),
      s("circle", { cx: value, cy: y, r: 4.5 }),
      label(width - 2, y + 4, signed(row.value, metric), { class: "number", "text-anchor": "end" }),
    );
  });
  return drawing(
    width,
    box.bottom + 24,
    `Differences to ${data.reference} in ${metric.name}`,
    ...ticks(...ends, Math.max(3, (box.right - box.left) / 70)).flatMap((tick) => [
      line(x(tick.value), box.top, x(tick.value), box.bottom, tick.value === 0 ? "zero" : "grid"),
      label(x(tick.value), box.bottom + 16, tick.text, { class: "tick", "text-anchor": "middle" }),
    ]),
    ...marks,
  );
}

// A metric along the values of one field.
function sweep(metric, width) {
  const { field, points } = data.sweeps.find((one) => one.field === state.field);
  const numeric = points.every(([, value]) => typeof value === "number");
  const known = points
    .map(([variant, value], index) => ({ variant, value, at: numeric ? value : index, score: scoreOf(variant, metric.id) }))
    .filter((point) => isShown(point.variant) && point.score && point.score.value !== null);
  if (!known.length) return h("p", { class: "empty" }, "Not defined for these edits.");
  const height = 190;
  const box = { left: 56, top: 10, right: width - 16, bottom: height - 40 };
  const xEnds = range(known.map((point) => point.at), 0.06);
  const yEnds = range(known.flatMap((point) => scaledEnds(point.score, metric)));
  const x = scale(...xEnds, box.left, box.right);
  const y = scale(...yEnds, box.bottom, box.top);
  const ends = known.map((point) => ({ ...point, ends: scaledEnds(point.score, metric) }));
  const banded = ends.filter((point) => point.ends[1] !== null);
  const upper = banded.map((point) => `${x(point.at)},${y(point.ends[2])}`);
  const lower = banded.map((point) => `${x(point.at)},${y(point.ends[1])}`).reverse();
  const marks = ends.map((point) => {
    const [value, low, high] = point.ends;
    const tip = `${field} = ${JSON.stringify(point.value)}\n${scoreTip(point.score, metric)}`;
    return s(
      "g",
      { class: `point ${colour(point.variant)}`, tabindex: 0, role: "img", "aria-label": tip, "data-tip": tip },
      low === null ? null : line(x(point.at), y(low), x(point.at), y(high), "whisker"),
      point.variant === data.reference ? s("circle", { cx: x(point.at), cy: y(value), r: 8, class: "ring" }) : null,
      marker(point.variant, x(point.at), y(value), 4.5),
    );
  });
  const marksAt = known.map((point) => ({ value: point.at, text: fitted(JSON.stringify(point.value), (box.right - box.left) / known.length) }));
  return drawing(
    width,
    height,
    `${metric.name} along ${field}`,
    ...axes(box, x, y, marksAt, ticks(...yEnds, 4)),
    upper.length > 1 ? s("polygon", { class: "band", points: [...upper, ...lower].join(" ") }) : null,
    s("polyline", { class: "trend", points: ends.map((point) => `${x(point.at)},${y(point.ends[0])}`).join(" ") }),
    ...marks,
    label((box.left + box.right) / 2, height - 5, field, { class: "title", "text-anchor": "middle" }),
  );
}

// Values of single frames, or of pairs at their second frame; `playhead` is moved by the row's clock.
function curvesOf(edit, width) {
  const metric = metrics.get(state.curve);
  const lines = edit.panels.filter((panel) => panel.curves?.[metric.id] && (panel.kind === "source" || isShown(panel.variant)));
  if (!lines.length) return h("p", { class: "empty" }, "Not defined for this edit.");
  const height = 210;
  const box = { left: 58, top: 10, right: width - 14, bottom: height - 40 };
  const yEnds = range(lines.flatMap((panel) => panel.curves[metric.id].map((value) => (value === null ? null : value * metric.display))));
  const x = scale(0, Math.max(1, edit.frames - 1), box.left, box.right);
  const y = scale(...yEnds, box.bottom, box.top);
  const isPair = lines.some((panel) => panel.curves[metric.id].length < panel.frames);
  const paths = lines.map((panel) => {
    const values = panel.curves[metric.id];
    const first = panel.frames - values.length;
    const points = values.map((value, index) => (value === null ? null : `${x(index + first)},${y(value * metric.display)}`));
    const path = points.map((point, index) => (point === null ? "" : `${index && points[index - 1] !== null ? "L" : "M"}${point}`)).join("");
    const name = panelName(panel, edit);
    const known = values.filter((value) => value !== null).map((value) => value * metric.display);
    const tip = `${name}\n${Math.min(...known).toPrecision(4)} to ${Math.max(...known).toPrecision(4)}`;
    const kind = panel.kind === "source" ? "curve source" : "curve";
    return s("g", { class: colour(panel.variant), tabindex: 0, role: "img", "aria-label": tip, "data-tip": tip }, s("path", { class: "broad", d: path }), s("path", { class: kind, d: path }));
  });
  const frames = ticks(0, edit.frames - 1, Math.min(edit.frames, width / 60)).filter((tick) => Number.isInteger(tick.value));
  const where = isPair ? "second frame of each pair" : "frame";
  return [
    drawing(
      width,
      height,
      `${metric.name} of each ${isPair ? "pair of frames" : "frame"}`,
      ...axes(box, x, y, frames.map((tick) => ({ value: tick.value, text: String(tick.value + 1) })), ticks(...yEnds, 5)),
      ...paths,
      s("line", { class: "playhead", x1: x(0), x2: x(0), y1: box.top, y2: box.bottom, "data-from": x(0), "data-step": x(1) - x(0) }),
      label((box.left + box.right) / 2, height - 5, where, { class: "title", "text-anchor": "middle" }),
    ),
    h("ul", { class: "legend" }, lines.map((panel) => h("li", {}, panelSwatch(panel), panelName(panel, edit)))),
  ];
}
