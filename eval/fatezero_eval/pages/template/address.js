// The reader's choices in the page's address, so that they outlast a reload and can be sent to others.

const VIEWS = ["frames", "masks", "changes"];
const ORDERS = ["manifest", "id", "worst", "best"];
const scoredIds = scoredMetrics.map((metric) => metric.id);
const OFFERED = {
  category: data.categories,
  view: VIEWS,
  metric: scoredIds,
  across: scoredIds,
  up: scoredIds,
  field: data.sweeps.map((one) => one.field),
  curve: data.metrics.map((metric) => metric.id),
  order: ORDERS,
  orderBy: data.variants.map((variant) => variant.name),
};
const usual = { ...state };

// What an address asks for and the page does not offer is left as it is.
function takeFromAddress() {
  const asked = new URLSearchParams(location.search);
  for (const [name, values] of Object.entries(OFFERED)) if (values.includes(asked.get(name))) state[name] = asked.get(name);
  state.text = asked.get("text") ?? "";
  state.size = Number(asked.get("size")) || null;
  state.hidden = new Set(asked.getAll("hide").filter((name) => variants.has(name)));
}

function writeToAddress() {
  const chosen = new URLSearchParams();
  for (const name of [...Object.keys(OFFERED), "text", "size"]) if (state[name] !== usual[name]) chosen.set(name, state[name]);
  for (const name of state.hidden) chosen.append("hide", name);
  const query = chosen.toString();
  try {
    history.replaceState(null, "", `${location.pathname}${query ? `?${query}` : ""}${location.hash}`);
  } catch {
    // A page inside another's frame has no address of its own.
  }
}

takeFromAddress();
follow([...Object.keys(OFFERED), "text", "size", "hidden"], writeToAddress);
