// Asks for what has changed every two seconds while the page is seen, and shows it. Nothing is kept from
// one answer to the next but its version: a tab that stays open does not grow.

import { $, clock, count, duration, h, number, show } from "./dom.js";
import { plots, redraw, sessions } from "./draw.js";
import { explanation, failure, peer, similar } from "./explain.js";

const EVERY = 2000;
const SLOWEST = 15000;
const known = new Map();
let token = sessionStorage.getItem("margay-token");
let lastAnswer = null;
let delay = EVERY;
let timer = 0;
let asked = 0;
let polling = false;

class Refused extends Error {
  constructor(status, error) {
    super(error?.text ?? `status ${status}`);
    this.status = status;
  }
}

// An answer, or `undefined` if it is the one that is shown already.
const ask = async (path, wait = 12000) => {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  if (known.has(path)) headers["if-none-match"] = known.get(path);
  const response = await fetch(`api/${path}`, { headers, cache: "no-store", credentials: "omit", redirect: "error", signal: AbortSignal.timeout(wait) });
  if (response.status === 304) return undefined;
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new Refused(response.status, body?.error);
  const version = response.headers.get("etag");
  if (version) known.set(path, version);
  return body;
};

const problemsOf = (s, overview) => {
  const list = [];
  const add = (name, text, look = "bad") => list.push({ name, text, look });
  if (s.not_ready) add("Not ready", s.not_ready);
  if (s.reload_refused) add("Reload refused", s.reload_refused.text);
  if (s.reload_unconfirmed) add("Reload", "is to be confirmed, or was undone: margay show status", "warn");
  for (const text of s.problems) add("Problem", text);
  if (s.held_back) add("Held back", s.held_back, "warn");
  if (s.fib.failed) add("Kernel", `${count(s.fib.failed, "route")} rejected: margay show fib`);
  if (s.fib.foreign) add("Kernel", `${count(s.fib.foreign, "route")} not installed because of another process's`, "warn");
  for (const source of s.calico?.sources ?? [])
    if (source.state !== "current") add("Datastore", `${source.name}: ${source.error ?? source.state}`);
  for (const problem of (s.calico?.problems ?? []).slice(0, 10)) add(problem.object, problem.text);
  if (s.calico?.problems_count > 10) add("Objects", `${number(s.calico.problems_count - 10)} more: margay calico status`);
  const bfdDown = (overview?.bfd?.Down ?? 0) + (overview?.bfd?.Init ?? 0);
  if (bfdDown) add("BFD", `${count(bfdDown, "session")} not up: margay show bfd`, "warn");
  if (s.drained) add("Drained", s.drained.reason || "every peer (RFC 8326)", "warn");
  else if (s.peers_drained) add("Drained", count(s.peers_drained, "peer"), "warn");
  return list;
};

const verdict = (s, overview) => {
  const off = overview?.shut_down.length ?? 0;
  const wanted = s.peers - off;
  const down = Math.max(0, wanted - s.peers_established);
  const problems = problemsOf(s, overview);
  const look = problems.some((p) => p.look === "bad") || down ? "bad" : problems.length ? "warn" : "good";
  const text = down ? `${count(down, "session")} of ${number(s.peers)} not established`
    : s.peers === 0 ? "No peers" : `All ${count(wanted, "session")} established`;
  const rest = s.not_ready ? "not ready" : problems.length ? count(problems.length, "problem") : "no problems";
  show($("verdict-title"), [look, text, rest], () => [h("span", { class: `dot ${look}`, "aria-hidden": "true" }), `${text}, ${rest}`]);
  if ($("spoken").textContent !== `${text}, ${rest}`) $("spoken").textContent = `${text}, ${rest}`;
  show($("problems"), problems, () => problems.map((p) => h("li", {}, h("b", { class: p.look }, p.name), "  ", p.text)));
  document.title = (down || look === "bad" ? "● " : "") + (s.calico?.node || s.router_id) + " · margay";
};

const figure = (name, value, note, look = "") => [h("dt", {}, name), h("dd", {}, value), h("dd", { class: look }, note)];

const figures = (s, overview) => {
  const sum = (of) => of.ipv4 + of.ipv6;
  const list = [["Sessions", number(s.peers_established), `of ${number(s.peers)}` + (overview?.shut_down.length ? `, ${number(overview.shut_down.length)} shut down` : "")],
    ["Prefixes", number(sum(s.destinations)), `${number(s.destinations.ipv4)} IPv4, ${number(s.destinations.ipv6)} IPv6`],
    ["Paths", number(sum(s.paths)), count(s.attribute_sets, "attribute set")]];
  const f = s.fib;
  if (f.enabled) list.push(["Kernel routes", number(f.installed), f.failed ? `${number(f.failed)} failed` : f.foreign ? `${number(f.foreign)} foreign`
    : f.pending ? `${number(f.pending)} pending` : "none failed", f.failed ? "bad" : f.foreign ? "warn" : ""]);
  else list.push(["Kernel routes", "–", "not installed here (fib.enabled)"]);
  for (const source of s.calico?.sources ?? [])
    list.push(["Datastore", source.state, source.name, source.state === "current" ? "" : "bad"]);
  const bfd = Object.entries(overview?.bfd ?? {});
  if (bfd.length) {
    const all = bfd.reduce((n, [, each]) => n + each, 0);
    const up = overview.bfd.Up ?? 0;
    list.push(["BFD", number(up), `of ${number(all)} up`, up < all ? "bad" : ""]);
  }
  for (const vrf of s.vrfs) list.push([`VRF ${vrf.name}`, number(sum(vrf.destinations)), vrf.table === null ? "no device" : `prefixes, table ${vrf.table}`, vrf.table === null ? "warn" : ""]);
  show($("figures"), list, () => list.map((each) => h("div", {}, figure(...each))));
};

const identity = (s) => {
  show($("node"), s.calico?.node || s.router_id, () => s.calico?.node || s.router_id);
  const parts = [`AS ${s.asn}`, s.calico ? s.router_id : "", `version ${s.version}`, `up ${duration(s.uptime_seconds)}`];
  $("identity").textContent = parts.filter(Boolean).join(" · ");
  const vrfs = s.vrfs.map((vrf) => vrf.name);
  $("vrf").hidden = vrfs.length === 0;
  show($("vrf"), vrfs, () => [h("option", { value: "" }, "default VRF"), ...vrfs.map((name) => h("option", { value: name }, name))]);
};

const downList = (o) => {
  $("down").hidden = o.down.length === 0;
  $("down-title").textContent = o.down_count > o.down.length ? `Not established: ${number(o.down.length)} of ${number(o.down_count)}` : "Not established";
  show($("down-list"), o.down, () => o.down.map((d) => h("li", {},
    h("button", { class: "plain", type: "button", onclick: () => openPeer(d.name) }, d.name),
    h("span", { class: "bad" }, d.state),
    h("span", { class: "muted" }, d.reason ? `${d.reason}, ${clock(d.at)} UTC` : "no attempt has failed"))));
};

const eventList = (list) => show($("events"), list, () => list.length === 0 ? h("li", { class: "muted" }, "No event yet.")
  : list.slice().reverse().map((e) => h("li", {}, h("time", { datetime: e.at }, clock(e.at)),
    h("span", { class: { WARN: "warn", ERROR: "bad" }[e.level] ?? "" }, e.event), h("span", {},
      e.peer ? [h("button", { class: "plain", type: "button", onclick: () => openPeer(e.peer) }, e.peer), "  "] : "", e.text))));

let [status, overview] = [null, null];

const poll = async () => {
  clearTimeout(timer);
  if (document.hidden || polling) return;
  polling = true;
  try {
    // Each is shown before the next is asked for: what is not asked for again has to be seen.
    status = (await ask("status")) ?? status;
    const fresh = await ask("overview");
    overview = fresh ?? overview;
    $("status").hidden = false;
    $("token").hidden = true;
    identity(status);
    verdict(status, overview);
    figures(status, overview);
    if (fresh) {
      sessions(overview, openPeer);
      downList(overview);
    }
    const events = await ask("events");
    if (events) eventList(events);
    const rates = await ask("rates");
    if (rates !== undefined) plots(rates);
    [lastAnswer, delay] = [new Date(), EVERY];
    $("live").textContent = `Live, every ${EVERY / 1000} s. As of ${lastAnswer.toISOString().slice(11, 19)} UTC.`;
    $("live").className = "";
    performance.mark("margay-shown");
  } catch (error) {
    if (error.status === 401) {
      $("token").hidden = false;
      $("status").hidden = true;
      if (token) $("token-text").textContent = "That is not the token. It is in the file that http.token-file names.";
      [token, delay] = [null, SLOWEST];
      sessionStorage.removeItem("margay-token");
      $("live").textContent = "A token is needed.";
      return;
    }
    delay = Math.min(SLOWEST, delay * 2);
    const since = lastAnswer ? `Shown is what was so at ${lastAnswer.toISOString().slice(11, 19)} UTC. ` : "";
    $("live").textContent = `No answer: ${error.message}. ${since}Asking again.`;
    $("live").className = "bad";
  } finally {
    polling = false;
  }
  timer = setTimeout(poll, delay);
};

const close = () => {
  asked += 1;
  $("answer").hidden = true;
  $("answer").replaceChildren();
  $("query").value = "";
  history.replaceState(null, "", location.pathname);
  $("query").focus();
};

const present = (children) => {
  $("answer").replaceChildren(...children.flat(3).filter(Boolean));
  $("answer").hidden = false;
  $("answer-title").focus();
};

const allNames = () => (overview?.kinds ?? []).flatMap((kind) => Object.values(kind.states).flat());
const isDestination = (text) => /^[0-9a-f:.]+(\/\d+)?$/i.test(text) && /[.:]/.test(text);

const look = async (query) => {
  const own = (asked += 1);
  const only = (children) => { if (own === asked) present(children); };
  const explainAt = () => {
    const vrf = $("vrf").value;
    return (vrf ? `vrf/${encodeURIComponent(vrf)}/` : "") + `explain/${encodeURIComponent(query)}`;
  };
  try {
    if (isDestination(query) && !allNames().includes(query)) {
      try {
        return only(explanation(await ask(explainAt()), query, openPeer, close));
      } catch (error) {
        if (error.status !== 404 || query.includes("/")) throw error;
      }
    }
    only(peer(await ask(`peer/${encodeURIComponent(query)}`), close));
  } catch (error) {
    if (error.status === 404 && !isDestination(query)) {
      const found = allNames().filter((name) => name.toLowerCase().includes(query.toLowerCase()));
      return only(similar(query, found, found.length, openPeer, close));
    }
    only(failure(query, error.message, close));
  }
};

const search = (query) => {
  $("query").value = query;
  history.replaceState(null, "", `#${encodeURIComponent(query)}`);
  look(query);
};
const openPeer = (name) => search(name);

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const query = $("query").value.trim();
  if (query) search(query);
});
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token-value").value.trim();
  $("token-value").value = "";
  if (!token) return;
  sessionStorage.setItem("margay-token", token);
  poll();
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && !$("answer").hidden) close(); });
document.addEventListener("visibilitychange", poll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
let resize = 0;
addEventListener("resize", () => { cancelAnimationFrame(resize); resize = requestAnimationFrame(redraw); });
let hashed = "";
try { hashed = decodeURIComponent(location.hash.slice(1)); } catch { /* not ours */ }
poll().then(() => { if (hashed && hashed !== "main") search(hashed); });
