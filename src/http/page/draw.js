// Pictures: sessions as cells, and plots.

import { $, count, h, number, rate, show, svg } from "./dom.js";

// What a state looks like. The lightness differs as well as the hue.
const LOOKS = {
  Established: { look: "up", text: "established" },
  OpenSent: { look: "try", text: "connecting" },
  OpenConfirm: { look: "try", text: "connecting" },
  Connect: { look: "try", text: "connecting" },
  Active: { look: "down", text: "down" },
  Idle: { look: "down", text: "down" },
  off: { look: "off", text: "shut down" },
};
// Up to so many sessions of a kind are shown by name.
const NAMED_MAX = 24;
const collator = new Intl.Collator("en", { numeric: true });

const cellsOf = (kind, off) => {
  const cells = [];
  for (const [state, names] of Object.entries(kind.states))
    for (const name of names) cells.push({ name, state, look: (off.has(name) ? LOOKS.off : LOOKS[state] ?? LOOKS.Idle).look });
  return cells.sort((a, b) => collator.compare(a.name, b.name));
};

export const swatch = (look) => h("span", { class: `swatch ${look}`, "aria-hidden": "true" });

const stateText = (cell) => (cell.look === "off" ? "shut down" : cell.state);

const chips = (cells, open) => h("ul", { class: "chips" }, cells.map((cell) => h("li", {},
  swatch(cell.look), h("button", { class: "plain", type: "button", onclick: () => open(cell.name) }, cell.name),
  h("small", { class: cell.look === "up" ? "unseen" : "" }, stateText(cell)))));

// Draws a canvas of cells; returns what finds the cell at a point.
const paint = (canvas, cells, chosen) => {
  const width = canvas.clientWidth;
  if (width === 0) return null;
  const [size, gap] = cells.length <= 200 ? [14, 3] : cells.length <= 1500 ? [10, 2] : [6, 2];
  const columns = Math.max(1, Math.floor((width + gap) / (size + gap)));
  const height = Math.ceil(cells.length / columns) * (size + gap);
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.style.height = `${height}px`;
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const colours = { up: colour("--cell-up"), try: colour("--cell-try"), down: colour("--cell-down"), off: colour("--cell-off") };
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  cells.forEach((cell, at) => {
    const [x, y] = [(at % columns) * (size + gap), Math.floor(at / columns) * (size + gap)];
    pen.fillStyle = pen.strokeStyle = colours[cell.look];
    if (cell.look === "off") {
      pen.lineWidth = 1.5;
      pen.strokeRect(x + 0.75, y + 0.75, size - 1.5, size - 1.5);
    } else pen.fillRect(x, y, size, size);
    if (at === chosen) {
      pen.strokeStyle = colour("--ink");
      pen.lineWidth = 2;
      pen.strokeRect(x - 1, y - 1, size + 2, size + 2);
    }
  });
  const find = (x, y) => {
    const [column, row] = [Math.floor(x / (size + gap)), Math.floor(y / (size + gap))];
    const at = row * columns + column;
    return column < columns && at >= 0 && at < cells.length ? at : -1;
  };
  const place = (at) => [(at % columns) * (size + gap) + size, Math.floor(at / columns) * (size + gap) + size];
  return { columns, find, place };
};

const tip = (cell, x, y) => {
  const node = $("tip");
  node.hidden = !cell;
  if (!cell) return;
  node.textContent = `${cell.name}, ${stateText(cell)}`;
  const left = Math.max(4, Math.min(x + 10, window.innerWidth - node.offsetWidth - 8));
  const top = y + 14 + node.offsetHeight > window.innerHeight ? y - 8 - node.offsetHeight : y + 14;
  node.style.transform = `translate(${left}px, ${top}px)`;
};

// A picture of many sessions: pointer and arrow keys name a session, click and Enter open it.
const picture = (kind, cells, open) => {
  let [chosen, grid] = [-1, null];
  const label = `${kind}: ${count(cells.length, "session")}. Arrow keys name one, Enter opens it.`;
  const canvas = h("canvas", { tabindex: "0", role: "application", "aria-label": label });
  const draw = () => { grid = paint(canvas, cells, chosen); };
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return grid ? grid.find(event.clientX - box.left, event.clientY - box.top) : -1;
  };
  canvas.addEventListener("pointermove", (event) => tip(cells[at(event)], event.clientX, event.clientY));
  canvas.addEventListener("pointerleave", () => tip(null));
  canvas.addEventListener("click", (event) => { const cell = cells[at(event)]; if (cell) open(cell.name); });
  canvas.addEventListener("blur", () => { chosen = -1; tip(null); draw(); });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: grid?.columns, ArrowUp: -(grid?.columns ?? 0), Home: -cells.length, End: cells.length };
    if (event.key === "Enter" && chosen >= 0) return open(cells[chosen].name);
    if (event.key === "Escape") return tip(null);
    if (!(event.key in steps) || !grid) return;
    event.preventDefault();
    chosen = Math.max(0, Math.min(cells.length - 1, (chosen < 0 ? 0 : chosen + steps[event.key])));
    draw();
    const box = canvas.getBoundingClientRect();
    const [x, y] = grid.place(chosen);
    tip(cells[chosen], box.left + x, box.top + y);
  });
  return { canvas, draw };
};

let pictures = [];
export const redraw = () => pictures.forEach((picture) => picture.draw());

export const sessions = (overview, open) => {
  const off = new Set(overview.shut_down);
  show($("kinds"), [overview.kinds, overview.shut_down], () => {
    pictures = [];
    if (overview.kinds.length === 0) return h("p", { class: "muted" }, "No peer is configured.");
    return overview.kinds.map((kind) => {
      const cells = cellsOf(kind, off);
      const up = cells.filter((cell) => cell.look === "up").length;
      const section = h("div", { class: "kind" }, h("h3", {}, kind.kind.replaceAll("-", " "),
        h("span", {}, `${number(up)} of ${number(cells.length)} established`)));
      if (cells.length <= NAMED_MAX) section.append(chips(cells, open));
      else {
        const drawn = picture(kind.kind, cells, open);
        pictures.push(drawn);
        section.append(drawn.canvas);
      }
      return section;
    });
  });
  const looks = [["up", "established"], ["try", "connecting"], ["down", "down"], ["off", "shut down"]];
  show($("legend"), "fixed", () => looks.map(([look, text]) => h("li", {}, swatch(look), text)));
  redraw();
};

const ceiling = (most) => {
  if (most <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  const steps = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12].map((step) => step * power);
  return steps.find((step) => step >= most * 1.05) ?? steps.at(-1);
};

// Lines from the oldest value, at the left, to now. What is not recorded yet is empty.
const plot = ({ title, lines, per, unit }) => {
  const [width, height] = [180, 60];
  const values = lines.flatMap((line) => line.values);
  const most = ceiling(Math.max(0, ...values) / per);
  const points = (list) => list.map((value, at) =>
    `${width - (list.length - at) + 0.5},${(height - (value / per / most) * height).toFixed(2)}`);
  const drawn = lines.flatMap(({ values, second }) => {
    if (values.length === 0) return [];
    const line = points(values);
    const area = `${line[0].split(",")[0]},${height} ${line.join(" ")} ${width - 0.5},${height}`;
    return [second ? null : svg("polygon", { class: "area", points: area }),
      svg("polyline", { class: second ? "line second" : "line", points: line.join(" ") })];
  });
  const last = (line) => (line.values.length ? (unit ? rate : number)(line.values.at(-1) / per) : "–");
  const measure = unit ? ` ${unit}` : "";
  const described = lines.map((line) => `${line.name ? line.name + " " : ""}${last(line)}`).join(", ") + measure;
  const name = (line) => (line.name ? h("span", { class: "label" }, h("span", { class: line.second ? "key second" : "key" }), `${line.name} `) : "");
  return h("div", { class: "plot" },
    h("div", { class: "head" }, h("h3", {}, title), h("span", { class: "now" }, lines.map((line, at) =>
      [at > 0 ? "  " : "", name(line), last(line)]), measure)),
    svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img",
      "aria-label": `${title}: ${described}; drawn from 0 to ${number(most)}` },
      svg("line", { class: "grid", x1: 0, x2: width, y1: 0, y2: 0 }),
      svg("line", { class: "grid", x1: 0, x2: width, y1: height, y2: height }), drawn.filter(Boolean)),
    h("div", { class: "axis" }, h("span", {}, "−15 min"), h("span", {}, `0 to ${number(most)}${measure}`), h("span", {}, "now")));
};

export const plots = (rates) => {
  show($("plots"), rates, () => {
    if (!rates) return h("p", { class: "muted" }, "Nothing is recorded yet.");
    const per = rates.interval_seconds;
    return [
      { title: "Established sessions", lines: [{ values: rates.established }], per: 1, unit: "" },
      { title: "Prefixes", lines: [{ values: rates.destinations }], per: 1, unit: "" },
      { title: "Route changes", lines: [{ values: rates.route_changes }], per, unit: "/s" },
      { title: "UPDATEs", lines: [{ name: "in", values: rates.updates_received },
        { name: "out", values: rates.updates_sent, second: true }], per, unit: "/s" },
    ].map(plot);
  });
};
