//! `margay announce`, `withdraw` and `show announced`: routes that operators announce at run time.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use bgp_proto::table::RouteFilter;
use bgp_proto::types::{Prefix, Source};
use tokio::time::Instant;

use super::control::ControlView;
use super::policies::described;
use super::sources::Sources;
use crate::ctl::{AnnounceOptions, ErrorKind, Page, Refusal, TestRoute, item, rfc3339};
use crate::daemon::announcements::{Announcement, Effect, Key};

/// How long a route may be announced by command, in seconds: up to a day.
const TIMES: RangeInclusive<u32> = 1..=86_400;
/// Most communities of an announced route.
const COMMUNITIES_MAX: usize = 100;

impl ControlView {
    /// Announces a route.
    pub(super) async fn announce(
        &self,
        prefix: Prefix,
        options: &AnnounceOptions,
    ) -> Result<Page, Refusal> {
        let entry = announcement(prefix, options)?;
        let sources = self.sources.in_vrf(options.vrf.as_deref())?;
        if is_redistributed(&sources, prefix).await? {
            return Err(Refusal::failed(format!(
                "{prefix} is not announced: the configuration redistributes it from the kernel already"
            )));
        }
        let effect = self.orders.announce(options.vrf.clone(), prefix, entry.clone()).await?;
        let effect = match effect {
            Effect::Announced => "announced",
            Effect::Replaced => "replaced",
        };
        let key = (options.vrf.as_deref().map(Into::into), prefix);
        Page::last([shown(&key, &entry, Some(effect))])
    }

    /// Withdraws an announced route, or all of a VRF.
    pub(super) async fn withdraw(
        &self,
        vrf: Option<&str>,
        prefix: Option<Prefix>,
    ) -> Result<Page, Refusal> {
        if let Some(vrf) = vrf {
            self.sources.is_configured(vrf)?;
        }
        let ended = self.orders.withdraw(vrf.map(str::to_owned), prefix).await?;
        Page::last(ended.iter().map(|(key, entry)| shown(key, entry, Some("withdrawn"))))
    }

    /// Every announced route: a thousand at most.
    pub(super) fn announced(&self) -> Result<Page, Refusal> {
        let all = self.sources.announcements.all();
        Page::last(all.iter().map(|(key, entry)| shown(key, entry, None)))
    }
}

/// What is asked for, if it can be announced.
fn announcement(prefix: Prefix, options: &AnnounceOptions) -> Result<Announcement, Refusal> {
    let bad = |text: String| Refusal { kind: ErrorKind::BadRequest, text };
    if prefix.addr().is_multicast() {
        return Err(bad(format!("{prefix} is not unicast: announce unicast networks only")));
    }
    if options.seconds.is_some_and(|seconds| !TIMES.contains(&seconds)) {
        return Err(bad(format!(
            "a route is announced for 1 to {} s, or without end",
            TIMES.end()
        )));
    }
    if let Some(next_hop) = options.next_hop {
        if next_hop.is_ipv4() != prefix.addr().is_ipv4() {
            return Err(bad(format!("the next hop {next_hop} is not of the family of {prefix}")));
        }
        if !is_next_hop(next_hop) {
            return Err(bad(format!(
                "{next_hop} cannot be a next hop: it is no address of a host"
            )));
        }
    }
    if options.communities.len() > COMMUNITIES_MAX {
        return Err(bad(format!(
            "a route is announced with at most {COMMUNITIES_MAX} communities"
        )));
    }
    let attrs = described(&TestRoute {
        communities: options.communities.clone(),
        local_pref: options.local_pref,
        med: options.med,
        ..TestRoute::default()
    })?;
    let ends = options.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()));
    Ok(Announcement {
        since: SystemTime::now(),
        ends,
        options: options.clone(),
        attrs: attrs.into_bytes().into(),
    })
}

/// Whether neighbours could send packets there.
fn is_next_hop(addr: IpAddr) -> bool {
    let is_link_local = match addr {
        IpAddr::V4(addr) => addr.is_link_local() || addr.is_broadcast(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    };
    !(addr.is_unspecified() || addr.is_loopback() || addr.is_multicast() || is_link_local)
}

/// Whether the kernel's route to the prefix is redistributed.
async fn is_redistributed(sources: &Sources, prefix: Prefix) -> Result<bool, Refusal> {
    let filter = RouteFilter { exact: Some(prefix), ..RouteFilter::default() };
    let found = move |table: &bgp_proto::table::Table, now| {
        let (views, _) = table.view(&filter, 0, 1, now);
        let paths = views.first().map(|view| view.paths.as_slice()).unwrap_or_default();
        paths.iter().any(|path| matches!(path.source, Source::Kernel | Source::Direct))
    };
    sources.ask(found).await
}

fn shown((vrf, prefix): &Key, entry: &Announcement, effect: Option<&str>) -> item::Announced {
    let AnnounceOptions { next_hop, communities, local_pref, med, .. } = &entry.options;
    item::Announced {
        prefix: *prefix,
        vrf: vrf.as_ref().map(ToString::to_string),
        effect: effect.map(str::to_owned),
        since: rfc3339(entry.since),
        seconds_left: entry.seconds_left(),
        next_hop: *next_hop,
        communities: communities.clone(),
        local_pref: *local_pref,
        med: *med,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_peers_can_use_is_announced() {
        let of = |prefix: &str, options: AnnounceOptions| {
            announcement(prefix.parse().unwrap(), &options).map_err(|refusal| refusal.text)
        };
        let plain = AnnounceOptions::default;
        assert!(of("192.0.2.0/24", plain()).is_ok_and(|entry| entry.ends.is_none()));
        let refused = |prefix: &str, options, wanted: &str| {
            let text = of(prefix, options).unwrap_err();
            assert!(text.contains(wanted), "{text}");
        };
        refused("224.0.0.0/24", plain(), "is not unicast");
        let at = |next_hop: &str| AnnounceOptions {
            next_hop: Some(next_hop.parse().unwrap()),
            ..AnnounceOptions::default()
        };
        refused("192.0.2.0/24", at("2001:db8::1"), "not of the family");
        for address in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "169.254.0.1"] {
            refused("192.0.2.0/24", at(address), "cannot be a next hop");
        }
        refused("2001:db8::/32", at("fe80::1"), "cannot be a next hop");
        assert!(of("2001:db8::/32", at("2001:db8::1")).is_ok());
        for seconds in [0, 86_401] {
            let options = AnnounceOptions { seconds: Some(seconds), ..plain() };
            refused("192.0.2.0/24", options, "1 to 86400 s");
        }
        let options = AnnounceOptions { communities: vec!["banana".into()], ..plain() };
        refused("192.0.2.0/24", options, "banana");
        let options = AnnounceOptions { communities: vec!["1:1".into(); 101], ..plain() };
        refused("192.0.2.0/24", options, "at most 100 communities");
        let options = AnnounceOptions { seconds: Some(600), ..plain() };
        let entry = of("192.0.2.0/24", options).unwrap();
        assert!(entry.seconds_left().is_some_and(|left| (590..=600).contains(&left)));
    }
}
