// What the page's parts share: elements made of text, and questions to the service.
export const byId = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...inside.map((part) => (part instanceof Node ? part : document.createTextNode(String(part)))));
  return made;
}

export async function ask(method, path, body, signal, typing = false) {
  const headers = typing ? { "X-Typing": "1" } : {};
  const key = sessionStorage.getItem("key");
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const address = new URL(`..${path}`, import.meta.url);  // wherever a proxy puts the service
  const response = await fetch(address, { method, headers, signal, keepalive: path === "/clicks", body: body === undefined ? undefined : JSON.stringify(body) });
  const answer = await response.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    return { error: { message: `The service answered ${response.status}.` } };
  });
  if (!response.ok) throw Object.assign(new Error(answer.error.message), { fix: answer.error.fix, status: response.status });
  return answer;
}
