//! Examples behind the help of commands.

/// Of `check`.
pub(super) const CHECK: &str = "Examples:
  margay check --config /etc/margay/margay.toml
  margay check --config calico.toml --connect";

/// Of `init`.
pub(super) const INIT: &str = "Examples:
  margay init tor
  margay init reflector
  margay init node";

/// Of `show routes`.
pub(super) const ROUTES: &str = "Examples:
  margay show routes 10.65.0.0/16 --longer --peer tor-1
  margay show routes --as-path '65001 * 3356' --community no-export --count
  margay show routes --unusable --limit 20";

/// Of `explain`.
pub(super) const EXPLAIN: &str = "Examples:
  margay explain 10.65.2.9
  margay explain 10.65.2.0/26 --peer tor-1";

/// Of `reload`.
pub(super) const RELOAD: &str = "Examples:
  margay reload --dry-run
  margay reload --confirm 60 && margay confirm";

/// Of `drain`.
pub(super) const DRAIN: &str = "Examples:
  margay drain --wait --reason 'kernel upgrade'
  margay drain tor-1
  margay undrain";

/// Of `announce`.
pub(super) const ANNOUNCE: &str = "Examples:
  margay announce 192.0.2.7/32 --community blackhole --for 30m
  margay announce 2001:db8:5::/48 --next-hop 2001:db8::9 --med 10
  margay show announced
  margay withdraw 192.0.2.7/32";

/// Of `calico decide`. The question is parsed by a test.
pub(super) const DECIDE: &str = "A question, such as whether a block is announced to a session, is one line:
  {\"session\": \"Mesh_10_0_0_2\", \"direction\": \"export\",
   \"route\": {\"prefix\": \"10.65.1.0/26\", \"source\": \"static\"}}
direction: import, export, or kernel (without a session). source: bgp, static, kernel or direct. A route may also
have interface, metric, local_pref, next_hop, as_path, communities and large_communities.";

/// Of `events`.
pub(super) const EVENTS: &str = "Examples:
  margay events --peer tor-1 --last 20
  margay events --follow --json";

/// Of `probe`.
pub(super) const PROBE: &str = "Examples:
  margay probe tor-1
  margay probe 192.0.2.1 --json";

/// Of `debug`.
pub(super) const DEBUG: &str = "Examples:
  margay debug tor-1 --for 10m --follow
  margay debug --off";

/// Of `top`.
pub(super) const TOP: &str = "Examples:
  margay top --filter 'rack-7 idle'
  margay top --peer tor-1 --interval 5";
