// One video enlarged, wiped against another of its edit. The row's own video is drawn, so both stay in step.

const FILLED = 0.66; // of the window's height, at most, by the picture

class Viewer {
  constructor() {
    this.row = null; // the edit that is shown, and which of its videos
    this.panel = null;
    this.other = null; // what stands left of the line; null is nothing
    this.canvas = h("canvas", { role: "img" });
    this.line = h("div", { class: "line" });
    this.sides = [h("span", { class: "side left" }), h("span", { class: "side right" })];
    this.stage = h("div", { class: "stage" }, this.canvas, this.line, this.sides);
    this.wipe = h("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": "where the line stands", oninput: () => this.paint() });
    this.head = h("p");
    this.tools = h("div", { class: "tools" });
    const close = h("button", { type: "button", onclick: () => this.element.close(), "aria-label": "close" }, "✕");
    this.element = h("dialog", { id: "viewer", onclose: () => (this.row = null) }, h("header", {}, this.head, close), this.stage, this.tools);
    this.element.addEventListener("click", (event) => event.target === this.element && this.element.close());
    document.addEventListener("keydown", (event) => this.element.open && this.press(event));
    for (const name of ["pointerdown", "pointermove"]) this.stage.addEventListener(name, (event) => this.drag(event));
    document.body.append(this.element);
  }

  // Show the video of a row's panel, by its number, against the source.
  show(row, number) {
    const [source] = row.panels;
    this.row = row;
    this.panel = row.panels[number];
    this.other = this.panel === source || source.tile === undefined ? null : source;
    const { width, height, source_prompt: before, target_prompt: after } = row.edit;
    [this.canvas.width, this.canvas.height] = [width, height];
    this.stage.style.maxWidth = `${Math.round((innerHeight * FILLED * width) / height)}px`;
    this.head.replaceChildren(h("b", {}, row.edit.id), " ", prompt(before, after), " → ", prompt(after, before));
    this.drawTools();
    if (!this.element.open) this.element.showModal();
    this.paint();
  }

  // The videos of the edit that can be shown, in the row's order.
  get shown() {
    return this.row.panels.filter((panel) => panel.tile !== undefined && !panel.figure.hidden);
  }

  drawTools() {
    const name = (panel) => panelName(panel, this.row.edit);
    const others = [["", "nothing"], ...this.shown.filter((panel) => panel !== this.panel).map((panel) => [String(this.row.panels.indexOf(panel)), name(panel)])];
    const beside = select("against", others, this.other ? String(this.row.panels.indexOf(this.other)) : "", (index) => {
      this.other = index === "" ? null : this.row.panels[Number(index)];
      this.label();
    });
    const step = (by, text, label) => h("button", { type: "button", onclick: () => this.go(by), "aria-label": label }, text);
    const pause = h("button", { type: "button", onclick: () => this.row.toggle() }, "▶ / ❚❚");
    this.tools.replaceChildren(step(-1, "‹", "the video before"), pause, step(1, "›", "the next video"), beside, h("label", { class: "choice" }, h("span", {}, "wipe"), this.wipe));
    this.label();
  }

  label() {
    const names = [this.other, this.panel].map((panel) => (panel ? panelName(panel, this.row.edit) : ""));
    this.sides.forEach((side, index) => (side.textContent = names[index]));
    this.stage.classList.toggle("single", this.other === null);
    this.canvas.setAttribute("aria-label", names.filter(Boolean).join(" beside "));
    this.paint();
  }

  go(by) {
    const { shown } = this;
    const next = shown[(shown.indexOf(this.panel) + by + shown.length) % shown.length];
    this.show(this.row, this.row.panels.indexOf(next));
  }

  drag(event) {
    if (this.other === null || !(event.buttons & 1)) return;
    const box = this.stage.getBoundingClientRect();
    this.wipe.value = (100 * (event.clientX - box.left)) / box.width;
    this.paint();
  }

  press(event) {
    if (/^(INPUT|SELECT)$/.test(event.target.tagName)) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) this.go(by);
  }

  // Called by a row whenever its video shows another frame.
  draw(row) {
    if (row === this.row) this.paint();
  }

  paint() {
    this.line.style.left = `${this.wipe.value}%`;
    if (!this.row?.video || this.row.video.readyState < 2) return;
    const context = this.canvas.getContext("2d");
    this.row.paint(context, this.panel);
    if (this.other === null) return;
    context.save();
    context.beginPath();
    context.rect(0, 0, (this.canvas.width * this.wipe.value) / 100, this.canvas.height);
    context.clip();
    this.row.paint(context, this.other);
    context.restore();
  }
}

const viewer = new Viewer();
