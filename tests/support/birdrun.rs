//! Runs BIRD filters: the oracle for policies.

use std::collections::{BTreeMap, BTreeSet};

use bgp_proto::types::Prefix;

use super::birdcfg::{Config, Expr, SetItem, Stmt};

/// A route as BIRD's filters see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub prefix: Prefix,
    /// `RTS_BGP`, `RTS_STATIC`, `RTS_INHERIT`, `RTS_DEVICE`.
    pub source: &'static str,
    pub ifname: Option<String>,
    pub metric: Option<u32>,
    pub local_pref: Option<u32>,
    pub next_hop: Option<std::net::IpAddr>,
    pub path: Vec<u32>,
    pub communities: BTreeSet<(u32, u32)>,
    pub large: BTreeSet<(u32, u32, u32)>,
    pub preference: Option<u32>,
    pub tunnel: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Undefined,
    Bool(bool),
    Int(u32),
    Text(String),
    Prefix(Prefix),
    Address(std::net::IpAddr),
    Enum(String),
    Tuple(Vec<u32>),
    Communities,
    LargeCommunities,
    Path,
}

/// Runs a filter body; `None` means that it rejected the route.
pub fn run(config: &Config, body: &[Stmt], route: &Route) -> Option<Route> {
    let mut machine = Machine { config, route: route.clone() };
    let accepted =
        machine.run(body, &BTreeMap::new()).expect("a filter ends with accept or reject");
    accepted.then_some(machine.route)
}

struct Machine<'a> {
    config: &'a Config,
    route: Route,
}

type Scope = BTreeMap<String, bool>;

impl Machine<'_> {
    /// `None`: the end of the body was reached.
    fn run(&mut self, body: &[Stmt], scope: &Scope) -> Option<bool> {
        for statement in body {
            let ended = match statement {
                Stmt::Accept => Some(true),
                Stmt::Reject => Some(false),
                Stmt::If(condition, yes, no) => {
                    let branch = if self.truth(condition, scope) { yes } else { no };
                    self.run(branch, scope)
                }
                Stmt::Assign(name, value) => {
                    let value = self.value(value, scope);
                    self.assign(name, value);
                    None
                }
                Stmt::Call(name, args) => self.call(name, args, scope),
            };
            if ended.is_some() {
                return ended;
            }
        }
        None
    }

    fn call(&mut self, name: &str, args: &[Expr], scope: &Scope) -> Option<bool> {
        let values: Vec<Value> = args.iter().map(|a| self.value(a, scope)).collect();
        match (name, values.as_slice()) {
            ("bgp_community.add", [Value::Tuple(t)]) => {
                self.route.communities.insert((t[0], t[1]));
            }
            ("bgp_large_community.add", [Value::Tuple(t)]) => {
                self.route.large.insert((t[0], t[1], t[2]));
            }
            ("bgp_path.prepend", [Value::Int(asn)]) => self.route.path.insert(0, *asn),
            _ => {
                let function = self.config.functions.get(name);
                let function = function.unwrap_or_else(|| panic!("no function {name}"));
                assert_eq!(function.params.len(), values.len(), "arguments of {name}");
                let truth = |v: &Value| *v == Value::Bool(true);
                let inner = function.params.iter().cloned().zip(values.iter().map(truth)).collect();
                return self.run(&function.body, &inner);
            }
        }
        None
    }

    fn assign(&mut self, name: &str, value: Value) {
        let route = &mut self.route;
        match (name, value) {
            ("krt_metric", Value::Int(n)) => route.metric = Some(n),
            ("bgp_local_pref", Value::Int(n)) => route.local_pref = Some(n),
            ("preference", Value::Int(n)) => route.preference = Some(n),
            ("krt_tunnel", Value::Text(t)) => route.tunnel = Some(t).filter(|t| !t.is_empty()),
            (name, value) => panic!("cannot assign {value:?} to {name}"),
        }
    }

    fn truth(&self, expr: &Expr, scope: &Scope) -> bool {
        match self.value(expr, scope) {
            Value::Bool(truth) => truth,
            other => panic!("{expr:?} is {other:?}"),
        }
    }

    fn name(&self, name: &str, scope: &Scope) -> Value {
        let route = &self.route;
        let int = |n: Option<u32>| n.map_or(Value::Undefined, Value::Int);
        match name {
            "net" => Value::Prefix(route.prefix),
            "source" => Value::Enum(route.source.to_owned()),
            // As observed with BIRD 1.6.8: a route without an interface has the empty name, which
            // "*" matches.
            "ifname" => Value::Text(route.ifname.clone().unwrap_or_default()),
            "krt_metric" => int(route.metric),
            "bgp_local_pref" => int(route.local_pref),
            "bgp_next_hop" => route.next_hop.map_or(Value::Undefined, Value::Address),
            "bgp_community" => Value::Communities,
            "bgp_large_community" => Value::LargeCommunities,
            "bgp_path" => Value::Path,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ if name.starts_with("RTS_") => Value::Enum(name.to_owned()),
            _ => Value::Bool(*scope.get(name).unwrap_or_else(|| panic!("unknown name {name}"))),
        }
    }

    fn value(&self, expr: &Expr, scope: &Scope) -> Value {
        match expr {
            Expr::Int(n) => Value::Int(*n),
            Expr::Text(t) => Value::Text(t.clone()),
            Expr::Prefix(p) => Value::Prefix(p.parse().unwrap_or_else(|e| panic!("{e}"))),
            Expr::Name(name) => self.name(name, scope),
            Expr::Tuple(t) => Value::Tuple(t.clone()),
            Expr::Defined(name) => Value::Bool(self.name(name, scope) != Value::Undefined),
            Expr::Not(inner) => Value::Bool(!self.truth(inner, scope)),
            Expr::Binary("&&", a, b) => Value::Bool(self.truth(a, scope) && self.truth(b, scope)),
            Expr::Binary("||", a, b) => Value::Bool(self.truth(a, scope) || self.truth(b, scope)),
            Expr::Binary("~", a, b) => Value::Bool(self.matches(a, b, scope)),
            Expr::Binary("!~", a, b) => Value::Bool(!self.matches(a, b, scope)),
            Expr::Binary(operator, a, b) => {
                binary(operator, self.value(a, scope), self.value(b, scope))
            }
            Expr::Set(_) | Expr::PathPrefix(_) => panic!("{expr:?} on its own"),
        }
    }

    fn matches(&self, left: &Expr, right: &Expr, scope: &Scope) -> bool {
        let value = self.value(left, scope);
        match (value, right) {
            (Value::Path, Expr::PathPrefix(prefix)) => self.route.path.starts_with(prefix),
            (value, Expr::Set(items)) => items.iter().any(|item| match (&value, item) {
                (Value::Enum(name), SetItem::Name(wanted)) => name == wanted,
                (Value::Prefix(net), SetItem::Prefix(cidr, range)) => {
                    let cidr: Prefix = cidr.parse().expect("a prefix");
                    let (low, high) = range.unwrap_or((cidr.len(), cidr.len()));
                    cidr.contains(*net) && (low..=high).contains(&net.len())
                }
                other => panic!("cannot match {other:?}"),
            }),
            (value, right) => match (value, self.value(right, scope)) {
                (Value::Prefix(net), Value::Prefix(cidr)) => cidr.contains(net),
                (Value::Address(addr), Value::Prefix(cidr)) => cidr.contains_addr(addr),
                (Value::Text(name), Value::Text(glob)) => glob_matches(&glob, &name),
                (Value::Tuple(t), Value::Communities) => {
                    self.route.communities.contains(&(t[0], t[1]))
                }
                (Value::Tuple(t), Value::LargeCommunities) => {
                    self.route.large.contains(&(t[0], t[1], t[2]))
                }
                other => panic!("cannot match {other:?}"),
            },
        }
    }
}

fn binary(operator: &str, left: Value, right: Value) -> Value {
    match (operator, left, right) {
        ("-", Value::Int(a), Value::Int(b)) => Value::Int(a.wrapping_sub(b)),
        ("<", Value::Int(a), Value::Int(b)) => Value::Bool(a < b),
        (">", Value::Int(a), Value::Int(b)) => Value::Bool(a > b),
        ("=", a, b) => Value::Bool(a == b),
        ("!=", a, b) => Value::Bool(a != b),
        other => panic!("cannot compute {other:?}"),
    }
}

/// By exhaustive search, unlike the code under test.
fn glob_matches(glob: &str, name: &str) -> bool {
    match (glob.chars().next(), name.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => (0..=name.len()).any(|skip| glob_matches(&glob[1..], &name[skip..])),
        (Some(g), Some(n)) if g == '?' || g == n => glob_matches(&glob[1..], &name[1..]),
        _ => false,
    }
}
