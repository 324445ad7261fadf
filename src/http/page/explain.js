// What is asked for: a destination as a decision, a peer, or names that are similar.

import { clock, count, duration, facts, h, number, svg } from "./dom.js";

const NAMES_MAX = 16;
const SOURCES = {
  static: "originated here", kernel: "learned from the kernel", direct: "a network of our own",
  vrf: "imported from another VRF", bgp: "from a removed peer",
};
const against = (a, b, absent) => `${a ?? absent} against ${b ?? absent}`;

// The step that ranked `worse` below `better`: as `margay explain` says it.
const step = (better, worse) => ({
  "unusable": () => "the other cannot be used",
  "long-lived-stale": () => "the other is long-lived stale (RFC 9494)",
  "preference": () => "higher preference of its source",
  "local-pref": () => `higher LOCAL_PREF, ${against(better.local_pref, worse.local_pref, 100)}`,
  "local-origin": () => "it is our own",
  "as-path-length": () => `shorter AS_PATH, ${better.as_path.length} against ${worse.as_path.length}`,
  "origin": () => `lower ORIGIN, ${better.origin} against ${worse.origin}`,
  "med": () => `lower MED of one neighbouring AS, ${against(better.med, worse.med, 0)}`,
  "peer-type": () => "external over internal",
  "igp-metric": () => `lower metric to the next hop, ${against(better.igp_metric, worse.igp_metric, 0)}`,
  "vantage-cost": () => `lower cost from the vantage, ${against(better.vantage_cost, worse.vantage_cost, 0)}`,
  "router-id": () => "lower BGP Identifier (or ORIGINATOR_ID)",
  "cluster-list-length": () => `shorter CLUSTER_LIST, ${better.cluster_list.length} against ${worse.cluster_list.length}`,
  "peer-address": () => "lower address of the peer",
  "path-id": () => `lower path id, ${better.path_id} against ${worse.path_id}`,
}[worse.reason] ?? (() => worse.reason))();

const gateways = (list) => list.map((g) => `${g.via ? g.via + " " : ""}on ${g.interface}`).join(", ");
const asPath = (parts) => parts.map((part) => (Array.isArray(part) ? `{${part.join(" ")}}` : part)).join(" ") || "empty";

const candidate = (path, open) => {
  const [word, look] = path.unusable ? ["unusable", "bad"] : path.best ? ["best", "good"]
    : path.multipath ? ["used beside the best", "good"] : ["not used", "muted"];
  const from = path.peer ? h("button", { class: "plain", type: "button", onclick: () => open(path.peer) }, path.peer)
    : h("span", { class: "from" }, SOURCES[path.source] ?? path.source);
  const stale = path.long_lived ? "long-lived stale" : path.stale ? "kept while its peer restarts" : "";
  return h("div", { class: path.best && !path.unusable ? "box best" : path.unusable ? "box lost" : "box" },
    h("h3", {}, from, h("span", { class: look }, word)),
    facts([
      ["why", path.unusable], ["state", stale],
      ["next hop", path.next_hop && `${path.next_hop}${path.gateway.length ? ", " + gateways(path.gateway) : path.unusable ? "" : ", not resolved"}`],
      ["AS path", path.source === "bgp" ? asPath(path.as_path) : null],
      ["local pref", path.local_pref === null ? null : String(path.local_pref)],
      ["MED", path.med === null ? null : String(path.med)],
      ["communities", [...path.communities, ...path.large_communities, ...path.extended_communities].join(" ")],
      ["BFD", path.bfd], ["received", `${duration(path.age_seconds)} ago`],
    ]));
};

const names = (list, open) => h("p", { class: "names" },
  list.slice(0, NAMES_MAX).map((name) => h("button", { class: "plain", type: "button", onclick: () => open(name) }, name)),
  list.length > NAMES_MAX ? h("span", { class: "muted" }, `and ${count(list.length - NAMES_MAX, "more", "more")}`) : "");

const grouped = (list, key) => {
  const groups = new Map();
  for (const entry of list) groups.set(entry[key], [...(groups.get(entry[key]) ?? []), entry.peer]);
  return [...groups];
};

const kernel = (e) => {
  const fib = e.fib;
  const state = fib ? fib.state ?? "not written" : "none";
  const look = state === "installed" ? "good" : ["failed", "foreign"].includes(state) ? "bad" : "muted";
  return h("div", { class: "box" }, h("h3", {}, "Kernel", h("span", { class: look }, state)), facts([
    ["why", fib ? fib.error : e.fib_absent],
    ["route", fib && (fib.kind === "unicast" ? gateways(fib.gateways) : fib.kind)],
    ["table", fib?.table === null || !fib ? null : `${fib.table}, metric ${fib.metric}`],
    ["packets", e.kernel && forwarding(e.kernel)],
  ]));
};

const forwarding = (k) => {
  if (k.error) return `not known: ${k.error}`;
  if (!k.prefix) return k.kind ? `dropped: ${k.kind}` : `no route to ${k.address}`;
  const owner = k.ours ? "ours" : `of ${k.protocol ?? "another process"}`;
  return `to ${k.address} go by ${k.prefix}${k.gateways.length ? " " + gateways(k.gateways) : ""}, ${owner}`;
};

const told = (e, open) => {
  const groups = grouped(e.advertised, "next_hop").map(([hop, peers]) => [h("p", { class: "note" }, `next hop ${hop}`), names(peers, open)]);
  const kept = grouped(e.withheld, "rule").map(([rule, peers]) => [h("p", { class: "note" }, `withheld: ${rule}`), names(peers, open)]);
  return h("div", { class: "box" }, h("h3", {}, "Advertised",
    h("span", { class: "muted" }, `to ${count(e.advertised.length, "peer")}`)), groups, kept);
};

const arrow = () => svg("svg", { class: "arrow", viewBox: "0 0 40 24", "aria-hidden": "true", preserveAspectRatio: "xMidYMid meet" },
  svg("path", { d: "M4 12h32M30 6l6 6-6 6" }));

const head = (title, note, close) => h("div", { class: "title" },
  h("h2", { id: "answer-title", tabindex: "-1" }, title, note ? h("small", {}, `  ${note}`) : ""),
  h("button", { type: "button", onclick: close }, "Close"));

export const explanation = (e, asked, open, close) => {
  const candidates = e.paths.flatMap((path, at) => at === 0 ? [candidate(path, open)] : [
    h("p", { class: at === 1 ? "step decides" : "step" }, at === 1 ? `wins: ${step(e.paths[0], path)}` : `before the next: ${step(e.paths[at - 1], path)}`),
    candidate(path, open)]);
  const longest = e.prefix !== asked && !asked.includes("/") ? `longest match of ${asked}` : "";
  return [head(e.prefix, [count(e.paths.length, "candidate"), longest].filter(Boolean).join(", "), close),
    e.objects.map((object) => h("p", { class: "note" }, object)),
    h("div", { class: "flow" },
      h("div", {}, candidates.length ? candidates : h("p", { class: "muted" }, "no path")), arrow(),
      h("div", { class: "outcome" }, kernel(e), told(e, open)))];
};

const both = (peer, key) => ["ipv4", "ipv6"].filter((family) => peer.families.includes(family))
  .map((family) => `${number(peer.prefixes[family][key])} ${family === "ipv4" ? "IPv4" : "IPv6"}`).join(", ");

export const peer = (p, close) => [head(p.name, p.description ?? "", close),
  h("div", { class: "flow" },
    h("div", { class: "box" }, h("h3", {}, "Session", h("span", { class: p.state === "Established" ? "good" : "bad" }, p.state)), facts([
      ["for", duration(p.state_seconds)], ["address", p.address], ["interface", p.interface],
      ["AS", p.remote_asn ? `${p.remote_asn}, ${p.peer_type}` : p.remote_asn_accepted], ["router id", p.router_id],
      ["VRF", p.vrf], ["object", p.object], ["hold time", `${p.hold_time} s`], ["BFD", p.bfd],
      ["shut down", p.shutdown && (p.shutdown.message || "by an operator")],
      ["drained", p.drained && (p.drained.reason || "yes")],
      ["last failure", p.last_error && `${p.last_error.text} (${clock(p.last_error.at)} UTC)`],
    ])), h("span", {}),
    h("div", { class: "box" }, h("h3", {}, "Routes"), facts([
      ["received", both(p, "received")], ["accepted", both(p, "accepted")], ["advertised", both(p, "advertised")],
      ["limit", p.prefixes_max && number(p.prefixes_max)], ["import", p.import], ["export", p.export],
      ["UPDATEs", `${number(p.messages.updates_received)} in, ${number(p.messages.updates_sent)} out`],
    ]))),
  p.events?.length ? [h("p", { class: "note" }, "Its last events, UTC"), h("ol", { class: "rows" }, p.events.slice().reverse().map((e) =>
    h("li", {}, h("span", {}, h("time", { class: "muted", datetime: e.at }, clock(e.at)), "  ", e.text))))] : ""];

export const similar = (query, found, total, open, close) => [head(query, found.length ? count(total, "peer") : "", close),
  found.length ? names(found, open) : h("p", { class: "muted" }, "There is no such peer, and it is not a prefix or an address.")];

export const failure = (query, text, close) => [head(query, "", close), h("p", {}, text)];
