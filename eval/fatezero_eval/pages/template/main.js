// Puts the page together.

const section = (id, title, ...children) => h("section", { id }, h("h2", {}, title), ...children);

function head() {
  const methods = data.variants.filter((variant) => !variant.baseline);
  const judged = [...new Set(data.metrics.flatMap((metric) => metric.models))];
  const facts = [
    `${counted(data.edits.length, "edit")} × ${counted(methods.length, "variant")}`,
    data.manifest,
    ...data.provenance.checkpoint.map(({ value }) => value.name),
    data.reference ? `reference: ${data.reference}` : null,
    judged.length ? null : "not scored",
  ];
  document.getElementById("top").append(h("h1", {}, data.name), h("p", { class: "facts" }, facts.filter(Boolean).join(" · ")));
}

function bar(sections) {
  const search = h("input", { type: "search", value: state.text, placeholder: "find edits  ( / )", "aria-label": "find edits by words", oninput: () => change({ text: search.value }) });
  const categories = [["", "all categories"], ...data.categories.map((name) => [name, name])];
  const chips = data.variants.map(({ name }) => {
    const chip = h("button", { type: "button", class: "chip-button", onclick: () => toggleVariant(name), title: `show or hide ${name}` }, swatch(name), name);
    follow(["hidden"], () => chip.setAttribute("aria-pressed", isShown(name)));
    return chip;
  });
  const links = sections.map((one) => h("a", { href: `#${one.id}` }, one.querySelector("h2").textContent));
  document.getElementById("bar").append(
    h("div", { class: "links" }, links, search, data.categories.length > 1 ? select("", categories, state.category, (category) => change({ category })) : null),
    h("div", { class: "chips", role: "group", "aria-label": "variants" }, chips),
  );
  const stays = matchMedia("(min-width: 761px)");
  new ResizeObserver(([entry]) => {
    const height = stays.matches ? entry.target.offsetHeight : 0;
    document.documentElement.style.scrollPaddingTop = `${height + 12}px`;
  }).observe(document.getElementById("bar"));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const act = { "/": () => search.focus(), p: () => change({ playing: !state.playing }), m: () => change({ view: state.view === "masks" ? "frames" : "masks" }) }[event.key];
    if (act) {
      event.preventDefault();
      act();
    }
  });
}

function toggleVariant(name) {
  const hidden = new Set(state.hidden);
  if (!hidden.delete(name)) hidden.add(name);
  change({ hidden });
}

function scores() {
  const legend = data.differences.length
    ? `Means over clips with 95 % bootstrap intervals over clips. Coloured where the interval of the paired difference to ${data.reference} leaves out zero: `
    : "Means over clips with 95 % bootstrap intervals over clips.";
  const marks = data.differences.length ? [h("span", { class: "key better" }, "better"), " ", h("span", { class: "key worse" }, "worse")] : [];
  return section("scores", "Scores", h("p", { class: "note" }, legend, marks), variantTable());
}

function unscored() {
  const command = h("code", {}, "fatezero evaluate RUN --manifest MANIFEST");
  return section("scores", "Scores", h("p", {}, "This run has not been scored. ", command, " scores it; ", h("code", {}, "fatezero report RUN"), " then adds tables and plots to this page."));
}

function plots() {
  const trade = h("div", { class: "plot" });
  const parts = [
    h("h3", {}, "Trade-off"),
    h("div", { class: "tools" }, select("across", metricOptions(), state.across, (across) => change({ across })), select("up", metricOptions(), state.up, (up) => change({ up }))),
    h("div", { class: "card wide" }, plot(trade, ["across", "up", "category", "hidden"], tradeOff)),
    h("h3", {}, data.reference ? `Effects: paired differences to ${data.reference}` : "Effects"),
  ];
  if (data.differences.length) parts.push(...cards(["category", "hidden"], effects));
  else parts.push(h("p", { class: "note" }, "No reference variant is named or scored, so there are no differences to show; fatezero ablate names one."));
  if (data.sweeps.length) {
    const fields = data.sweeps.map((one) => [one.field, one.field]);
    parts.push(h("h3", {}, "Sweeps"), h("div", { class: "tools" }, select("setting", fields, state.field, (field) => change({ field }))), ...cards(["field", "category", "hidden"], sweep));
  }
  return section("plots", "Plots", ...parts);
}

function problems() {
  const found = data.problems.map((problem) => h("li", {}, problem));
  const unread = data.edits.flatMap((edit) => [
    ...(edit.problem ? [`${edit.id}: ${edit.problem}`] : []),
    ...edit.panels.filter((panel) => panel.problem).map((panel) => `${edit.id}, ${panelName(panel, edit)}: ${panel.problem}`),
  ]);
  const all = [...found, ...unread.map((problem) => h("li", {}, problem))];
  return all.length ? section("problems", "Missing and failed", h("ul", { class: "problems" }, all)) : null;
}

const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function definition(name, ...values) {
  return values.length && values[0] !== "" ? [h("dt", {}, name), ...values.map((value) => h("dd", {}, value))] : [];
}

function counts(found) {
  const total = found.reduce((sum, one) => sum + one.results, 0);
  return found.map(({ value, results }) => {
    const pairs = Object.entries(value).map(([name, text]) => `${name} ${asText(text)}`).join(", ");
    return results === total ? pairs : `${pairs} (${counted(results, "result")})`;
  });
}

function provenance() {
  const { command, manifest, manifest_digest: digest, checkpoint, versions, runtime, configs, costs } = data.provenance;
  const models = data.metrics.filter((metric) => metric.models.length).map((metric) => `${metric.id}: ${metric.models.join(", ")}`);
  const table = sortable("What each variant changes and costs", [
    { label: "variant", value: (one) => one.name, cell: (one) => named(one.name) },
    { label: "settings that differ", value: (one) => JSON.stringify(one.settings), cell: (one) => h("code", {}, Object.entries(one.settings).map(([name, value]) => `${name} = ${JSON.stringify(value)}`).join("; ") || "–") },
    { label: "results", numeric: true, value: (one) => one.results, cell: (one) => one.results },
    { label: "seconds in all", numeric: true, value: (one) => costs[one.name].seconds, cell: (one) => costs[one.name].seconds?.toFixed(1) ?? "–" },
    { label: "peak memory, GB", numeric: true, value: (one) => costs[one.name].peak_memory_bytes, cell: (one) => (costs[one.name].peak_memory_bytes === null ? "–" : (costs[one.name].peak_memory_bytes / 1e9).toFixed(2)) },
  ]);
  table.show(data.variants.filter((variant) => !variant.baseline));
  const configured = Object.entries(configs).map(([name, found]) =>
    h("details", {}, h("summary", {}, `Configuration of ${name}`), found.map(({ value }) => h("pre", {}, JSON.stringify(value, null, 1)))),
  );
  const list = h(
    "dl",
    {},
    definition("command", command && h("code", {}, command)),
    definition("manifest", manifest && h("code", {}, manifest)),
    definition("manifest digest", digest && h("code", {}, digest)),
    definition("checkpoint", ...counts(checkpoint)),
    definition("run on", ...counts(runtime)),
    definition("versions", ...counts(versions)),
    definition("judges and estimators", models.length ? h("details", {}, h("summary", {}, counted(models.length, "metric")), h("ul", {}, models.map((text) => h("li", {}, text)))) : ""),
  );
  return section("provenance", "Configuration and provenance", table.element, h("div", { class: "configs" }, configured), list);
}

const scored = data.scores.length > 0;
const edits = section("edits", "Edits", ...gallery());
const sections = scored
  ? [edits, scores(), plots(), section("results", "Scores of each edit", ...editTable()), problems(), provenance()]
  : [edits, unscored(), problems(), provenance()];
const present = sections.filter(Boolean);
head();
bar(present);
document.getElementById("page").replaceChildren(...present);
installTip();
