// Tables that sort by any column.

// Columns are {label, title, numeric, value(row), cell(row)}; rows without a value come last in either order.
function sortable(caption, columns, rowHeader = 0) {
  const body = h("tbody");
  let rows = [];
  let sorted = { column: -1, sign: 1 };
  const heads = columns.map((column, index) => {
    const sort = () => {
      const first = column.first ?? 1;
      sorted = { column: index, sign: sorted.column === index ? -sorted.sign : first };
      draw();
    };
    const button = h("button", { type: "button", onclick: sort, title: column.title ?? "" }, breakable(column.label));
    return h("th", { scope: "col", class: column.numeric ? "numeric" : "", "aria-sort": "none" }, button);
  });
  function draw() {
    heads.forEach((head, index) => {
      const order = sorted.sign > 0 ? "ascending" : "descending";
      head.setAttribute("aria-sort", index === sorted.column ? order : "none");
    });
    const column = columns[sorted.column];
    const ordered = column ? [...rows].sort((a, b) => compare(column.value(a), column.value(b), sorted.sign)) : rows;
    body.replaceChildren(...ordered.map(drawn));
  }
  function drawn(row) {
    const cells = columns.map((column, index) => {
      const kind = [column.numeric ? "numeric" : "", column.kind?.(row) ?? ""].join(" ").trim();
      const tip = column.tip?.(row);
      const attributes = { class: kind || null, "data-tip": tip, "data-label": column.label, scope: index === rowHeader ? "row" : null };
      return h(index === rowHeader ? "th" : "td", attributes, column.cell(row));
    });
    return h("tr", {}, cells);
  }
  const table = h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, heads)), body);
  const show = (next) => {
    rows = next;
    draw();
  };
  return { element: h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, table), show };
}

function compare(a, b, sign) {
  const missing = (a === null || a === undefined) - (b === null || b === undefined);
  if (missing || a === null || a === undefined) return missing;
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), "en", { numeric: true });
}

const headTitle = (metric) => [unitOf(metric), BETTER[metric.direction], ...metric.models].filter(Boolean).join("\n");

function named(variant) {
  const role = variant === data.reference ? h("span", { class: "role" }, "reference") : null;
  return h("span", { class: "named" }, swatch(variant), h("span", {}, breakable(variant)), role ? [" ", role] : null);
}

// Means over clips of every variant, marked where the paired difference to the reference tells.
function variantTable() {
  const columns = scoredMetrics.map((metric) => ({
    label: arrowed(metric),
    title: headTitle(metric),
    numeric: true,
    first: metric.direction > 0 ? -1 : 1,
    value: (variant) => scoreOf(variant.name, metric.id)?.value,
    cell: (variant) => {
      const score = scoreOf(variant.name, metric.id);
      if (!score || score.value === null) return "–";
      const ends = score.low === null ? null : h("small", {}, "[", shown(score.low, metric), ", ", h("wbr"), shown(score.high, metric), "]");
      return [h("span", { class: "mean" }, shown(score.value, metric)), ends];
    },
    kind: (variant) => (variant.baseline ? "" : VERDICTS[verdict(differenceOf(variant.name, metric.id))]),
    tip: (variant) => {
      const score = scoreOf(variant.name, metric.id);
      const difference = differenceOf(variant.name, metric.id);
      const against = difference?.value == null ? "" : `\n${signed(difference.value, metric)} ${interval(difference, metric)} against ${data.reference}`;
      return score ? scoreTip(score, metric) + against : null;
    },
  }));
  const first = { label: "variant", value: (variant) => variant.name, cell: (variant) => named(variant.name) };
  const table = sortable("Scores of the variants, means over clips", [first, ...columns]);
  table.element.classList.add("carded");
  follow(["category", "hidden"], () => table.show(data.variants.filter((variant) => isShown(variant.name))));
  return table.element;
}

// Every edit, variant and seed.
function editTable() {
  const edits = new Map(data.edits.map((edit, index) => [edit.id, index]));
  const place = (row) => edits.get(row.edit) ?? edits.size;
  const byEdit = [...data.rows].sort((a, b) => place(a) - place(b) || variants.get(a.variant).index - variants.get(b.variant).index || a.seed - b.seed);
  const seeds = new Set(data.rows.map((row) => JSON.stringify([row.edit, row.seed]))).size > new Set(data.rows.map((row) => row.edit)).size;
  const columns = [
    { label: "edit", value: (row) => row.edit, cell: (row) => (edits.has(row.edit) ? h("a", { href: `#edit-${row.edit}` }, row.edit) : row.edit) },
    { label: "category", value: (row) => row.category, cell: (row) => row.category },
    { label: "variant", value: (row) => row.variant, cell: (row) => named(row.variant) },
    ...(seeds ? [{ label: "seed", numeric: true, value: (row) => row.seed, cell: (row) => row.seed }] : []),
    ...scoredMetrics.map((metric) => {
      const place = placeOf.get(metric.id);
      return {
        label: arrowed(metric),
        title: headTitle(metric),
        numeric: true,
        first: metric.direction > 0 ? -1 : 1,
        value: (row) => row.values[place],
        cell: (row) => shown(row.values[place], metric),
        tip: (row) => row.reasons[place] ?? null,
      };
    }),
  ];
  const table = sortable("Scores of each edit", columns);
  table.element.classList.add("tall");
  const note = h("p", { class: "note", "aria-live": "polite" });
  follow(["category", "text", "hidden"], () => {
    const matching = new Set(data.edits.filter(isMatch).map((edit) => edit.id));
    const rows = byEdit.filter((row) => matching.has(row.edit) && isShown(row.variant));
    note.textContent = `${rows.length} of ${data.rows.length} results. “–” is undefined; point at it for the reason.`;
    table.show(rows);
  });
  return [note, table.element];
}
