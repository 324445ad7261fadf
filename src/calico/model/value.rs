//! Values inside Calico's objects: lenient where Calico is, strict where a misreading would change
//! a route.

use std::net::IpAddr;
use std::time::Duration;

use bgp_proto::types::{Asn, Prefix};
use serde::{Deserialize, Deserializer, Serializer, de};
use serde_json::Value;

use crate::calico::selector::Labels;
use crate::calico::yaml;

/// An AS number: a JSON number, or text in asplain or asdot.
pub(crate) fn asn<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Asn>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => text.parse().map(Some).map_err(de::Error::custom),
        Value::Number(number) => number
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .map(|n| Some(Asn(n)))
            .ok_or_else(|| de::Error::custom(format!("{number} is not an AS number"))),
        other => Err(de::Error::custom(format!("{other} is not an AS number"))),
    }
}

/// A list of AS numbers.
pub(crate) fn asns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Asn>, D::Error> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Number(#[serde(deserialize_with = "asn")] Option<Asn>);
    let list = Vec::<Number>::deserialize(deserializer)?;
    Ok(list.into_iter().filter_map(|n| n.0).collect())
}

/// A Go duration, rounded to whole seconds.
pub(crate) fn seconds<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    go_duration(&text)
        .map(|seconds| Some(Duration::from_secs(seconds)))
        .ok_or_else(|| de::Error::custom(format!("\"{text}\" is not a duration such as 90s")))
}

/// A duration as [`seconds`] reads it.
#[allow(clippy::ref_option, reason = "serde passes the field")]
pub(crate) fn to_seconds<S: Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.serialize_str(&format!("{}s", time.as_secs())),
        None => serializer.serialize_none(),
    }
}

/// Seconds, rounded half up, of Go's duration text; negative ones and those above 2^32 s are
/// refused.
fn go_duration(text: &str) -> Option<u64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = after;
    }
    let rounded = total.round();
    // Casting is exact: the value is a whole number below 2^32.
    (rounded < 4_294_967_296.0).then_some(rounded as u64)
}

/// Labels; booleans and numbers count as their text.
pub(crate) fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Labels, D::Error> {
    let map = serde_json::Map::deserialize(deserializer)?;
    map.iter()
        .map(|(key, value)| {
            yaml::scalar_text(value)
                .map(|text| (key.clone(), text))
                .ok_or_else(|| de::Error::custom(format!("the value of {key} is not text")))
        })
        .collect()
}

/// Text; booleans and numbers count as their text.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let value = Value::deserialize(deserializer)?;
    yaml::scalar_text(&value).ok_or_else(|| de::Error::custom("expected text"))
}

/// An address with the network in which it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostNetwork {
    /// The address.
    pub addr: IpAddr,
    /// Its canonical text, which Calico compares in some places.
    pub text: Box<str>,
    /// The network.
    pub network: Prefix,
}

impl HostNetwork {
    /// Reads `10.0.0.2/24` or `10.0.0.2`.
    pub fn parse(text: &str) -> Option<HostNetwork> {
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(length(len)?)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().ok()?;
        let max = if addr.is_ipv4() { 32 } else { 128 };
        let len = len.unwrap_or(max);
        (len <= max).then(|| HostNetwork {
            addr,
            text: addr.to_string().into(),
            network: Prefix::new(addr, len),
        })
    }
}

fn length(text: &str) -> Option<u8> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// A prefix whose host bits are masked, as Calico does with the CIDR of a pool.
pub(crate) fn masked(text: &str) -> Option<Prefix> {
    text.contains('/').then(|| HostNetwork::parse(text)).flatten().map(|n| n.network)
}

/// A prefix as BIRD accepts it: a length is required, host bits must be 0.
pub(crate) fn exact(text: &str) -> Result<Prefix, String> {
    if !text.contains('/') {
        return Err(format!("\"{text}\" has no prefix length"));
    }
    Ok(text.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_to_seconds() {
        for (text, seconds) in [
            ("90s", 90),
            ("1m30s", 90),
            ("1.5h", 5400),
            ("1499ms", 1),
            ("500ms", 1),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(go_duration(text), Some(seconds), "{text}");
        }
        for bad in ["", "90", "s", "-5s", "1d", "1..2s", "99999999h", "NaNs", "5 s"] {
            assert_eq!(go_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn host_networks_keep_the_address_and_mask_the_network() {
        let host = HostNetwork::parse("10.24.0.2/24").unwrap();
        assert_eq!((&*host.text, host.network.to_string()), ("10.24.0.2", "10.24.0.0/24".into()));
        let bare = HostNetwork::parse("2001:0::103").unwrap();
        assert_eq!((&*bare.text, bare.network.len()), ("2001::103", 128));
        for bad in ["", "10.0.0.1/33", "10.0.0/8", "10.0.0.1/", "10.0.0.1/+8", "x/8", "::1/129"] {
            assert_eq!(HostNetwork::parse(bad), None, "{bad}");
        }
        assert_eq!(masked("10.65.3.0/16").unwrap().to_string(), "10.65.0.0/16");
        assert!(exact("10.65.3.0/16").is_err() && exact("10.65.0.0").is_err());
    }
}
