// The codes of one product in its drawer: all of them, each to be taken away, and a new one to be given.
import { ask, byId, element } from "./tools.js";

let shown = null, changed = () => {};

const path = () => `/products/${encodeURIComponent(shown)}/codes`;

async function list() {
  const asked = shown, { codes, taken } = await ask("GET", path());
  if (asked !== shown) return;  // another product's drawer was opened meanwhile
  const row = (code, said, word, method) => {
    const act = element("button", { type: "button", "aria-label": `${word} ${code}` }, word);
    act.addEventListener("click", () => edit(method, code));
    return element("li", {}, element("span", {}, code), element("span", { class: "count" }, said), act);
  };
  byId("own-codes").replaceChildren(...codes.map(({ code, source, weight }) => row(code, `${source} ${weight.toFixed(2)}`, "Take away", "DELETE")),
    ...taken.map((code) => row(code, "taken away", "Give", "PUT")));
}

async function edit(method, code) {
  const asked = shown, at = code.indexOf(":");
  const parts = [code.slice(0, at), code.slice(at + 1)].map((part) => encodeURIComponent(part.trim()));
  try {
    if (at < 1) throw new Error("Write a code as slot: value, such as type: sofa.");
    await ask(method, `${path()}/${parts.join("/")}`);
    if (asked === shown) {
      byId("codes-status").textContent = `${code} is ${method === "PUT" ? "given" : "taken away"}.`;
      byId("give").reset();
      await list();
      byId("give").elements.code.focus();
    }
    changed();
  } catch (error) { if (asked === shown) tell(error); }
}

const tell = (error) => { byId("codes-status").textContent = `${error.message}${error.fix ? ` — ${error.fix}` : ""}`; };

// `then` is called when a code was given or taken away.
export function openCodes(productId, then) {
  [shown, changed] = [productId, then];
  byId("codes").open = false;
  byId("own-codes").replaceChildren();
  byId("codes-status").textContent = "";
}

byId("codes").addEventListener("toggle", () => {
  const asked = shown;
  if (byId("codes").open) list().catch((error) => { if (asked === shown) tell(error); });
});
byId("give").addEventListener("submit", (event) => {
  event.preventDefault();
  edit("PUT", byId("give").elements.code.value);
});
