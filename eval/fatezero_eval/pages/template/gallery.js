// The edits. All clips of a row are tiles of one video, drawn to a canvas each: one clock, so they stay in step.

const LARGEST = 480; // pixels of a video in its row, at most
const LOAD_MARGIN = "600px 0px"; // decode a little before a row comes into sight
const AMPLIFIED = 2; // doublings of small differences

function panelName(panel, edit) {
  if (panel.kind === "source") return "source";
  if (panel.kind === "truth") return "true edit";
  const siblings = edit.panels.filter((other) => other.variant === panel.variant && other.kind === "variant");
  return siblings.length > 1 ? `${panel.variant}, seed ${panel.seed}` : panel.variant;
}

// The source is none of the variants: it is dashed, without a colour.
function panelSwatch(panel) {
  if (panel.kind === "variant") return swatch(panel.variant);
  return panel.kind === "source" ? drawnSwatch(s("path", { class: "curve source", d: "M-6,0H6" })) : null;
}

// The words of one prompt, those that the other lacks marked.
function prompt(text, other) {
  const known = new Set(other.toLowerCase().split(/\s+/));
  const parts = text.split(/(\s+)/).map((word) => (word.trim() && !known.has(word.toLowerCase()) ? h("mark", {}, word) : word));
  return h("q", {}, parts);
}

class Row {
  constructor(edit) {
    this.edit = edit;
    this.frame = 0;
    this.chosen = null; // true plays, false stands still, null does as all do
    this.inSight = false;
    this.video = null;
    this.panels = edit.panels.map((panel) => this.drawPanel(panel));
    this.element = h(
      "article",
      { class: "edit", id: `edit-${edit.id}`, "aria-label": edit.id },
      this.drawHead(),
      h("div", { class: "panels" }, this.panels.map((panel) => panel.figure)),
      edit.problem ? h("p", { class: "problem" }, edit.problem) : null,
      edit.media === undefined ? null : this.drawControls(),
    );
  }

  drawHead() {
    const { id, category, source_prompt: source, target_prompt: target } = this.edit;
    return h(
      "header",
      {},
      h("h3", {}, h("a", { href: `#edit-${id}` }, id)),
      category ? h("span", { class: "chip" }, category) : null,
      h("p", { class: "prompts" }, prompt(source, target), h("span", { class: "to", "aria-label": "to" }, " → "), prompt(target, source)),
    );
  }

  drawPanel(panel) {
    const canvas = h("canvas", { width: 0, height: 0, role: "img", "aria-label": `${panelName(panel, this.edit)}: ${this.edit.target_prompt}` });
    canvas.style.aspectRatio = `${this.edit.width ?? 1} / ${this.edit.height ?? 1}`;
    const value = h("span", { class: "value" });
    const name = panelName(panel, this.edit);
    const caption = h("figcaption", {}, h("span", { class: "named", title: name }, panelSwatch(panel), h("span", {}, name)), value);
    const problem = panel.problem ? h("p", { class: "problem short", tabindex: 0, "data-tip": panel.problem }, panel.problem) : null;
    const enlarge = () => viewer.show(this, this.edit.panels.indexOf(panel));
    const picture = panel.tile === undefined ? h("div", { class: "picture" }, canvas) : h("button", { type: "button", class: "picture", "aria-label": `enlarge ${name}`, onclick: enlarge }, canvas);
    (panel.tile === undefined ? picture : caption).append(problem ?? "");
    const figure = h("figure", { class: `panel ${panel.kind}` }, picture, caption);
    if (panel.tile !== undefined && panel.frames < this.edit.frames) {
      caption.append(h("span", { class: "value" }, `${panel.frames} of ${this.edit.frames} frames, the last is held`));
    }
    return { ...panel, canvas, value, figure };
  }

  drawControls() {
    this.button = h("button", { type: "button", class: "play", onclick: () => this.toggle() });
    this.slider = h("input", { type: "range", min: 0, max: this.edit.frames - 1, step: 1, value: 0, "aria-label": "frame", oninput: () => this.seek(Number(this.slider.value)) });
    this.counter = h("output", { class: "counter" });
    const parts = [this.button, this.slider, this.counter];
    const below = [this.drawCurves(), this.drawAttention()].filter(Boolean);
    return h("div", { class: "below" }, h("div", { class: "controls" }, parts), below);
  }

  drawCurves() {
    if (!this.edit.panels.some((panel) => Object.keys(panel.curves ?? {}).length)) return null;
    const details = h("details", {}, h("summary", {}, "Curves"));
    details.addEventListener("toggle", () => {
      if (!details.open || details.childElementCount > 1) return;
      const named = [...new Set(this.edit.panels.flatMap((panel) => Object.keys(panel.curves ?? {})))].map((id) => metrics.get(id));
      if (!named.some((metric) => metric.id === state.curve)) state.curve = named[0].id;
      const choice = select("each frame's", named.map((metric) => [metric.id, `${arrowed(metric)} (${unitOf(metric)})`]), state.curve, (curve) => change({ curve }));
      const element = h("div", { class: "plot" });
      follow(["curve"], () => (choice.querySelector("select").value = state.curve));
      details.append(h("div", { class: "inner" }, choice, element));
      plot(element, ["curve", "hidden"], (width) => curvesOf(this.edit, width));
    });
    return details;
  }

  drawAttention() {
    if (!this.edit.attention.length) return null;
    const details = h("details", {}, h("summary", {}, "Attention"));
    details.addEventListener("toggle", () => {
      if (!details.open || details.childElementCount > 1) return;
      const pictures = this.edit.attention.map(({ word, media, variants: seen }) => {
        const image = h("img", { src: mediaUrl(media, "image/webp"), alt: `where “${word}” looks in frames of the source` });
        return h("figure", { class: "attention" }, h("figcaption", {}, h("b", {}, `“${word}”`), ` in the source, as ${seen.join(", ")} inverted it`), image);
      });
      details.append(h("div", { class: "inner" }, pictures));
    });
    return details;
  }

  // Decode: the row is near the window.
  load() {
    if (this.video || this.edit.media === undefined) return;
    for (const panel of this.panels) {
      panel.canvas.width = this.edit.width;
      panel.canvas.height = this.edit.height;
      panel.context = panel.canvas.getContext("2d");
    }
    const video = h("video", { muted: true, loop: true, playsinline: true, preload: "auto" });
    video.muted = true;
    video.addEventListener("error", () => this.fail());
    video.addEventListener("seeked", () => this.draw(video.currentTime));
    video.addEventListener("loadeddata", () => this.draw(video.currentTime));
    video.src = mediaUrl(this.edit.media, "video/mp4");
    this.video = video;
    this.listen();
    this.sync();
  }

  // Give memory back: the row is far away.
  unload() {
    if (!this.video) return;
    const { video } = this;
    this.video = null;
    URL.revokeObjectURL(video.src);
    video.removeAttribute("src");
    video.load();
    for (const panel of this.panels) panel.canvas.width = panel.canvas.height = 0;
  }

  listen() {
    const { video } = this;
    onFrames(video, () => this.video === video, (time) => this.draw(time));
  }

  fail() {
    if (!this.video?.getAttribute("src")) return;
    this.element.querySelector(".controls").replaceChildren(h("p", { class: "problem" }, "This browser cannot play H.264; open the page in another one."));
  }

  sync() {
    const plays = this.chosen ?? state.playing;
    this.button?.replaceChildren(plays ? "❚❚" : "▶");
    this.button?.setAttribute("aria-label", plays ? "pause" : "play");
    if (!this.video) return;
    if (plays && this.inSight) this.video.play().catch(() => {});
    else this.video.pause();
  }

  toggle() {
    this.chosen = !(this.chosen ?? state.playing);
    this.sync();
  }

  seek(frame) {
    this.chosen = false;
    this.sync();
    if (this.video) this.video.currentTime = middleOf(this.edit, frame);
  }

  draw(time) {
    if (!this.video || this.video.readyState < 2) return;
    this.frame = frameAt(this.edit, time);
    for (const panel of this.panels) if (panel.tile !== undefined && !panel.figure.hidden) this.paint(panel.context, panel);
    viewer.draw(this);
    this.slider.value = this.frame;
    this.counter.textContent = `${this.frame + 1} / ${this.edit.frames}`;
    const head = this.element.querySelector(".playhead");
    head?.setAttribute("transform", `translate(${this.frame * head.dataset.step},0)`);
  }

  paint(context, { tile, mask, kind }) {
    const size = [0, 0, this.edit.width, this.edit.height];
    const lay = (number, mode, alpha = 1) => {
      context.globalCompositeOperation = mode;
      context.globalAlpha = alpha;
      context.drawImage(this.video, ...tileOf(this.edit, number), ...size);
    };
    lay(tile, "copy");
    if (state.view === "masks" && mask !== undefined) lay(mask, "multiply", 0.8);
    if (state.view === "changes" && kind !== "source") {
      lay(this.panels[0].tile, "difference");
      context.globalCompositeOperation = "lighter";
      for (let doubling = 0; doubling < AMPLIFIED; doubling += 1) context.drawImage(context.canvas, 0, 0);
    }
  }

  label() {
    const metric = metrics.get(state.metric);
    for (const panel of this.panels) {
      panel.figure.hidden = panel.kind === "variant" && !isShown(panel.variant);
      panel.figure.classList.toggle("unmasked", state.view === "masks" && panel.mask === undefined);
      const row = resultOf.get(JSON.stringify([this.edit.id, panel.variant, panel.seed]));
      const value = metric && row ? row.values[placeOf.get(metric.id)] : undefined;
      panel.value.textContent = value === undefined ? "" : shown(value, metric);
    }
    if (this.video) this.draw(this.video.currentTime);
  }

  // What the row is ordered by: the first seed's value of one variant.
  value() {
    const row = data.rows.find((one) => one.edit === this.edit.id && one.variant === state.orderBy);
    return row?.values[placeOf.get(state.metric)] ?? null;
  }
}

const HINTS = {
  frames: "",
  masks: "Bright is where a method was free to change pixels; in source and true edit, where the edit belongs.",
  changes: `Each clip’s absolute difference from the source, ${2 ** AMPLIFIED} times amplified.`,
};

function gallery() {
  const rows = data.edits.map((edit) => new Row(edit));
  const rowOf = new Map(rows.map((row) => [row.element, row]));
  const list = h("div", { class: "gallery" });
  const near = new IntersectionObserver(
    (entries) => entries.forEach((entry) => (entry.isIntersecting ? rowOf.get(entry.target).load() : rowOf.get(entry.target).unload())),
    { rootMargin: LOAD_MARGIN },
  );
  const seen = new IntersectionObserver((entries) =>
    entries.forEach((entry) => {
      const row = rowOf.get(entry.target);
      row.inSight = entry.isIntersecting;
      row.sync();
    }),
  );
  const count = h("p", { class: "note", "aria-live": "polite" });
  follow(["order", "orderBy", "metric"], () => {
    const values = new Map(rows.map((row) => [row, state.order === "id" ? row.edit.id : row.value()]));
    const upward = (metrics.get(state.metric)?.direction ?? 1) >= 0 ? 1 : -1;
    const sign = { id: 1, worst: upward, best: -upward }[state.order];
    const ordered = sign ? [...rows].sort((a, b) => compare(values.get(a), values.get(b), sign)) : rows;
    list.append(...ordered.map((row) => row.element));
  });
  follow(["category", "text"], () => {
    for (const row of rows) row.element.hidden = !isMatch(row.edit);
    const visible = rows.filter((row) => !row.element.hidden).length;
    count.textContent = visible === rows.length ? counted(rows.length, "edit") : `${visible} of ${counted(rows.length, "edit")}`;
  });
  follow(["metric", "view", "hidden"], () => rows.forEach((row) => row.label()));
  follow(["playing"], () => rows.forEach((row) => {
    row.chosen = null;
    row.sync();
  }));
  rows.forEach((row) => [near, seen].forEach((observer) => observer.observe(row.element)));
  return [galleryTools(list), count, list];
}

function galleryTools(list) {
  const views = VIEWS.map((view) => {
    const button = h("button", { type: "button", onclick: () => change({ view }) }, view[0].toUpperCase() + view.slice(1));
    follow(["view"], () => button.setAttribute("aria-pressed", state.view === view));
    return button;
  });
  const play = h("button", { type: "button", class: "play-all", onclick: () => change({ playing: !state.playing }) });
  follow(["playing"], () => (play.textContent = state.playing ? "❚❚ Pause all" : "▶ Play all"));
  const hint = h("p", { class: "note", "aria-live": "polite" });
  follow(["view"], () => (hint.textContent = HINTS[state.view]));
  const most = Math.max(...data.edits.map((edit) => edit.panels.length), 1);
  const fitting = Math.floor((Math.min(innerWidth, 1720) - 90) / most) - 8; // a whole row in one line, where it can be
  const size = h("input", { type: "range", min: 84, max: LARGEST, step: 4, value: state.size ?? Math.min(320, Math.max(120, fitting - (fitting % 4))), oninput: () => change({ size: Number(size.value) }) });
  follow(["size"], () => list.style.setProperty("--size", `${size.value}px`));
  const tools = [h("div", { class: "segments", role: "group", "aria-label": "what the videos show" }, views), play, h("label", { class: "choice" }, h("span", {}, "size"), size)];
  if (scoredMetrics.length) {
    const orders = ORDERS.map((order) => [order, { id: "name", worst: "worst first", best: "best first" }[order] ?? order]);
    const methods = data.variants.map((variant) => [variant.name, variant.name]);
    tools.push(
      select("score", metricOptions(), state.metric, (metric) => change({ metric })),
      select("order", orders, state.order, (order) => change({ order })),
      select("of", methods, state.orderBy, (orderBy) => change({ orderBy })),
    );
  }
  return h("div", {}, h("div", { class: "tools" }, tools), hint);
}
