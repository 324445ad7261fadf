// Elements and texts. Everything that comes from the daemon becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

const fill = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(4).filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
};

export const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Replaces the children only if `key` differs, so that focus and selection stay while nothing changes.
const shown = new WeakMap();
export const show = (node, key, make) => {
  const text = JSON.stringify(key);
  if (shown.get(node) === text) return;
  shown.set(node, text);
  node.replaceChildren(...[make()].flat(2).filter(Boolean));
};

const grouped = new Intl.NumberFormat("en-US");
export const number = (n) => grouped.format(n);
export const rate = (n) => (n === 0 || n >= 10 ? number(Math.round(n)) : n.toFixed(1));
export const count = (n, one, many = one + "s") => `${number(n)} ${n === 1 ? one : many}`;

export const duration = (seconds) => {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const at = parts.findIndex(([unit]) => seconds >= unit);
  if (at < 0) return "0 s";
  const [unit, name] = parts[at];
  const rest = parts[at + 1];
  const more = rest ? Math.floor((seconds % unit) / rest[0]) : 0;
  return `${Math.floor(seconds / unit)} ${name}` + (more > 0 ? ` ${more} ${rest[1]}` : "");
};

// `2026-11-30T17:03:21Z` to `17:03:21`, with the day if it is another one.
export const clock = (text, today = new Date().toISOString().slice(0, 10)) => {
  const [day, time] = [text.slice(0, 10), text.slice(11, 19)];
  return day === today ? time : `${day} ${time}`;
};

export const facts = (pairs) =>
  h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
