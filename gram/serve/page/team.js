// For the team: rules with a draft that is tried before it is published, and what searchers ask.
import { ask, byId, element } from "./tools.js";

const form = byId("rule");

function draft() {
  const given = Object.fromEntries(new FormData(form));
  const rule = { action: given.action };
  for (const name of ["query", "code", "filter", "target"]) if (given[name].trim()) rule[name] = given[name].trim();
  if (given.products.trim()) rule.products = given.products.split(",").map((id) => id.trim()).filter(Boolean);
  if (given.action === "boost") rule.weight = Number(given.weight);
  for (const name of ["from", "until"]) if (given[name].trim()) rule[name] = given[name].trim();
  if (given.draft) rule.draft = true;
  return { id: given.id.trim(), rule, sample: given.sample.trim() || given.query.trim() };
}

function say(text) { byId("rule-status").textContent = text; }

const tell = (error) => say(`${error.message}${error.fix ? ` — ${error.fix}` : ""}`);

async function list() {
  const { rules } = await ask("GET", "/rules");
  byId("rules").replaceChildren(...Object.entries(rules).map(([id, rule]) => {
    const edit = element("button", { type: "button" }, "Edit"), remove = element("button", { type: "button" }, "Delete");
    edit.addEventListener("click", () => {
      form.reset();
      for (const [name, value] of Object.entries({ id, ...rule })) {
        if (name === "draft") form.elements.draft.checked = value;
        else if (form.elements[name]) form.elements[name].value = value;
      }
    });
    remove.addEventListener("click", () => ask("DELETE", `/rules/${encodeURIComponent(id)}`).then(list).catch(tell));
    return element("li", {}, element("span", {}, `${id}: ${JSON.stringify(rule)}`), edit, remove);
  }));
}

async function stats() {
  const found = await ask("GET", "/stats");
  byId("latency").textContent = `${found.searches} searches since the start; of the last ${found.timed} half within ${found.took_ms.p50} ms, 99 in 100 within ${found.took_ms.p99} ms`;
  for (const [id, rows] of [["top", found.top], ["without-hits", found.without_hits], ["without-clicks", found.without_clicks]]) {
    byId(id).replaceChildren(...rows.slice(0, 20).map(([query, count]) => element("li", {}, `${query} (${count})`)));
  }
}

export function openTeam() {
  byId("key").value = sessionStorage.getItem("key") ?? "";
  list().catch(tell);
  stats().catch(tell);
}

byId("key").addEventListener("change", () => { sessionStorage.setItem("key", byId("key").value.trim()); openTeam(); });
byId("try").addEventListener("click", async () => {
  const { id, rule, sample } = draft();
  try {
    const { before, after, warnings } = await ask("POST", "/rules/try", { q: sample, rules: [{ id: id || "draft", ...rule, draft: false }] });
    byId("tried").hidden = false;
    for (const [name, answer] of [["before", before], ["after", after]]) {
      byId(name).replaceChildren(...answer.hits.map((hit) => element("li", {}, hit.title)));
    }
    const applying = after.rules.length ? `These rules apply to “${sample}”: ${after.rules.join(", ")}.` : `No rule applies to “${sample}”.`;
    say([applying, ...warnings].join(" "));
  } catch (error) { tell(error); }
});
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { id, rule } = draft();
  try {
    const { warnings } = await ask("PUT", `/rules/${encodeURIComponent(id)}`, rule);
    say([`Published ${id}.`, ...warnings].join(" "));
    await list();
  } catch (error) { tell(error); }
});
