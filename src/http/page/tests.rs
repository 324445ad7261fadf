use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::{Limits, MetricsSnapshot, Server};
use super::*;
use crate::config::PageSettings;

/// A daemon that records what it is asked; some questions hang.
#[derive(Default)]
struct Daemon {
    settings: Option<Arc<PageSettings>>,
    asked: Mutex<Vec<Question>>,
}

impl Source for Daemon {
    async fn metrics(&self) -> MetricsSnapshot {
        MetricsSnapshot::default()
    }
    async fn not_alive(&self) -> Vec<String> {
        Vec::new()
    }
    async fn not_ready(&self) -> Option<String> {
        None
    }
    fn page(&self) -> Option<Arc<PageSettings>> {
        self.settings.clone()
    }
    async fn answer(&self, question: &Question) -> Result<Answer, Failure> {
        self.asked.lock().unwrap().push(question.clone());
        match question {
            Question::Peer { name } if name == "hangs" => std::future::pending().await,
            Question::Peer { name } => {
                Err(Failure::NotFound(format!("there is no peer \"{name}\"")))
            }
            Question::Explain { destination, .. } if destination == "x" => {
                Err(Failure::BadRequest("not a prefix".to_owned()))
            }
            Question::Events => Ok(Answer(b"[]".to_vec())),
            _ => Ok(Answer(b"{\"a\":1}".to_vec())),
        }
    }
}

async fn serve(settings: Option<PageSettings>) -> (SocketAddr, Arc<Daemon>) {
    let daemon = Arc::new(Daemon { settings: settings.map(Arc::new), ..Daemon::default() });
    let mut server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    server.limits = Limits { answer_wait: Duration::from_millis(100), ..Limits::default() };
    let address = server.local_addr().unwrap();
    tokio::spawn(server.run(Arc::clone(&daemon)));
    (address, daemon)
}

async fn send(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(address: SocketAddr, path: &str, headers: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    send(address, &format!("{head}{headers}\r\n")).await
}

fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let found = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("no {name} in {answer}"))
}

fn status(answer: &str) -> &str {
    answer.get("HTTP/1.1 ".len()..).and_then(|rest| rest.get(..3)).unwrap_or(answer)
}

#[tokio::test]
async fn without_a_page_there_is_nothing() {
    let (address, daemon) = serve(None).await;
    for path in ["/status", "/status/", "/status/page.js", "/status/api/status"] {
        assert_eq!(status(&get(address, path, "").await), "404", "{path}");
    }
    assert!(!get(address, "/", "").await.contains("/status/"));
    assert!(daemon.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn every_file_has_its_kind_and_the_policy() {
    let (address, _daemon) = serve(Some(PageSettings::default())).await;
    assert!(get(address, "/", "").await.contains("<a href=\"/status/\">"));
    let answer = get(address, "/status", "").await;
    assert_eq!((status(&answer), header(&answer, "location")), ("303", "status/"));
    for (path, kind, text) in FILES {
        let answer = get(address, path, "").await;
        assert_eq!(status(&answer), "200", "{path}");
        assert_eq!(header(&answer, "content-type"), kind);
        assert!(header(&answer, "content-security-policy").starts_with("default-src 'none'; "));
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
        assert!(answer.ends_with(text), "{path}");
        let known = format!("If-None-Match: {}\r\n", header(&answer, "etag"));
        assert_eq!(status(&get(address, path, &known).await), "304", "{path}");
    }
}

/// The page loads nothing from elsewhere, has no markup that the policy forbids, and is small.
#[test]
fn the_page_is_self_contained_and_small() {
    let octets: usize = FILES.iter().map(|(_, _, text)| text.len()).sum();
    assert!(octets < 200_000, "{octets} octets");
    for (path, _, text) in FILES {
        // The name of SVG's namespace is no address that anything is loaded from.
        let text = text.replace("http://www.w3.org/2000/svg", "");
        for foreign in
            ["http://", "https://", "@import", "url(", "innerHTML", "eval(", "<style", " style="]
        {
            assert!(!text.contains(foreign), "{path} has {foreign}");
        }
    }
}

#[tokio::test]
async fn an_answer_is_sent_again_only_if_it_has_changed() {
    let (address, daemon) = serve(Some(PageSettings::default())).await;
    let answer = get(address, "/status/api/overview", "").await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(answer.ends_with("\r\n\r\n{\"a\":1}"), "{answer}");
    assert_eq!(header(&answer, "content-type"), "application/json");
    assert_eq!(header(&answer, "cache-control"), "no-store");
    let known = format!("If-None-Match: {}\r\n", header(&answer, "etag"));
    let again = get(address, "/status/api/overview", &known).await;
    assert!(status(&again) == "304" && again.ends_with("\r\n\r\n"), "{again}");
    assert_eq!(*daemon.asked.lock().unwrap(), [Question::Overview], "made once for both");
    // Another run of margay does not take its answers for those of this one.
    let (other, _daemon) = serve(Some(PageSettings::default())).await;
    assert_eq!(status(&get(other, "/status/api/overview", &known).await), "200");
}

#[tokio::test]
async fn what_is_asked_for_is_passed_on_as_text() {
    let (address, daemon) = serve(Some(PageSettings::default())).await;
    let answer = get(address, "/status/api/peer/%3Cimg%20src=x%3E", "").await;
    assert_eq!(status(&answer), "404");
    assert!(
        answer.ends_with(
            r#"{"error":{"kind":"not-found","text":"there is no peer \"<img src=x>\""}}"#
        )
    );
    assert_eq!(header(&answer, "content-type"), "application/json");
    assert_eq!(status(&get(address, "/status/api/explain/10.0.0.0%2F8", "").await), "200");
    assert_eq!(status(&get(address, "/status/api/vrf/red/explain/::1", "").await), "200");
    assert_eq!(status(&get(address, "/status/api/explain/x", "").await), "400");
    let named = Question::Peer { name: "<img src=x>".into() };
    let explain = |destination: &str, vrf: Option<&str>| Question::Explain {
        destination: destination.into(),
        vrf: vrf.map(str::to_owned),
    };
    let asked = daemon.asked.lock().unwrap().clone();
    let wanted =
        [named, explain("10.0.0.0/8", None), explain("::1", Some("red")), explain("x", None)];
    assert_eq!(asked, wanted);
}

#[tokio::test]
async fn hostile_requests_reach_no_answer() {
    let token = Some("0123456789abcdef".into());
    let (address, daemon) = serve(Some(PageSettings { token, ..PageSettings::default() })).await;
    let path = "/status/api/status";
    let request = |method: &str, path: &str, host: &str, headers: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n")
    };
    let token = "Authorization: Bearer 0123456789abcdef\r\n";
    for (expected, request) in [
        ("421", request("GET", path, "rebind.example", token)),
        ("421", request("GET", "/status/", "rebind.example", "")),
        (
            "403",
            request("GET", path, "127.0.0.1", &format!("{token}Origin: http://evil.example\r\n")),
        ),
        (
            "403",
            request("GET", path, "127.0.0.1", &format!("{token}Sec-Fetch-Site: cross-site\r\n")),
        ),
        ("401", request("GET", path, "127.0.0.1", "")),
        ("401", request("GET", path, "127.0.0.1", "Authorization: Bearer x\r\n")),
        ("405", request("POST", path, "127.0.0.1", token)),
        ("405", request("DELETE", "/status/", "127.0.0.1", token)),
        ("404", request("GET", "/status/../api/status", "127.0.0.1", token)),
        ("404", request("GET", "/status/page.html", "127.0.0.1", token)),
        ("400", request("GET", "/status/api/peer/%FF%FE", "127.0.0.1", token)),
        ("404", request("GET", "/status/api/peer/a/b", "127.0.0.1", token)),
    ] {
        let answer = send(address, &request).await;
        assert_eq!(status(&answer), expected, "{request}{answer}");
        assert!(!answer.contains("0123456789abcdef"), "{answer}");
    }
    assert!(daemon.asked.lock().unwrap().is_empty());
    let answer = send(address, &request("GET", path, "127.0.0.1", token)).await;
    assert_eq!(status(&answer), "200", "{answer}");
}

/// One that hangs ends after its time, and does not keep others from their answers for ever.
#[tokio::test]
async fn answers_that_hang_end() {
    let (address, _daemon) = serve(Some(PageSettings::default())).await;
    let hang = || get(address, "/status/api/peer/hangs", "");
    let (a, b, c) = tokio::join!(hang(), hang(), hang());
    for answer in [a, b, c] {
        assert_eq!(status(&answer), "503");
        assert!(answer.contains("no answer within 100ms"), "{answer}");
    }
    assert_eq!(status(&get(address, "/status/api/explain/::1", "").await), "200");
}
