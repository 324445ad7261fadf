use std::os::unix::fs::PermissionsExt;
use std::os::unix::net as blocking;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use tokio::io::DuplexStream;

use super::*;
use crate::ctl::{Page, Reply};

/// The limit that a test exceeds; all other limits are long.
const SHORT: Duration = Duration::from_millis(50);

/// Answers with numbers, `size` per page, `pages` pages. One kind of request hangs, another is
/// refused.
struct Numbers {
    pages: u32,
    size: u32,
    asked: AtomicUsize,
}

impl Numbers {
    fn new(pages: u32, size: u32) -> Arc<Self> {
        Arc::new(Numbers { pages, size, asked: AtomicUsize::new(0) })
    }
}

impl Backend for Numbers {
    async fn page(&self, request: &Request, cursor: Option<&Cursor>) -> Result<Page, Refusal> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match request {
            Request::ShowPeer { name } => return Err(Refusal::no_peer(name, ["a"])),
            Request::Reload => std::future::pending().await,
            _ => {}
        }
        let page = match cursor {
            Some(Cursor::Index(page)) => *page,
            _ => 0,
        };
        let first = page * self.size;
        let next = (page + 1 < self.pages).then_some(Cursor::Index(page + 1));
        Page::new(first..first + self.size, next)
    }
}

/// The client's end of a connection, whose other end is served.
fn connect(
    backend: &Arc<Numbers>,
    buffer: usize,
    waits: Waits,
) -> (DuplexStream, tokio::task::JoinHandle<()>) {
    let (client, server) = tokio::io::duplex(buffer);
    let backend = Arc::clone(backend);
    let task = tokio::spawn(async move {
        let (reader, writer) = tokio::io::split(server);
        let (_place, heard) = ClientSlots::new(1).take();
        serve(BufReader::new(reader), writer, (&*backend, &Scope::All), waits, &heard).await;
    });
    (client, task)
}

async fn lines(client: &mut (impl AsyncBufRead + Unpin), count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for _ in 0..count {
        let mut line = String::new();
        client.read_line(&mut line).await.unwrap();
        lines.push(line.trim_end().to_owned());
    }
    lines
}

#[tokio::test]
async fn an_answer_is_its_pages_and_their_count() {
    let backend = Numbers::new(3, 2);
    let (client, _task) = connect(&backend, 4096, Waits::default());
    let mut client = BufReader::new(client);
    for _ in 0..2 {
        client.write_all(b"{\"request\":\"show-routes\"}\n").await.unwrap();
        let mut wanted: Vec<String> = (0..6).map(|n| format!("{{\"item\":{n}}}")).collect();
        wanted.push("{\"done\":{\"items\":6}}".into());
        assert_eq!(lines(&mut client, 7).await, wanted, "several requests on one connection");
    }
}

#[tokio::test]
async fn an_invalid_request_is_refused_and_the_client_may_continue() {
    let backend = Numbers::new(1, 0);
    let (client, _task) = connect(&backend, 4096, Waits::default());
    let mut client = BufReader::new(client);
    client.write_all(b"hello\n{\"request\":\"show-status\"}\n").await.unwrap();
    let lines = lines(&mut client, 2).await;
    assert!(lines[0].starts_with("{\"error\":{\"kind\":\"bad-request\""), "{lines:?}");
    assert_eq!(lines[1], "{\"done\":{\"items\":0}}");
}

#[tokio::test]
async fn a_line_without_end_is_refused_and_closes_the_connection() {
    let backend = Numbers::new(1, 0);
    let (mut client, task) = connect(&backend, 4096, Waits::default());
    let endless = tokio::spawn(async move {
        let octets = vec![b' '; REQUEST_LEN_MAX as usize + 4096];
        let _ = client.write_all(&octets).await;
        client
    });
    task.await.unwrap();
    let mut text = String::new();
    endless.await.unwrap().read_to_string(&mut text).await.unwrap();
    assert!(text.contains("no line end within 1048576 octets"), "{text}");
    assert_eq!(backend.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn only_a_request_with_objects_may_be_long() {
    let backend = Numbers::new(1, 0);
    let (client, _task) = connect(&backend, 4096, Waits::default());
    let mut client = BufReader::new(client);
    let long = " ".repeat(REQUEST_LEN_USUAL);
    client.write_all(format!("{{\"request\":\"show-status\"}}{long}\n").as_bytes()).await.unwrap();
    let refused = lines(&mut client, 1).await;
    assert!(refused[0].contains("longer than 65536 octets"), "{refused:?}");
    assert_eq!(backend.asked.load(Ordering::SeqCst), 0);
    let file = crate::ctl::ObjectFile { name: "f".into(), text: long };
    let request = Request::CalicoDryRun { apply: vec![file], delete: Vec::new(), list: None };
    let request = serde_json::to_string(&request).unwrap() + "\n";
    client.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(lines(&mut client, 1).await, ["{\"done\":{\"items\":0}}"]);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected_and_costs_two_pages() {
    let backend = Numbers::new(1_000_000, 100);
    let waits = Waits { write: SHORT, ..Waits::default() };
    let (mut client, task) = connect(&backend, 64, waits);
    client.write_all(b"{\"request\":\"show-routes\"}\n").await.unwrap();
    task.await.unwrap();
    assert_eq!(backend.asked.load(Ordering::SeqCst), 2, "the next is made meanwhile");
}

#[tokio::test]
async fn a_client_without_a_request_is_disconnected() {
    let backend = Numbers::new(1, 0);
    let waits = Waits { request: SHORT, ..Waits::default() };
    let (mut client, task) = connect(&backend, 64, waits);
    client.write_all(b"{\"request\"").await.unwrap();
    task.await.unwrap();
    assert_eq!(backend.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_daemon_that_hangs_is_reported() {
    let backend = Numbers::new(1, 0);
    let (client, _task) = connect(&backend, 4096, Waits { page: SHORT, ..Waits::default() });
    let mut client = BufReader::new(client);
    client.write_all(b"{\"request\":\"reload\"}\n").await.unwrap();
    let wanted = r#"{"error":{"kind":"failed","text":"the daemon gave no answer within 50ms"}}"#;
    assert_eq!(lines(&mut client, 1).await, [wanted]);
}

#[tokio::test]
async fn the_socket_is_for_owner_and_group_and_is_removed_with_the_server() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("made/for/us.sock");
    let server = Server::bind(&path, None).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let entries = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(entries, 1, "the temporary name is gone");
    drop(server);
    assert!(!path.exists());
}

#[tokio::test]
async fn only_a_socket_without_a_listener_is_replaced() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("m.sock");
    drop(blocking::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead socket stays behind");
    let first = Server::bind(&path, None).unwrap();
    assert!(
        matches!(Server::bind(&path, None), Err(ServerError::InUse { path: p, .. }) if p == path)
    );

    // Another process takes the path: the first server must not remove it.
    std::fs::remove_file(&path).unwrap();
    let second = Server::bind(&path, None).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);

    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(Server::bind(&path, None), Err(ServerError::NotASocket { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

/// Sends a request, and counts the items of the answer.
fn items_for(client: &mut blocking::UnixStream) -> usize {
    std::io::Write::write_all(client, b"{\"request\":\"health\"}\n").unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(client));
    let replies = lines.map(|line| serde_json::from_str::<Reply>(&line.unwrap()).unwrap());
    replies.take_while(|reply| matches!(reply, Reply::Item(_))).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_clients_do_not_lock_out_a_probe_and_active_ones_stay() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("m.sock");
    let server = tokio::spawn(Server::bind(&path, None).unwrap().run(Numbers::new(1, 1)));
    tokio::task::spawn_blocking(move || {
        let mut operator = blocking::UnixStream::connect(&path).unwrap();
        let mut crowd = Vec::new();
        for _ in 0..4 {
            crowd.extend((2..CLIENTS_MAX).map(|_| blocking::UnixStream::connect(&path).unwrap()));
            let answered = items_for(&mut blocking::UnixStream::connect(&path).unwrap());
            assert_eq!(answered, 1, "a probe");
            // The probe was answered after the crowd had connected; the operator is active after
            // it.
            assert_eq!(items_for(&mut operator), 1, "never the one that was silent longest");
        }
        // The first clients of the crowd were disconnected.
        let mut first = crowd.swap_remove(0);
        first.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(std::io::Read::read(&mut first, &mut [0]).unwrap(), 0, "closed");
    })
    .await
    .unwrap();
    server.abort();
}

/// Anybody may ask, nobody may change anything; an operator is told where to go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_socket_takes_what_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let (full, path) = (folder.path().join("m.sock"), folder.path().join("read.sock"));
    let everyone = Server::bind_read_only(&path, None, &full).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o666);
    drop(everyone);
    let own = rustix::process::getgid().as_raw().to_string();
    let server = Server::bind_read_only(&path, Some(&own), &full).unwrap();
    assert_eq!(mode(&path), 0o660);
    let backend = Numbers::new(1, 1);
    let server = tokio::spawn(server.run(Arc::clone(&backend)));
    let answers = tokio::task::spawn_blocking(move || {
        use std::io::{BufRead as _, BufReader, Write as _};
        let mut client = BufReader::new(blocking::UnixStream::connect(&path).unwrap());
        let mut answer = |request: &str| {
            client.get_mut().write_all(format!("{{\"request\":{request}}}\n").as_bytes()).unwrap();
            let mut line = String::new();
            client.read_line(&mut line).unwrap();
            if line.contains("item") {
                client.read_line(&mut String::new()).unwrap();
            }
            line
        };
        let mut answers = Vec::new();
        for request in [
            "\"stop\",\"mode\":\"graceful\"",
            "\"reload\"",
            "\"log-level\",\"level\":\"debug\"",
            "\"peer\",\"action\":\"retry\",\"peers\":\"all\"",
            "\"announce\",\"prefix\":\"10.0.0.0/8\"",
            "\"probe\",\"peer\":\"a\"",
        ] {
            answers.push((request, false, answer(request)));
        }
        for request in [
            "\"show-status\"",
            "\"log-level\"",
            "\"peer\",\"action\":\"retry\",\"peers\":\"all\",\"rehearsal\":\"dry-run\"",
            "\"explain\",\"prefix\":\"10.0.0.0/8\"",
        ] {
            answers.push((request, true, answer(request)));
        }
        answers
    })
    .await
    .unwrap();
    for (request, is_taken, answer) in answers {
        if is_taken {
            assert!(answer.starts_with("{\"item\":"), "{request}: {answer}");
        } else {
            assert!(answer.contains("\"kind\":\"forbidden\""), "{request}: {answer}");
            assert!(answer.contains(&format!("--socket {}", full.display())), "{answer}");
        }
    }
    assert_eq!(backend.asked.load(Ordering::SeqCst), 4, "what is refused reaches nobody");
    server.abort();
}

#[test]
fn a_group_that_is_not_there_is_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("m.sock");
    let Err(error) = Server::bind(&path, Some("no-such-group-here")) else { panic!("bound") };
    let text = error.to_string();
    assert!(text.contains("group no-such-group-here: /etc/group has no such group"), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
}
