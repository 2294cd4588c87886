// A study: pairs of videos, who made them unknown. Answers stay in the browser until the rater saves them as a file.

const STORE = `fatezero-study ${data.study} `; // then the rater's name
const FORMAT = "fatezero-study-answers@1";
const KEYS = "1, 2, 3 answer · Enter goes on · Backspace goes back · Space plays and stops";
const LONGEST_NAME = 60;
const trialOf = new Map(data.trials.map((trial) => [trial.id, trial]));
const room = document.getElementById("page");
const bar = document.getElementById("bar");

// Numbers in [0, 1) that follow from a text: FNV-1a, then mulberry32.
function randomOf(text) {
  let seed = 2166136261;
  for (const byte of new TextEncoder().encode(text)) seed = Math.imul(seed ^ byte, 16777619);
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

function shuffled(values, random) {
  const left = [...values];
  for (let last = left.length - 1; last > 0; last -= 1) {
    const other = Math.floor(random() * (last + 1));
    [left[last], left[other]] = [left[other], left[last]];
  }
  return left;
}

// What a rater is asked, in order: all shared pairs and some of the others; and which of each pair stands left.
function planFor(rater) {
  const random = randomOf(`${data.study} ${rater}`);
  const shared = data.trials.filter((trial) => trial.shared);
  const others = shuffled(data.trials.filter((trial) => !trial.shared), random).slice(0, data.drawn);
  return shuffled([...shared, ...others], random).map((trial) => ({ ...trial, left: random() < 0.5 ? 0 : 1 }));
}

// What raters have answered: by pair, the choice on each question and the seconds it took. Some browsers keep nothing.
const memory = {
  kept: new Map(),
  read(rater) {
    try {
      const found = JSON.parse(localStorage.getItem(STORE + rater) ?? "{}");
      return Object.fromEntries(Object.entries(found).filter(([id]) => trialOf.has(id)));
    } catch {
      return this.kept.get(rater) ?? {};
    }
  },
  write(rater, answers) {
    this.kept.set(rater, answers);
    try {
      localStorage.setItem(STORE + rater, JSON.stringify(answers));
      return true;
    } catch {
      return false;
    }
  },
  raters() {
    try {
      return Object.keys(localStorage).filter((name) => name.startsWith(STORE)).map((name) => name.slice(STORE.length)).sort();
    } catch {
      return [...this.kept.keys()];
    }
  },
};

const isAnswered = (given) => data.questions.every((question) => given?.choices?.[question.name] !== undefined);

// A and B of one pair, beside the source where there is one: tiles of one video, so that they cannot fall out of step.
class Stage {
  constructor(edit, left, right) {
    this.edit = edit;
    this.wanted = true;
    this.plays = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    const named = [["Original", edit.source], ["A", left], ["B", right]].filter(([, tile]) => tile !== null);
    this.views = named.map(([name, tile]) => this.drawView(tile, name));
    this.button = h("button", { type: "button", class: "play", onclick: () => this.toggle() });
    this.slider = h("input", { type: "range", min: 0, max: edit.frames - 1, step: 1, value: 0, "aria-label": "frame", oninput: () => this.seek(Number(this.slider.value)) });
    this.counter = h("output", { class: "counter" });
    this.controls = h("div", { class: "controls" }, this.button, this.slider, this.counter);
    this.element = h("div", { class: "stage" }, h("div", { class: "views" }, this.views.map((view) => view.figure)), this.controls);
    this.load();
  }

  drawView(tile, name) {
    const label = name === "Original" ? "the original video" : `video ${name}`;
    const canvas = h("canvas", { width: this.edit.width, height: this.edit.height, role: "img", "aria-label": label });
    const figure = h("figure", { class: name === "Original" ? "view original" : "view" }, h("figcaption", {}, name), canvas);
    return { tile, context: canvas.getContext("2d"), figure };
  }

  load() {
    const video = h("video", { muted: true, loop: true, playsinline: true, preload: "auto" });
    video.muted = true;
    video.addEventListener("error", () => this.fail());
    for (const name of ["seeked", "loadeddata"]) video.addEventListener(name, () => this.draw(video.currentTime));
    video.src = mediaUrl(this.edit.media, "video/mp4");
    this.video = video;
    onFrames(video, () => this.wanted, (time) => this.draw(time));
    this.sync();
  }

  close() {
    this.wanted = false;
    URL.revokeObjectURL(this.video.src);
    this.video.removeAttribute("src");
    this.video.load();
  }

  fail() {
    if (this.wanted) this.controls.replaceChildren(h("p", { class: "problem" }, "This browser cannot play H.264; open the page in another one."));
  }

  sync() {
    this.button.replaceChildren(this.plays ? "❚❚" : "▶");
    this.button.setAttribute("aria-label", this.plays ? "stop" : "play");
    if (this.plays) this.video.play().catch(() => {});
    else this.video.pause();
  }

  toggle() {
    this.plays = !this.plays;
    this.sync();
  }

  seek(frame) {
    this.plays = false;
    this.sync();
    this.video.currentTime = middleOf(this.edit, frame);
  }

  draw(time) {
    if (!this.wanted || this.video.readyState < 2) return;
    const frame = frameAt(this.edit, time);
    const { width, height } = this.edit;
    for (const { tile, context } of this.views) context.drawImage(this.video, ...tileOf(this.edit, tile), 0, 0, width, height);
    this.slider.value = frame;
    this.counter.textContent = `${frame + 1} / ${this.edit.frames}`;
  }
}

// One rater's way through the pairs.
class Session {
  constructor(rater) {
    this.rater = rater;
    this.plan = planFor(rater);
    this.answers = memory.read(rater);
    const open = this.plan.findIndex((trial) => !isAnswered(this.answers[trial.id]));
    this.place = open < 0 ? this.plan.length : open;
    this.isKept = memory.write(rater, this.answers);
    this.show();
  }

  get trial() {
    return this.plan[this.place];
  }

  get done() {
    return this.plan.filter((trial) => isAnswered(this.answers[trial.id])).length;
  }

  // Draw the pair that is at hand, or the end.
  show() {
    this.stage?.close();
    this.stage = null;
    this.since = performance.now();
    room.replaceChildren(this.trial ? this.drawTrial() : this.drawEnd());
    this.progress();
    scrollTo(0, 0);
    room.querySelector("h2").focus({ preventScroll: true });
  }

  progress() {
    const meter = h("progress", { max: this.plan.length, value: this.done, "aria-label": "pairs answered" });
    const save = h("button", { type: "button", class: "save", onclick: () => this.save() }, "Save answers so far");
    const count = h("output", {}, `${this.done} of ${this.plan.length} answered`);
    bar.replaceChildren(h("div", { class: "progress" }, meter, count, this.trial ? save : null));
  }

  drawTrial() {
    const { trial } = this;
    const edit = data.edits[trial.edit];
    this.stage = new Stage(edit, trial.tiles[trial.left], trial.tiles[1 - trial.left]);
    this.fields = data.questions.map((question) => this.drawQuestion(question));
    this.next = h("button", { type: "submit", class: "primary" }, this.place + 1 < this.plan.length ? "Next" : "Finish");
    const back = h("button", { type: "button", disabled: this.place === 0, onclick: () => this.go(-1) }, "Back");
    const form = h("form", { class: "questions", onsubmit: (event) => this.submit(event) }, this.fields, h("div", { class: "steps" }, back, this.next));
    this.mark();
    return h("section", {}, this.drawTask(edit), this.stage.element, form, h("p", { class: "note keys" }, KEYS));
  }

  drawTask(edit) {
    const source = edit.source_prompt ? h("p", { class: "note" }, "The original shows: ", h("q", {}, edit.source_prompt)) : null;
    const asks = edit.source === null ? "It should show: " : "It should become: ";
    return h("div", { class: "task" }, h("h2", { tabindex: -1 }, asks, h("q", {}, edit.target_prompt)), source);
  }

  drawQuestion(question) {
    const { trial } = this;
    const options = [["A", trial.left], ["No difference", null], ["B", 1 - trial.left]].filter(([, choice]) => data.ties || choice !== null);
    const given = this.answers[trial.id]?.choices ?? {};
    const buttons = options.map(([text, choice], index) => {
      const checked = question.name in given && given[question.name] === choice;
      const input = h("input", { type: "radio", name: question.name, checked, onchange: () => this.answer(question.name, choice) });
      return h("label", { class: "option" }, input, h("span", {}, h("kbd", { "aria-hidden": "true" }, index + 1), text));
    });
    return h("fieldset", {}, h("legend", {}, question.text), h("div", { class: "options" }, buttons));
  }

  answer(question, choice) {
    const { id } = this.trial;
    const before = this.answers[id] ?? { choices: {}, seconds: 0 };
    const seconds = before.seconds + (performance.now() - this.since) / 1000;
    this.since = performance.now();
    this.answers[id] = { choices: { ...before.choices, [question]: choice }, seconds };
    this.isKept = memory.write(this.rater, this.answers) && this.isKept;
    this.progress();
    this.mark();
    this.fields[this.current].scrollIntoView({ block: "nearest" });
  }

  // Show which question a key answers, and whether all are.
  mark() {
    const given = this.answers[this.trial.id]?.choices ?? {};
    const open = data.questions.findIndex((question) => !(question.name in given));
    this.current = open < 0 ? data.questions.length - 1 : open;
    this.fields.forEach((field, index) => field.classList.toggle("current", index === open));
    this.next.classList.toggle("waiting", open >= 0);
  }

  submit(event) {
    event.preventDefault();
    if (isAnswered(this.answers[this.trial.id])) this.go(1);
    else this.fields[this.current].querySelector("input").focus();
  }

  go(by) {
    this.place = Math.max(0, this.place + by);
    this.show();
  }

  press(key) {
    if (!this.trial) return false;
    const option = "123".indexOf(key);
    if (option >= 0) {
      this.fields[this.current].querySelectorAll("input")[option]?.click();
      return true;
    }
    if (key === " ") this.stage.toggle();
    else if (key === "Enter") this.next.click();
    else if (key === "Backspace") this.go(-1);
    else return false;
    return true;
  }

  drawEnd() {
    const left = this.plan.length - this.done;
    const says = left ? `${left} of ${this.plan.length} pairs have no answer yet.` : "Please save your answers and send the file to whoever asked you.";
    const text = h("textarea", { readonly: true, rows: 6, "aria-label": "your answers as a text" }, this.file());
    return h(
      "section",
      { class: "end" },
      h("h2", { tabindex: -1 }, left ? "Not all is answered" : "Thank you, that was all"),
      h("p", {}, says),
      h("div", { class: "steps" }, h("button", { type: "button", onclick: () => this.go(-1) }, "Back"), h("button", { type: "button", class: "primary save", onclick: () => this.save() }, "Save answers")),
      h("details", {}, h("summary", {}, "No file appears?"), h("p", { class: "note" }, "Copy this text and send it in place of the file."), text),
    );
  }

  file() {
    const answers = this.plan.flatMap((trial) =>
      Object.entries(this.answers[trial.id]?.choices ?? {}).map(([question, choice]) => {
        const seconds = Math.round(this.answers[trial.id].seconds * 10) / 10;
        return { trial: trial.id, question, choice, left: trial.left, seconds };
      }),
    );
    return JSON.stringify({ format: FORMAT, study: data.study, rater: this.rater, answers });
  }

  save() {
    const name = this.rater.replace(/[^\p{L}\p{N}-]+/gu, "-");
    const href = URL.createObjectURL(new Blob([this.file()], { type: "application/json" }));
    const link = h("a", { href, download: `answers-${name}.json` });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(href), 60_000);
  }
}

let session = null;

function begin(rater) {
  session = new Session(rater);
}

function codeByChance() {
  return [...crypto.getRandomValues(new Uint8Array(5))].map((byte) => byte.toString(36).padStart(2, "0")).join("");
}

function drawStart() {
  const name = h("input", { id: "rater", type: "text", maxlength: LONGEST_NAME, autocomplete: "off", spellcheck: "false" });
  const start = (event) => {
    event.preventDefault();
    begin(name.value.trim() || codeByChance());
  };
  const again = memory.raters().map((rater) => {
    const plan = planFor(rater);
    const answers = memory.read(rater);
    const done = plan.filter((trial) => isAnswered(answers[trial.id])).length;
    return h("button", { type: "button", onclick: () => begin(rater) }, `Go on as ${rater} (${done} of ${plan.length})`);
  });
  const pairs = data.trials.filter((trial) => trial.shared).length + data.drawn;
  const beside = data.edits.some((edit) => edit.source !== null) ? "Beside them stands the original, above them" : "Above them stands";
  const each = data.questions.length > 1 ? ` with ${data.questions.length} questions each` : "";
  return h(
    "section",
    { class: "start" },
    h("p", {}, `You will see ${pairs} pairs of videos${each}. ${beside} what they should show. Say which of A and B is better.`),
    h("p", { class: "note" }, "Answers stay in this browser until you save them as a file at the end. You can stop at any time and go on later."),
    h("form", { onsubmit: start }, h("label", { for: "rater" }, "Your name or code"), h("div", { class: "steps" }, name, h("button", { type: "submit", class: "primary" }, "Start")), h("p", { class: "note" }, "May be left empty; it goes into the file.")),
    again.length ? h("div", { class: "again" }, again) : null,
  );
}

document.addEventListener("keydown", (event) => {
  const target = event.target;
  const writes = target.closest("textarea, input:not([type=radio])");
  const acts = [" ", "Enter"].includes(event.key) && target.closest("button, summary, input");
  if (!session || event.ctrlKey || event.metaKey || event.altKey || writes || acts) return;
  if (session.press(event.key)) event.preventDefault();
});

document.getElementById("top").append(h("h1", {}, data.name));
bar.setAttribute("aria-label", "Progress");
room.replaceChildren(drawStart());
