//! Who may see what: decided from the headers of a request alone.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, header};

use crate::config::PageSettings;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A file of the page, which is the same for every node.
    File,
    /// An answer of this node.
    Answer,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is for a name that is not ours.
    Host,
    /// It was made by a page of another origin.
    Origin,
    /// It does not present the token.
    Token,
}

impl Refused {
    pub(super) fn kind(self) -> &'static str {
        match self {
            Refused::Host => "host",
            Refused::Origin => "origin",
            Refused::Token => "token",
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Refused::Host => {
                "the Host header is neither an address nor a name of http.host-names: use the \
                 address, or add the name there"
            }
            Refused::Origin => "the request comes from a page of another origin",
            Refused::Token => "the token of http.token-file is needed, as a bearer token",
        }
    }
}

/// Whether a request may be answered. The `Host` is checked first: behind a name that somebody else has
/// pointed at our address, the browser takes us for that page's own origin.
pub(super) fn check(
    headers: &HeaderMap,
    settings: &PageSettings,
    target: Target,
) -> Result<(), Refused> {
    let host = single(headers, &header::HOST).ok_or(Refused::Host)?;
    if !is_ours(host, &settings.host_names) {
        return Err(Refused::Host);
    }
    if target == Target::File {
        return Ok(());
    }
    if headers.contains_key(header::ORIGIN) {
        let origin = single(headers, &header::ORIGIN).ok_or(Refused::Origin)?;
        let from = ["http://", "https://"].into_iter().find_map(|s| origin.strip_prefix(s));
        if !from.is_some_and(|from| from.eq_ignore_ascii_case(host)) {
            return Err(Refused::Origin);
        }
    }
    // Every browser of these years says where a request comes from. Who types the address in comes from
    // nowhere.
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if !matches!(site, None | Some(b"same-origin" | b"none")) {
        return Err(Refused::Origin);
    }
    let Some(token) = &settings.token else { return Ok(()) };
    let presented = single(headers, &header::AUTHORIZATION).and_then(bearer);
    match presented.is_some_and(|presented| token.is(presented.as_bytes())) {
        true => Ok(()),
        false => Err(Refused::Token),
    }
}

/// The value of a header that is there once.
fn single<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_some() { None } else { first.to_str().ok() }
}

/// The token of `Bearer TOKEN` (RFC 6750 §2.1); the scheme's case does not matter.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether `host`, with or without a port, is an address, `localhost` or one of our names.
fn is_ours(host: &str, names: &[Box<str>]) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return matches!(address.parse(), Ok(IpAddr::V6(_)))
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let name = match host.split_once(':') {
        Some((name, port)) if is_port(port) => name,
        Some(_) => return false,
        None => host,
    };
    let name = name.to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    matches!(name.parse(), Ok(IpAddr::V4(_)))
        || name == "localhost"
        || names.iter().any(|own| **own == *name)
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn ask(of: &[(&'static str, &str)], settings: &PageSettings) -> Result<(), Refused> {
        check(&headers(of), settings, Target::Answer)
    }

    fn named(name: &str) -> PageSettings {
        PageSettings { token: None, host_names: vec![name.into()] }
    }

    #[test]
    fn the_host_is_an_address_or_a_configured_name() {
        let settings = named("node-1.example");
        for host in [
            "127.0.0.1",
            "127.0.0.1:9479",
            "[::1]",
            "[::1]:9479",
            "[fd00::1]:80",
            "localhost:9479",
            "LOCALHOST",
            "node-1.example",
            "Node-1.Example.:9479",
        ] {
            assert_eq!(ask(&[("host", host)], &settings), Ok(()), "{host}");
        }
        for host in [
            "",
            "rebind.example",
            "rebind.example:9479",
            "127.0.0.1.rebind.example",
            "node-1.example.rebind.example",
            "localhost.rebind.example",
            "127.0.0.1:port",
            "127.0.0.1:9479:1",
            "[127.0.0.1]",
            "[::1",
            "[::1]x",
            "::1",
            "127.0.0.1@rebind.example",
            "2130706433",
            "0x7f.1",
        ] {
            assert_eq!(ask(&[("host", host)], &settings), Err(Refused::Host), "{host}");
        }
        assert_eq!(ask(&[], &settings), Err(Refused::Host));
        let twice = [("host", "127.0.0.1"), ("host", "rebind.example")];
        assert_eq!(ask(&twice, &settings), Err(Refused::Host));
        let file = check(&headers(&[("host", "rebind.example")]), &settings, Target::File);
        assert_eq!(file, Err(Refused::Host), "not even the empty page");
    }

    #[test]
    fn another_origin_gets_no_answer() {
        let settings = PageSettings::default();
        let host = ("host", "10.0.0.1:9479");
        for origin in ["http://10.0.0.1:9479", "https://10.0.0.1:9479"] {
            assert_eq!(ask(&[host, ("origin", origin)], &settings), Ok(()), "{origin}");
        }
        for origin in
            ["null", "", "http://10.0.0.1", "http://evil.example", "file://", "10.0.0.1:9479"]
        {
            let refused = ask(&[host, ("origin", origin)], &settings);
            assert_eq!(refused, Err(Refused::Origin), "{origin}");
        }
        for (site, expected) in [
            ("same-origin", Ok(())),
            ("none", Ok(())),
            ("same-site", Err(Refused::Origin)),
            ("cross-site", Err(Refused::Origin)),
            ("x", Err(Refused::Origin)),
        ] {
            assert_eq!(ask(&[host, ("sec-fetch-site", site)], &settings), expected, "{site}");
        }
        // A link from elsewhere leads to the page, which then asks by itself.
        let link = headers(&[host, ("sec-fetch-site", "cross-site")]);
        assert_eq!(check(&link, &settings, Target::File), Ok(()));
    }

    #[test]
    fn answers_need_the_token_and_files_do_not() {
        let token = Some("0123456789abcdef".into());
        let settings = PageSettings { token, ..PageSettings::default() };
        let host = ("host", "10.0.0.1");
        for value in ["Bearer 0123456789abcdef", "bearer  0123456789abcdef"] {
            assert_eq!(ask(&[host, ("authorization", value)], &settings), Ok(()), "{value}");
        }
        for value in ["", "Bearer", "Bearer ", "Bearer 0123456789abcdeX", "Basic 0123456789abcdef"]
        {
            let refused = ask(&[host, ("authorization", value)], &settings);
            assert_eq!(refused, Err(Refused::Token), "{value}");
        }
        assert_eq!(ask(&[host], &settings), Err(Refused::Token));
        assert_eq!(check(&headers(&[host]), &settings, Target::File), Ok(()));
    }
}
