//! Why a request failed, with texts that say what to do.

use std::time::Duration;

use serde::Deserialize;

/// Longest text of a server that is included in ours, in characters.
const TEXT_MAX: usize = 300;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection ended before the answer did.
    Lost(String),
    /// Nothing was received for this long; what was waited for.
    Silent(&'static str, Duration),
    /// 401.
    Unauthorized(String),
    /// 403.
    Forbidden(String),
    /// 404: the server does not have the kind or its group.
    NotFound,
    /// 410, as status or in a watch: the server no longer has the version.
    Expired,
    /// 504: the version is newer than the server's; `Retry-After`.
    VersionTooLarge(Option<Duration>),
    /// 429; `Retry-After`.
    Busy(Option<Duration>),
    /// 400, 406, 415, 422: the server does not know a parameter.
    Refused(u16, String),
    /// Another status.
    Server(u16, String),
    /// 200 with a body that is not JSON of the Kubernetes API: its media type and beginning.
    NotKubernetes(String),
    /// A body, or part of one, is longer than the limit: what it is, and the limit in octets.
    TooLong(&'static str, u64),
    /// A watch ended at once without an event.
    EndedAtOnce,
    /// The server returned an older version than before: its store was restored from a backup.
    WentBack,
}

/// The body of an error response, or the `object` of an `ERROR` event of a watch.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
    reason: String,
    message: String,
    details: Details,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    causes: Vec<Cause>,
    retry_after_seconds: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
    message: String,
}

impl Failure {
    /// The failure that a response with a status other than 200 means.
    pub(super) fn of_answer(code: u16, retry_after: Option<Duration>, body: &[u8]) -> Failure {
        match serde_json::from_slice::<Status>(body) {
            Ok(status) => Failure::of_status(code, retry_after, &status),
            Err(_) => {
                let text = shortened(&String::from_utf8_lossy(body));
                let status = Status { message: text, ..Status::default() };
                Failure::of_status(code, retry_after, &status)
            }
        }
    }

    /// The failure that an `ERROR` event of a watch means.
    pub(super) fn of_error_event(object: &[u8]) -> Failure {
        match serde_json::from_slice::<Status>(object) {
            Ok(status) => Failure::of_status(status.code, None, &status),
            Err(_) => Failure::Server(500, "an ERROR that cannot be read".to_owned()),
        }
    }

    fn of_status(code: u16, retry_after: Option<Duration>, status: &Status) -> Failure {
        let retry_after = retry_after.or_else(|| {
            let seconds = status.details.retry_after_seconds;
            (seconds > 0).then(|| Duration::from_secs(seconds))
        });
        let is_too_large = || {
            let named = |cause: &Cause| {
                cause.reason == "ResourceVersionTooLarge"
                    || cause.message.contains("Too large resource version")
            };
            status.details.causes.iter().any(named)
                || status.message.contains("Too large resource version")
        };
        let message = shortened(&status.message);
        match code {
            401 => Failure::Unauthorized(message),
            403 => Failure::Forbidden(message),
            404 => Failure::NotFound,
            410 => Failure::Expired,
            429 => Failure::Busy(retry_after),
            504 if is_too_large() => Failure::VersionTooLarge(retry_after),
            _ if matches!(status.reason.as_str(), "Expired" | "Gone") => Failure::Expired,
            400 | 406 | 415 | 422 => Failure::Refused(code, message),
            _ => Failure::Server(code, message),
        }
    }

    /// The failure for a body that should have been a list or a watch and is neither.
    pub(super) fn not_kubernetes(media_type: &str, body: &[u8]) -> Failure {
        let begin = body.get(..body.len().min(60)).unwrap_or_default();
        let begin = shortened(&String::from_utf8_lossy(begin));
        let what = if media_type.is_empty() { "no media type" } else { media_type };
        Failure::NotKubernetes(format!("{what}, beginning with \"{begin}\""))
    }

    /// Its label value in metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Failure::Lost(_) => "connection-lost",
            Failure::Silent(..) => "timeout",
            Failure::Unauthorized(_) => "unauthorized",
            Failure::Forbidden(_) => "forbidden",
            Failure::NotFound => "not-found",
            Failure::Expired => "expired",
            Failure::VersionTooLarge(_) => "version-too-large",
            Failure::Busy(_) => "too-many-requests",
            Failure::Refused(..) => "refused",
            Failure::Server(..) => "server-error",
            Failure::NotKubernetes(_) => "not-kubernetes",
            Failure::TooLong(..) => "too-long",
            Failure::EndedAtOnce => "ended-at-once",
            Failure::WentBack => "went-back",
        }
    }
}

/// What happened and what to do. The caller adds why a credential is not valid, if it knows.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Lost(why) => write!(f, "the connection ended: {why}"),
            Failure::Silent(what, limit) => write!(
                f,
                "no answer within {} s ({what}): is the server, or its etcd, stopped?",
                limit.as_secs()
            ),
            Failure::Unauthorized(text) => write!(
                f,
                "401 {}: check the token and its service account, or the client certificate",
                or(text, "Unauthorized")
            ),
            Failure::Forbidden(text) => write!(
                f,
                "403 {}: grant list and watch in the ClusterRole of this account",
                or(text, "Forbidden")
            ),
            Failure::NotFound => f.write_str("404: the server does not have this kind"),
            Failure::Expired => f.write_str("410: the version is not kept any more"),
            Failure::VersionTooLarge(_) => f.write_str(
                "504: the server has not seen the version that is known: it is behind, or was \
                 restored from a backup",
            ),
            Failure::Busy(_) => {
                f.write_str("429: the server is busy or starting; asked again as it says")
            }
            Failure::Refused(code, text) => {
                write!(f, "{code} {}: the server does not take the request", or(text, "refused"))
            }
            Failure::Server(code, text) => write!(f, "{code} {}", or(text, "no reason given")),
            Failure::NotKubernetes(what) => write!(
                f,
                "the answer is no Kubernetes API object ({what}): is a proxy in between? Name the \
                 API server itself in K8S_API_ENDPOINT or in the kubeconfig"
            ),
            Failure::TooLong(what, octets) => {
                write!(f, "{what} is longer than {} MiB", octets >> 20)
            }
            Failure::EndedAtOnce => f.write_str("the watch ended at once without an event"),
            Failure::WentBack => f.write_str("the server's version went back"),
        }
    }
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

/// The text on one line of at most [`TEXT_MAX`] characters.
fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_of_a_real_server_are_classified() {
        let of = |code, body: &str| Failure::of_answer(code, None, body.as_bytes());
        let status = |code: u16, rest: &str| {
            format!(r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"code":{code},{rest}}}"#)
        };
        let forbidden = r#"nodes is forbidden: User \"u\" cannot list resource \"nodes\""#;
        let text = of(403, &status(403, &format!(r#""message":"{forbidden}""#))).to_string();
        assert!(text.contains("cannot list resource \"nodes\""), "{text}");
        assert!(text.contains("ClusterRole"), "{text}");
        assert_eq!(of(404, "404 page not found\n"), Failure::NotFound);
        assert_eq!(of(410, &status(410, r#""reason":"Expired""#)), Failure::Expired);
        let too_large = r#""reason":"Timeout","message":"Timeout: Too large resource version: 9, current: 3",
            "details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}],"retryAfterSeconds":1}"#;
        let second = Some(Duration::from_secs(1));
        assert_eq!(of(504, &status(504, too_large)), Failure::VersionTooLarge(second));
        let timeout = of(504, &status(504, r#""reason":"Timeout","message":"x""#));
        assert_eq!(timeout, Failure::Server(504, "x".into()));
        let busy = Failure::of_answer(429, second, b"Too many requests, please try again later.");
        assert_eq!(busy, Failure::Busy(second));
        assert_eq!(of(503, "service unavailable\n").to_string(), "503 service unavailable");
        assert_eq!(of(422, "{}").name(), "refused");
    }

    #[test]
    fn errors_in_a_watch_are_classified() {
        let expired = br#"{"kind":"Status","status":"Failure","message":"too old resource version: 1 (217)","reason":"Expired","code":410}"#;
        assert_eq!(Failure::of_error_event(expired), Failure::Expired);
        let other = Failure::of_error_event(br#"{"code":500,"message":"no"}"#);
        assert_eq!(other, Failure::Server(500, "no".into()));
        assert_eq!(Failure::of_error_event(b"x").name(), "server-error");
    }

    #[test]
    fn a_page_of_a_proxy_is_named_and_shortened() {
        let page = format!("<html>\n <body>{}", "x".repeat(1000));
        let failure = Failure::not_kubernetes("text/html", page.as_bytes());
        let text = failure.to_string();
        assert!(text.contains("text/html") && text.contains("<html> <body>"), "{text}");
        assert!(text.contains("K8S_API_ENDPOINT") && text.len() < 300, "{text}");
        assert!(Failure::of_answer(502, None, page.as_bytes()).to_string().len() < 400);
    }
}
