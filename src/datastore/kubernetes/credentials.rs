//! Our credentials for the API server and how its certificate is verified, read from files.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::header::HeaderValue;
use serde::Deserialize;
use tokio::time::Instant;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, CertificateError, ClientConfig, RootCertStore};

use super::config::ApiConfig;
use super::kubeconfig::{Content, Kubeconfig, Token};
use crate::datastore::Secret;
use crate::datastore::certificate::{Moment, Validity};

/// A token file is read again after this long, as client-go does.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(60);
/// Longest token that is read, in octets.
const TOKEN_MAX: usize = 64 << 10;

/// How to reach the server, resolved from the configuration and its files at one moment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Access {
    /// The host of the URL, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) scheme: Scheme,
    /// Prefix of every path; empty or `/PREFIX`.
    pub(super) prefix: String,
    server_name: Option<String>,
    ca: Option<Content>,
    certificate: Option<(Content, Content)>,
    token: Option<Token>,
}

/// Whether the connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Access {
    /// Reads the configuration and the files that it names.
    ///
    /// # Errors
    /// Something is missing or not valid. The text never contains a credential.
    pub(super) fn resolve(config: &ApiConfig) -> Result<Access, String> {
        let context = config.context.as_deref();
        let file = config.kubeconfig.as_deref().map(|path| Kubeconfig::read(path, context));
        let file = file.transpose()?;
        let of_account = |name: &str| {
            let path = config.account.join(name);
            path.exists().then_some(path)
        };
        let url = config.endpoint.as_deref();
        let url = url.or(file.as_ref().map(|file| file.server.as_str()));
        let url = url.or(config.in_cluster.as_deref());
        let url = url.ok_or("nothing says where the API server is: name it in K8S_API_ENDPOINT")?;
        let at = Access::at(url)?;
        let mut access = match file {
            Some(file) => Access {
                server_name: file.server_name,
                ca: file.ca,
                certificate: file.certificate,
                token: file.token,
                ..at
            },
            None => Access {
                ca: of_account("ca.crt").map(Content::File),
                token: of_account("token").map(Token::File),
                ..at
            },
        };
        if let Some(path) = &config.ca_file {
            access.ca = Some(Content::File(path.clone()));
        }
        if let Some((certificate, key)) = &config.certificate {
            let file = |path: &Path| Content::File(path.to_path_buf());
            access.certificate = Some((file(certificate), file(key)));
        }
        if let Some(path) = &config.token_file {
            access.token = Some(Token::File(path.clone()));
        }
        let is_in_pod = config.kubeconfig.is_none() && access.certificate.is_none();
        if is_in_pod && access.token.is_none() {
            let path = config.account.join("token");
            return Err(format!("there is no token in {}: name a kubeconfig", path.display()));
        }
        // Without TLS a token would be sent in the clear.
        if access.scheme == Scheme::Http {
            access.token = None;
        }
        Ok(access)
    }

    fn at(url: &str) -> Result<Access, String> {
        let fault = || format!("\"{url}\" is not a URL such as https://10.96.0.1:443");
        let (scheme, rest) = url.split_once("://").ok_or_else(fault)?;
        let (scheme, default) = match scheme {
            "https" => (Scheme::Https, 443),
            "http" => (Scheme::Http, 80),
            _ => return Err(fault()),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_address = authority.starts_with('[');
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !is_address || host.ends_with(']') => {
                (host, port.parse().map_err(|_| fault())?)
            }
            _ => (authority, default),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains(['@', ' ', '?', '#']) {
            return Err(fault());
        }
        Ok(Access {
            host: host.to_owned(),
            port,
            scheme,
            prefix: path.trim_end_matches('/').to_owned(),
            server_name: None,
            ca: None,
            certificate: None,
            token: None,
        })
    }

    /// Host and port in the form of a `Host` header.
    pub(super) fn authority(&self) -> String {
        let Access { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// The name that the server's certificate has to be valid for.
    pub(super) fn server_name(&self) -> Result<ServerName<'static>, String> {
        let name = self.server_name.clone().unwrap_or_else(|| self.host.clone());
        let owned = name.clone();
        ServerName::try_from(owned).map_err(|_| format!("\"{name}\" is not a name for TLS"))
    }

    /// The configuration of TLS: roots, client certificate and ALPN.
    pub(super) fn tls(&self) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(self.roots()?);
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let octets = key.read()?;
                let key_of = PrivateKeyDer::from_pem_slice(&octets);
                let key_of = key_of.map_err(|_| format!("{} holds no key in PEM", key.name()))?;
                let config = builder.with_client_auth_cert(chain, key_of);
                config.map_err(|e| format!("{} cannot be used: {e}", certificate.name()))?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        let found = match &self.ca {
            Some(ca) => certificates(ca)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        roots.add_parsable_certificates(found);
        if roots.is_empty() {
            return Err("no authority is known that could have signed the server's certificate: \
                        name one in K8S_CA_FILE"
                .to_owned());
        }
        Ok(roots)
    }

    /// Why our own certificate is not valid at present, as text; a server that refuses it does not
    /// say.
    pub(super) fn certificate_fault(&self, now: SystemTime) -> Option<String> {
        let (certificate, _) = self.certificate.as_ref()?;
        let fault = Validity::of_pem(&certificate.read().ok()?)?.fault_at(now)?;
        Some(format!("our certificate in {} {fault}", certificate.name()))
    }

    /// Our token; `known` holds the last one read, and is cleared if it is of another file or
    /// context.
    pub(super) fn bearer(&self, known: &Arc<Mutex<LastToken>>) -> Bearer {
        let mut last = known.lock().unwrap_or_else(PoisonError::into_inner);
        if last.of != self.token {
            *last = LastToken { of: self.token.clone(), ..LastToken::default() };
        }
        last.read_at = None;
        drop(last);
        Bearer(Arc::clone(known))
    }
}

impl Content {
    fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Content::Here(octets) => Ok(octets.clone()),
            Content::File(path) => {
                std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
            }
        }
    }

    fn name(&self) -> String {
        match self {
            Content::Here(_) => "the kubeconfig".to_owned(),
            Content::File(path) => path.display().to_string(),
        }
    }
}

fn certificates(content: &Content) -> Result<Vec<CertificateDer<'static>>, String> {
    let octets = content.read()?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&octets).collect();
    match read {
        Ok(list) if !list.is_empty() => Ok(list),
        _ => Err(format!("{} holds no certificate in PEM", content.name())),
    }
}

/// The last token read. It outlives connections, so that a file that is missing for a moment does
/// no harm.
#[derive(Debug, Default)]
pub(super) struct LastToken {
    of: Option<Token>,
    value: Option<Secret>,
    read_at: Option<Instant>,
}

/// Our token.
#[derive(Clone, Debug)]
pub(super) struct Bearer(Arc<Mutex<LastToken>>);

impl Bearer {
    /// No token.
    #[cfg(test)]
    pub(super) fn none() -> Bearer {
        Bearer(Arc::default())
    }

    /// The token in a file.
    #[cfg(test)]
    pub(super) fn of_file(path: &Path) -> Bearer {
        let of = Some(Token::File(path.to_path_buf()));
        Bearer(Arc::new(Mutex::new(LastToken { of, ..LastToken::default() })))
    }

    /// The `Authorization` header; `None`: there is no token.
    ///
    /// # Errors
    /// The token's file cannot be read and never could.
    pub(super) fn header(&self) -> Result<Option<HeaderValue>, String> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.of.is_none() {
            return Ok(None);
        }
        if last.read_at.is_none_or(|at| at.elapsed() >= TOKEN_AGE_MAX) {
            last.read()?;
        }
        let Some(token) = &last.value else { return Ok(None) };
        let header = HeaderValue::from_str(&format!("Bearer {}", token.reveal()));
        let mut header = header.map_err(|_| "the token has characters that no token has")?;
        header.set_sensitive(true);
        Ok(Some(header))
    }

    /// Reads the token now; returns whether it has changed.
    pub(super) fn renew(&self) -> Renewed {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.value.clone();
        let _ = last.read();
        if last.value == before { Renewed::Same } else { Renewed::Other }
    }

    /// Why the token is not valid at present by its own claims, for error texts only.
    pub(super) fn fault(&self, now: SystemTime) -> Option<String> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let claims = Claims::of(last.value.as_ref()?.reveal())?;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let moment = |seconds| Moment::of(UNIX_EPOCH + Duration::from_secs(seconds));
        let place = match &last.of {
            Some(Token::File(path)) => format!("the token in {}", path.display()),
            _ => "the token of the kubeconfig".to_owned(),
        };
        if claims.exp.is_some_and(|exp| exp <= now) {
            let at = moment(claims.exp.unwrap_or_default());
            return Some(format!("{place} expired on {at}: has kubelet stopped renewing it?"));
        }
        claims.nbf.filter(|nbf| *nbf > now).map(|nbf| {
            let at = moment(nbf);
            format!(
                "{place} is not valid before {at}: check the clocks of this machine and the server"
            )
        })
    }
}

/// Whether a token that was read again has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewed {
    Other,
    Same,
}

impl LastToken {
    /// Reads the token; the last one is kept if the file cannot be read.
    fn read(&mut self) -> Result<(), String> {
        let read = match &self.of {
            None => return Ok(()),
            Some(Token::Here(secret)) => Ok(secret.clone()),
            Some(Token::File(path)) => token_in(path),
        };
        match read {
            Ok(secret) => {
                self.value = Some(secret);
                self.read_at = Some(Instant::now());
                Ok(())
            }
            Err(_) if self.value.is_some() => {
                self.read_at = Some(Instant::now());
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }
}

fn token_in(path: &Path) -> Result<Secret, String> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {name}: {e}"))?;
    match text.trim() {
        "" => Err(format!("{name} is empty: it should hold a token")),
        token if token.len() > TOKEN_MAX => Err(format!("{name} is too long for a token")),
        token => Ok(Secret::new(token)),
    }
}

/// The claims of a token (RFC 7519 §4.1), unverified.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Claims {
    exp: Option<u64>,
    nbf: Option<u64>,
}

impl Claims {
    fn of(token: &str) -> Option<Claims> {
        let payload = token.split('.').nth(1)?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }
}

/// The reason why TLS failed, and what to do.
pub(super) fn explain_tls(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(fault)) = inner else {
        return format!("TLS: {error}");
    };
    let remedy = match fault {
        CertificateError::UnknownIssuer => {
            "its authority is not the one in the service account's ca.crt, the kubeconfig or \
             K8S_CA_FILE"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "renew it, or set the clock of this machine"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "check the clock of this machine"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for other names: use one of them as host, or as tls-server-name of the kubeconfig"
        }
        _ => "it cannot be used",
    };
    format!("the server's certificate is refused: {remedy} ({fault})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("margay-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn urls_are_parsed() {
        let at = |url| {
            let access = Access::at(url).unwrap();
            (access.authority(), access.prefix, access.scheme)
        };
        let https =
            |authority: &str, prefix: &str| (authority.into(), prefix.into(), Scheme::Https);
        assert_eq!(at("https://10.96.0.1"), https("10.96.0.1:443", ""));
        assert_eq!(at("https://[fd00::1]:6443/"), https("[fd00::1]:6443", ""));
        assert_eq!(at("https://[fd00::1]"), https("[fd00::1]:443", ""));
        assert_eq!(at("https://h:1/k8s/c-1"), https("h:1", "/k8s/c-1"));
        assert_eq!(at("http://127.0.0.1:8001").2, Scheme::Http);
        for wrong in ["h:1", "ftp://h", "https://", "https://u@h", "https://h:x"] {
            assert!(Access::at(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pod_without_a_token_is_an_error_and_plain_http_gets_none() {
        let folder = scratch("account");
        let mut config = ApiConfig {
            in_cluster: Some("https://10.96.0.1:443".into()),
            account: folder.clone(),
            ..ApiConfig::default()
        };
        assert!(Access::resolve(&config).unwrap_err().contains("there is no token"));
        std::fs::write(folder.join("token"), "t").unwrap();
        let access = Access::resolve(&config).unwrap();
        assert_eq!(access.token, Some(Token::File(folder.join("token"))));
        config.endpoint = Some("http://127.0.0.1:8001".into());
        assert_eq!(Access::resolve(&config).unwrap().token, None);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_read_again_after_a_minute_and_kept_where_its_file_is_gone() {
        let folder = scratch("token");
        let path = folder.join("token");
        let bearer = Bearer::of_file(&path);
        assert!(bearer.header().unwrap_err().contains("cannot read"));
        let header = || bearer.header().unwrap().unwrap().to_str().unwrap().to_owned();
        std::fs::write(&path, "a\n").unwrap();
        assert_eq!(header(), "Bearer a");
        std::fs::write(&path, "b").unwrap();
        assert_eq!(header(), "Bearer a");
        tokio::time::advance(TOKEN_AGE_MAX).await;
        assert_eq!(header(), "Bearer b");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(bearer.renew(), Renewed::Same);
        tokio::time::advance(TOKEN_AGE_MAX).await;
        assert_eq!(header(), "Bearer b");
        std::fs::write(&path, "c").unwrap();
        assert_eq!((bearer.renew(), header()), (Renewed::Other, "Bearer c".into()));
        assert!(!format!("{bearer:?}").contains('c') || !format!("{bearer:?}").contains("\"c\""));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_claims_of_a_token_explain_a_refusal() {
        let folder = scratch("claims");
        let path = folder.join("token");
        let at = |now: u64, claims: &str| {
            let payload = URL_SAFE_NO_PAD.encode(claims);
            std::fs::write(&path, format!("e30.{payload}.x")).unwrap();
            let bearer = Bearer::of_file(&path);
            bearer.header().unwrap();
            bearer.fault(UNIX_EPOCH + Duration::from_secs(now))
        };
        let claims = r#"{"exp":951782400,"nbf":951782000}"#;
        let expired = at(951_782_400, claims).unwrap();
        assert!(expired.contains("expired on 2000-02-29 00:00:00 UTC"), "{expired}");
        assert!(at(951_781_000, claims).unwrap().contains("check the clocks"));
        assert_eq!(at(951_782_100, claims), None);
        assert_eq!(at(1, "x"), None);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
