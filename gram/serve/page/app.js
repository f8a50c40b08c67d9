// The page of a shop. Everything that comes from the catalogue is set as text, never as HTML.
import { ask, element, byId } from "./tools.js";
import { openCodes } from "./codes.js";
import { openTeam } from "./team.js";

const LIMIT = 20, FACETS = "brand,colour,color,category,material,size,price";
const state = { q: "", filters: [], sort: "", limit: LIMIT };
let running = null, suggesting = null, timer = 0, settled = 0, chosen = -1;

const quote = (text) => `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;

function readAddress() {
  const given = new URLSearchParams(location.search);
  Object.assign(state, { q: given.get("q") ?? "", filters: given.getAll("filter"), sort: given.get("sort") ?? "", limit: LIMIT });
  byId("q").value = state.q;
  byId("sort").value = state.sort;
}

// One entry of the browser's history for each search: what is typed changes it until it is sent, or stays for a while.
function writeAddress(kind) {
  const given = new URLSearchParams();
  if (state.q) given.set("q", state.q);
  state.filters.forEach((filter) => given.append("filter", filter));
  if (state.sort) given.set("sort", state.sort);
  const address = given.size ? `?${given}` : "";
  const fresh = kind !== "stay" && !history.state?.typed && address !== location.search;
  history[fresh ? "pushState" : "replaceState"]({ typed: kind === "typed" }, "", address || location.pathname);
}

// Values of one field are either this or that; different fields hold together, and so does every code.
function joined(filters) {
  const fields = new Map();
  for (const filter of filters) {
    const field = /^"(?:[^"\\]|\\.)*"/.exec(filter)?.[0] ?? filter;
    fields.set(field, [...(fields.get(field) ?? []), `(${filter})`]);
  }
  return [...fields.values()].map((same) => `(${same.join(" OR ")})`).join(" AND ");
}

// `kind`: typed (half a word maybe), sent (a search of its own), or stay (the same one again).
async function search(kind = "stay") {
  const typing = kind === "typed";
  clearTimeout(settled);
  if (typing) settled = setTimeout(() => search("sent"), 2000); // what stays is asked once more, and counted
  writeAddress(kind);
  running?.abort();
  running = new AbortController();
  const filter = joined(state.filters);
  const body = { q: state.q, limit: state.limit, filter, sort: state.sort, facets: FACETS, explain: true };
  if (!state.q && !filter) return show({ hits: [], found: 0, facets: {}, refinements: [], query: { read_as: "" } }, true);
  byId("status").textContent = "Searching…";
  try {
    show(await ask("POST", "/search", body, running.signal, typing));
  } catch (error) {
    if (error.name !== "AbortError") showError(error);
  }
}

function show(answer, blank = false) {
  if (answer.redirect && /^(\/|https?:)/.test(answer.redirect)) {
    byId("status").replaceChildren("This search leads to ", element("a", { href: answer.redirect }, answer.redirect));
  } else {
    const read = answer.query.read_as && answer.query.read_as !== state.q.toLowerCase().trim() ? `, read as “${answer.query.read_as}”` : "";
    const nothing = answer.hits.length ? `Nothing fits${read}. These are the nearest.` : `Nothing found${read}. Try fewer words or filters.`;
    byId("status").textContent = blank ? "Type to search." : answer.found ? `${answer.found} products${read}` : nothing;
  }
  const fitting = answer.hits.filter((one) => one.fits), near = answer.hits.filter((one) => !one.fits);
  const divider = fitting.length && near.length ? [element("li", { class: "near" }, "Near, but not quite what was asked")] : [];
  byId("results").replaceChildren(...fitting.map(hit), ...divider, ...near.map(hit));
  byId("more").hidden = fitting.length >= answer.found;
  keepFocus(() => showFilters(answer));
}

function showFilters(answer) {
  byId("chips").replaceChildren(...state.filters.map((filter) => filterButton(filter, `${filter} ✕`, `Remove the filter ${filter}`)));
  byId("refinements").replaceChildren(...answer.refinements.filter((r) => r.filter && !state.filters.includes(r.filter))
    .map((r) => filterButton(r.filter, `${r.code} (${r.products})`, `Only ${r.code}, ${r.products} products`)));
  byId("facets").replaceChildren(...Object.entries(answer.facets).map(([name, values]) => facet(name, values, answer.ranges?.[name])).filter(Boolean));
}

// What is drawn anew takes the focus over from what it replaces, or the results do where nothing does.
function keepFocus(draw) {
  const before = document.activeElement, filter = before?.dataset.filter, area = before?.closest("[id]:not([data-filter])");
  draw();
  if (filter === undefined) return;
  const same = [...document.querySelectorAll("[data-filter]")].filter((one) => one.dataset.filter === filter);
  (same.find((one) => area.contains(one)) ?? same[0] ?? byId("results")).focus();
}

function showError(error) {
  byId("status").textContent = "";
  byId("results").replaceChildren(element("li", { class: "card error" }, `${error.message}${error.fix ? ` — ${error.fix}` : ""}`));
  if (error.status === 401 || error.status === 403) byId("status").textContent = "A key is needed: set it under Team.";
}

function button(text, label, act) {
  const made = element("button", { type: "button", "aria-label": label }, text);
  made.addEventListener("click", act);
  return made;
}

function filterButton(filter, text, label) {
  const made = button(text, label, () => toggle(filter));
  made.dataset.filter = filter;
  return made;
}

function hit(one) {
  const address = String(one.image ?? "");
  const picture = /^(https:\/\/|data:image\/)/i.test(address) ? [element("img", { src: address, alt: "", loading: "lazy" })] : [];
  const price = one.price === undefined ? [] : [element("span", { class: "price" }, Number(one.price).toFixed(2))];
  const said = [one.brand, one.category].filter(Boolean).join(" · ");
  const why = button("Why?", `Why ${one.title} was found`, () => explain(one));
  const link = /^https?:\/\//i.test(String(one.url ?? ""));
  const name = element(link ? "a" : "button", link ? { href: one.url } : { type: "button", class: "title" }, one.title);
  name.addEventListener("click", () => report(one));
  const title = element("h3", {}, name);
  return element("li", { class: picture.length ? "hit" : "hit bare" }, ...picture,
    element("div", {}, title, element("p", {}, said), element("p", {}, ...price)), why);
}

function report(one) {
  if (state.q) ask("POST", "/clicks", { query: state.q, product_id: one.product_id }).catch(() => {});
}

function explain(one) {
  byId("drawer-title").textContent = one.title;
  const codes = (one.codes ?? []).filter((code) => Math.abs(code.share) >= 0.0005).map((code) => element("li", {}, element("span", {}, code.code),
    element("span", { class: "count" }, `${(code.share * 100).toFixed(1)}% · query ${code.query}, product ${code.product}`)));
  byId("drawer-codes").replaceChildren(...(codes.length ? codes : [element("li", {}, "None: words and vectors found it.")]));
  const features = Object.entries(one.features ?? {}).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const most = Math.max(0.001, ...features.map(([, part]) => Math.abs(part)));
  const meter = (name, value) => element("meter", { class: name, max: String(most), value: String(Math.max(0, value)), "aria-hidden": "true" });
  byId("drawer-features").replaceChildren(...features.map(([name, part]) => element("li", {}, element("span", {}, name),
    meter("against", -part), meter("for", part), element("span", { class: "count" }, part.toFixed(2)))));
  openCodes(one.product_id, () => search());
  byId("drawer").showModal();
}

// While a field is filtered its other values stay to choose from, as they were before.
const unfiltered = new Map();

function facet(name, values, ranges) {
  if (!state.filters.some((filter) => filter.startsWith(quote(name)))) unfiltered.set(name, [values, ranges]);
  else [values, ranges] = unfiltered.get(name) ?? [values, ranges];
  const part = (r, i) => `${quote(name)} >= ${r.from} AND ${quote(name)} ${i + 1 < ranges.length ? "<" : "<="} ${r.to}`; // no product is in two
  const choices = ranges ? ranges.map((r, i) => [`${r.from} to ${r.to}`, r.count, part(r, i)])
    : Object.entries(values).slice(0, 8).map(([value, count]) => [value, count, `${quote(name)} = ${quote(value)}`]);
  if (!choices.length) return null;
  return element("fieldset", {}, element("legend", {}, name), ...choices.map(([text, count, filter]) => {
    const box = element("input", { type: "checkbox", "data-filter": filter });
    box.checked = state.filters.includes(filter);
    box.addEventListener("change", () => toggle(filter));
    return element("label", {}, box, element("span", {}, text), element("span", { class: "count" }, String(count)));
  }), ...(ranges ? [bounds(name)] : []));
}

// A number field's least and greatest value, in place of what it was filtered by.
function bounds(name) {
  const field = quote(name), own = state.filters.filter((filter) => filter.startsWith(`${field} `));
  const [, low, high] = own.length === 1 ? /BETWEEN (\S+) AND (\S+)$/.exec(own[0]) ?? [0, />= (\S+)/.exec(own[0])?.[1], /<=? (\S+)$/.exec(own[0])?.[1]] : [];
  const inputs = [["from", low], ["to", high]].map(([word, value]) => element("input",
    { type: "number", step: "any", value: value ?? "", placeholder: word, "aria-label": `${name} ${word}`, "data-filter": `${field} ${word}` }));
  const change = () => {
    const [from, to] = inputs.map((input) => input.value);
    const filter = from && to ? `${field} BETWEEN ${from} AND ${to}` : from ? `${field} >= ${from}` : to ? `${field} <= ${to}` : "";
    state.filters = [...state.filters.filter((one) => !own.includes(one)), ...(filter ? [filter] : [])];
    state.limit = LIMIT;
    search("sent");
  };
  inputs.forEach((input) => input.addEventListener("change", change));
  return element("div", { class: "row" }, ...inputs);
}

function toggle(filter) {
  state.filters = state.filters.includes(filter) ? state.filters.filter((one) => one !== filter) : [...state.filters, filter];
  state.limit = LIMIT;
  search("sent");
}

async function suggest() {
  suggesting?.abort();
  suggesting = new AbortController();
  try {
    const { suggestions } = await ask("GET", `/suggest?q=${encodeURIComponent(byId("q").value)}`, undefined, suggesting.signal);
    const items = suggestions.slice(0, 8).map(({ text }, i) => {
      const item = element("li", { role: "option", id: `suggestion-${i}`, "aria-selected": "false" }, text);
      item.addEventListener("pointerdown", (event) => { event.preventDefault(); take(text); });
      return item;
    });
    chosen = -1;
    byId("suggestions").replaceChildren(...items);
    open(items.length > 0 && document.activeElement === byId("q"));
  } catch { open(false); }
}

function open(shown) {
  byId("suggestions").hidden = !shown;
  byId("q").setAttribute("aria-expanded", String(shown));
  if (!shown) byId("q").removeAttribute("aria-activedescendant");
}

function take(text) {
  byId("q").value = text;
  submit();
}

function submit() {
  clearTimeout(timer);
  suggesting?.abort();
  open(false);
  Object.assign(state, { q: byId("q").value.trim(), limit: LIMIT, filters: [] });
  search("sent");
}

byId("q").addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(() => {
    suggest();
    Object.assign(state, { q: byId("q").value.trim(), limit: LIMIT, filters: [] });
    search("typed");
  }, 180);
});
byId("q").addEventListener("keydown", (event) => {
  const items = [...byId("suggestions").children];
  if (event.key === "Escape") open(false);
  if (!["ArrowDown", "ArrowUp"].includes(event.key) || !items.length) return;
  event.preventDefault();
  open(true);
  chosen = (chosen + (event.key === "ArrowDown" ? 1 : -1) + items.length) % items.length;
  items.forEach((item, i) => item.setAttribute("aria-selected", String(i === chosen)));
  byId("q").setAttribute("aria-activedescendant", items[chosen].id);
});
byId("q").addEventListener("blur", () => open(false));
byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const item = byId("suggestions").children[chosen];
  if (item && !byId("suggestions").hidden) take(item.textContent); else submit();
});
byId("sort").addEventListener("change", () => { state.sort = byId("sort").value; search("sent"); });
byId("more").addEventListener("click", () => { state.limit += LIMIT; search(); });
byId("close").addEventListener("click", () => byId("drawer").close());
for (const [name, other] of [["search", "team"], ["team", "search"]]) {
  byId(`view-${name}`).addEventListener("click", () => {
    byId("shop").hidden = name === "team";
    byId("team").hidden = name !== "team";
    byId(`view-${name}`).setAttribute("aria-pressed", "true");
    byId(`view-${other}`).setAttribute("aria-pressed", "false");
    if (name === "team") openTeam();
  });
}
addEventListener("popstate", () => { readAddress(); search(); });
readAddress();
search();
