//! Access to etcd: certificates, users and tokens.

use std::fs;
use std::path::Path;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, CompactionOptions, ConnectOptions, Identity, Permission, PermissionType,
    TlsOptions,
};
use interop::pki::{Pki, When};
use margay::datastore::{EtcdConfig, Password, Secret, TlsFiles, User};
use tempfile::TempDir;

use crate::consumer::Consumer;
use crate::etcd::{Etcd, Options, node, peer, put_all};

/// A certificate authority for servers on the loopback.
fn authority(folder: &TempDir, name: &str) -> Pki {
    Pki::new(&folder.path().join(name), name, "DNS:localhost,IP:127.0.0.1,IP:::1").unwrap()
}

fn tls_flags(pki: &Pki) -> Vec<String> {
    vec![
        format!("--cert-file={}", pki.path("server", "crt")),
        format!("--key-file={}", pki.path("server", "key")),
        format!("--trusted-ca-file={}", pki.path("ca", "crt")),
        "--client-cert-auth".to_owned(),
    ]
}

async fn tls_client(etcd: &Etcd, pki: &Pki) -> Client {
    let read = |name: &str, extension| fs::read(pki.path(name, extension)).unwrap();
    let mut tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(read("ca", "crt")))
        .identity(Identity::from_pem(read("root", "crt"), read("root", "key")));
    if etcd.url.contains('[') {
        tls = tls.domain_name("::1");
    }
    etcd.client_with(ConnectOptions::new().with_tls(tls)).await
}

fn files(pki: &Pki, client: &str) -> TlsFiles {
    TlsFiles {
        ca: Some(pki.path("ca", "crt").into()),
        cert: Some(pki.path(client, "crt").into()),
        key: Some(pki.path(client, "key").into()),
    }
}

fn with_tls(etcd: &Etcd, tls: TlsFiles) -> EtcdConfig {
    EtcdConfig { tls, ..etcd.config() }
}

/// The reason given for an attempt that cannot succeed.
async fn reason(config: EtcdConfig) -> String {
    let mut consumer = Consumer::start(config);
    consumer.until("away", Consumer::is_away).await;
    assert_eq!(consumer.lists, 0);
    let reason = consumer.reason().to_owned();
    println!("{reason}");
    reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd and openssl"]
async fn certificates_are_checked_on_both_sides_and_renewed_ones_take_effect() {
    let folder = TempDir::new().unwrap();
    let pki = authority(&folder, "authority");
    let other = authority(&folder, "other");
    for (name, common_name, when) in [
        ("server", "etcd", When::Always),
        ("root", "root", When::Always),
        ("client", "margay", When::Always),
        ("old", "margay", When::Past),
    ] {
        pki.issue(name, common_name, when).unwrap();
    }
    other.issue("client", "margay", When::Always).unwrap();
    let options = Options { flags: tls_flags(&pki), scheme: Some("https"), host: Some("[::1]") };
    let etcd = Etcd::start(options).await;
    let mut client = tls_client(&etcd, &pki).await;
    put_all(&mut client, &[node(1, 0)]).await;
    let mut consumer = Consumer::current(with_tls(&etcd, files(&pki, "client"))).await;
    assert_eq!(consumer.known.len(), 1);

    let no_client = TlsFiles { cert: None, key: None, ..files(&pki, "client") };
    reason(with_tls(&etcd, no_client)).await;
    reason(with_tls(&etcd, files(&other, "client"))).await;
    let unknown = TlsFiles { ca: Some(other.path("ca", "crt").into()), ..files(&pki, "client") };
    let text = reason(with_tls(&etcd, unknown)).await;
    assert!(text.contains("UnknownIssuer"), "{text}");
    let text = reason(with_tls(&etcd, TlsFiles { ca: None, ..files(&pki, "client") })).await;
    assert!(text.contains("UnknownIssuer") || text.contains("certificate"), "{text}");
    let old = pki.path("old", "crt");
    let text = reason(with_tls(&etcd, files(&pki, "old"))).await;
    assert!(
        text.contains(&format!("our certificate {old} expired on 2021-02-03 04:05:06")),
        "{text}"
    );
    let missing = TlsFiles { ca: Some("/nowhere/ca.crt".into()), ..TlsFiles::default() };
    let text = reason(with_tls(&etcd, missing)).await;
    assert!(text.contains("cannot read /nowhere/ca.crt: No such file"), "{text}");
    let no_pem = TlsFiles { ca: Some(pki.path("ca", "cnf").into()), ..TlsFiles::default() };
    let text = reason(with_tls(&etcd, no_pem)).await;
    assert!(text.contains("holds no certificate"), "{text}");

    // Our certificate expired, and is replaced by a renewed one.
    let mut late = Consumer::start(with_tls(&etcd, files(&pki, "old")));
    late.until("refused", Consumer::is_away).await;
    pki.issue("old", "margay", When::Always).unwrap();
    late.until("let in", Consumer::is_current).await;
    assert_eq!(late.known, consumer.known);

    // The server's certificate expires during a session; etcd reads it on every handshake.
    pki.issue("server", "etcd", When::Past).unwrap();
    let text = reason(with_tls(&etcd, files(&pki, "client"))).await;
    assert!(text.to_lowercase().contains("expired"), "{text}");
    let mut etcd = etcd;
    etcd.kill();
    etcd.restart().await;
    consumer.until("away", |c| c.is_away() && c.reason().to_lowercase().contains("expired")).await;
    assert_eq!(consumer.known.len(), 1, "the last state stays in force");
    pki.issue("server", "etcd", When::Always).unwrap();
    consumer.until("back", Consumer::is_current).await;
    assert_eq!((consumer.lists, consumer.changes), (1, 0));
}

async fn enable_users(client: &mut Client) {
    client.user_add("root", "rootpw", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.role_add("reader").await.unwrap();
    let prefix = |prefix: &str| Permission::new(PermissionType::Read, prefix).with_prefix();
    client.role_grant_permission("reader", prefix("/calico/")).await.unwrap();
    client.user_add("margay", "s3cret-one", None).await.unwrap();
    client.user_grant_role("margay", "reader").await.unwrap();
    client.user_add("stranger", "s3cret-two", None).await.unwrap();
    client.auth_enable().await.unwrap();
}

async fn as_root(etcd: &Etcd) -> Client {
    let options = ConnectOptions::new().with_user("root", "rootpw").with_auto_token_refresh(true);
    etcd.client_with(options).await
}

fn as_user(etcd: &Etcd, name: &str, password: Password) -> EtcdConfig {
    EtcdConfig { user: Some(User { name: name.into(), password }), ..etcd.config() }
}

fn write_password(path: &Path, password: &str) {
    fs::write(path, format!("{password}\n")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd and openssl"]
async fn users_with_tokens_that_die_and_passwords_that_change() {
    let flags = vec!["--auth-token-ttl=1".to_owned()];
    let mut etcd = Etcd::start(Options { flags, ..Options::default() }).await;
    let password_file = etcd.folder().join("password");
    write_password(&password_file, "s3cret-one");
    enable_users(&mut etcd.client().await).await;
    let mut root = as_root(&etcd).await;
    put_all(&mut root, &[peer("a", 1)]).await;
    let margay = as_user(&etcd, "margay", Password::File(password_file.clone()));
    let mut consumer = Consumer::current(margay.clone()).await;

    let given = |name, secret| as_user(&etcd, name, Password::Given(Secret::new(secret)));
    let text = reason(given("margay", "s3cret-wrong")).await;
    assert!(text.contains("authentication failed"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    let text = reason(given("stranger", "s3cret-two")).await;
    assert!(text.contains("permission denied"), "{text}");
    let text = reason(etcd.config()).await;
    assert!(text.contains("user name is empty"), "{text}");

    // Longer than the lifetime of a token; then a list on the existing connection.
    consumer.read_for(Duration::from_millis(2500)).await;
    put_all(&mut root, &[peer("b", 2)]).await;
    consumer.until("a change after the token's death", |c| c.known.len() == 2).await;
    assert_eq!(consumer.states.len(), 1, "{:?}", consumer.states);

    // The password changes: open connections stay; after a restart the new one is read from the
    // file.
    root.user_change_password("margay", "s3cret-three").await.unwrap();
    let revision = root.get("x", None).await.unwrap().header().unwrap().revision();
    root.compact(revision, Some(CompactionOptions::new())).await.unwrap();
    etcd.kill();
    etcd.restart().await;
    consumer
        .until("refused", |c| c.is_away() && c.reason().contains("authentication failed"))
        .await;
    assert_eq!(consumer.known.len(), 2, "the last state stays in force");
    write_password(&password_file, "s3cret-three");
    consumer.until("let in", Consumer::is_current).await;
    let mut root = as_root(&etcd).await;
    put_all(&mut root, &[peer("c", 3)]).await;
    consumer.until("a change", |c| c.known.len() == 3).await;
    consumer.until_as_fresh(margay).await;
    assert_eq!((consumer.lists, consumer.changes), (1, 2));
}

/// etcd uses the common name of the certificate as the user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs etcd and openssl"]
async fn users_by_certificate() {
    let folder = TempDir::new().unwrap();
    let pki = authority(&folder, "authority");
    for (name, common_name) in
        [("server", "etcd"), ("root", "root"), ("margay", "margay"), ("stranger", "stranger")]
    {
        pki.issue(name, common_name, When::Always).unwrap();
    }
    let options = Options { flags: tls_flags(&pki), scheme: Some("https"), host: None };
    let etcd = Etcd::start(options).await;
    let mut root = tls_client(&etcd, &pki).await;
    put_all(&mut root, &[node(1, 0)]).await;
    enable_users(&mut root).await;
    let mut consumer = Consumer::current(with_tls(&etcd, files(&pki, "margay"))).await;
    put_all(&mut root, &[node(2, 0)]).await;
    consumer.until("a change", |c| c.known.len() == 2).await;
    let text = reason(with_tls(&etcd, files(&pki, "stranger"))).await;
    assert!(text.contains("permission denied"), "{text}");
}
