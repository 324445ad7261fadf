//! The parts of a kubeconfig file that a daemon can use.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::calico::yaml;
use crate::datastore::Secret;

/// The settings of one context of a kubeconfig.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kubeconfig {
    /// The server's URL.
    pub(super) server: String,
    /// CA certificates for its certificate; `None`: those of the system.
    pub(super) ca: Option<Content>,
    /// The name in its certificate, if it is not the URL's host.
    pub(super) server_name: Option<String>,
    /// Our certificate and its key.
    pub(super) certificate: Option<(Content, Content)>,
    /// Our token.
    pub(super) token: Option<Token>,
}

/// Certificates or a key in PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// In a file, which is read for each connection.
    File(PathBuf),
    /// In the kubeconfig itself.
    Here(Vec<u8>),
}

/// Keys are not shown.
impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Content::File(path) => f.debug_tuple("File").field(path).finish(),
            Content::Here(_) => f.write_str("Here(…)"),
        }
    }
}

/// A bearer token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// In a file, which kubelet or another program renews.
    File(PathBuf),
    /// In the kubeconfig itself.
    Here(Secret),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Document {
    current_context: String,
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
    contexts: Vec<NamedContext>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamedCluster {
    name: String,
    cluster: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamedUser {
    name: String,
    user: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

/// Keys of a cluster that would change which server is reached, and are not supported: ignoring
/// them would be wrong.
const CLUSTER_REFUSED: [(&str, &str); 2] = [
    ("insecure-skip-tls-verify", "name the server's authority in certificate-authority"),
    ("proxy-url", "margay connects to the API server directly"),
];

/// Keys of a user that are not supported.
const USER_REFUSED: [(&str, &str); 6] = [
    ("exec", "margay runs no programs for credentials: use tokenFile or a client certificate"),
    ("auth-provider", "use tokenFile or a client certificate"),
    ("username", "API servers take no passwords any more: use tokenFile or a client certificate"),
    ("password", "API servers take no passwords any more: use tokenFile or a client certificate"),
    ("as", "margay impersonates nobody: use credentials of its own account"),
    ("impersonate", "margay impersonates nobody: use credentials of its own account"),
];

impl Kubeconfig {
    /// Reads the settings of a context from a file; `None`: of its `current-context`.
    ///
    /// # Errors
    /// The file cannot be read or used. The text names the file and what to write, and never
    /// quotes a credential.
    pub(super) fn read(path: &Path, context: Option<&str>) -> Result<Kubeconfig, String> {
        let name = path.display();
        let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {name}: {e}"))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        Kubeconfig::parse(&text, folder, context).map_err(|fault| format!("{name}: {fault}"))
    }

    fn parse(text: &str, folder: &Path, context: Option<&str>) -> Result<Kubeconfig, String> {
        let documents = yaml::documents(text).map_err(|e| e.to_string())?;
        let value = documents.into_iter().next().ok_or("the file is empty")?;
        // A message of serde's would quote the value.
        let document = Document::deserialize(value).map_err(|_| "it is no kubeconfig")?;
        let wanted = context.unwrap_or(&document.current_context);
        if wanted.is_empty() {
            return Err("it has no current-context: name one in K8S_CURRENT_CONTEXT".to_owned());
        }
        let found = document.contexts.iter().find(|c| c.name == wanted);
        let Context { cluster, user } =
            &found.ok_or_else(|| format!("there is no context \"{wanted}\""))?.context;
        let clusters = document.clusters.iter().find(|c| c.name == *cluster);
        let cluster = Entry {
            map: &clusters.ok_or_else(|| format!("there is no cluster \"{cluster}\""))?.cluster,
            folder,
        };
        let empty = serde_json::Map::new();
        let users = document.users.iter().find(|u| u.name == *user);
        let user = match users {
            Some(named) => Entry { map: &named.user, folder },
            None if user.is_empty() => Entry { map: &empty, folder },
            None => return Err(format!("there is no user \"{user}\"")),
        };
        cluster.refuse(&CLUSTER_REFUSED)?;
        user.refuse(&USER_REFUSED)?;
        let server = cluster.text("server")?.ok_or("the cluster has no server")?;
        let certificate = match (user.content("client-certificate")?, user.content("client-key")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err("client-certificate and client-key come together".to_owned()),
        };
        let token_file = user.text("tokenFile")?.map(|file| Token::File(folder.join(file)));
        let token = user.text("token")?.map(|text| Token::Here(Secret::new(text)));
        Ok(Kubeconfig {
            server: server.trim_end_matches('/').to_owned(),
            ca: cluster.content("certificate-authority")?,
            server_name: cluster.text("tls-server-name")?.map(str::to_owned),
            certificate,
            // As in client-go, the file wins.
            token: token_file.or(token),
        })
    }
}

/// A cluster or user.
struct Entry<'a> {
    map: &'a serde_json::Map<String, serde_json::Value>,
    /// Base of relative paths.
    folder: &'a Path,
}

impl<'a> Entry<'a> {
    /// A string; an empty one counts as absent.
    fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        match self.map.get(key) {
            None | Some(serde_json::Value::Null) => Ok(None),
            Some(serde_json::Value::String(text)) => {
                Ok(Some(text.trim()).filter(|text| !text.is_empty()))
            }
            Some(_) => Err(format!("{key} is not text")),
        }
    }

    /// The content of `KEY-data`, else the file that `KEY` names.
    fn content(&self, key: &str) -> Result<Option<Content>, String> {
        let data = format!("{key}-data");
        if let Some(encoded) = self.text(&data)? {
            let octets = STANDARD
                .decode(encoded.split_ascii_whitespace().collect::<String>())
                .map_err(|_| format!("{data} is not base64"))?;
            return Ok(Some(Content::Here(octets)));
        }
        Ok(self.text(key)?.map(|file| Content::File(self.folder.join(file))))
    }

    fn refuse(&self, keys: &[(&str, &str)]) -> Result<(), String> {
        for (key, remedy) in keys {
            let is_set = match self.map.get(*key) {
                None | Some(serde_json::Value::Null | serde_json::Value::Bool(false)) => false,
                Some(serde_json::Value::String(text)) => !text.is_empty(),
                Some(_) => true,
            };
            if is_set {
                return Err(format!("{key} is not supported: {remedy}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(cluster: &str, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
             contexts:\n- {{name: a, context: {{cluster: c, user: u}}}}\n\
             - {{name: b, context: {{cluster: c, user: nobody}}}}\n\
             clusters:\n- {{name: c, cluster: {{server: 'https://h:1/', {cluster}}}}}\n\
             users:\n- {{name: u, user: {{{user}}}}}\n"
        )
    }

    fn parse(cluster: &str, user: &str) -> Result<Kubeconfig, String> {
        Kubeconfig::parse(&config(cluster, user), Path::new("/etc/k"), None)
    }

    #[test]
    fn files_are_relative_to_the_kubeconfig_and_data_takes_precedence() {
        let read = parse(
            "certificate-authority: ca.pem, tls-server-name: name",
            "client-certificate-data: Y2VydA==, client-certificate: x, client-key: /k, \
             token: t, tokenFile: token",
        );
        let read = read.unwrap();
        assert_eq!(read.server, "https://h:1");
        assert_eq!(read.ca, Some(Content::File("/etc/k/ca.pem".into())));
        assert_eq!(read.server_name.as_deref(), Some("name"));
        let certificate = Content::Here(b"cert".to_vec());
        assert_eq!(read.certificate, Some((certificate, Content::File("/k".into()))));
        assert_eq!(read.token, Some(Token::File("/etc/k/token".into())));
        assert_eq!(parse("", "token: t").unwrap().token, Some(Token::Here(Secret::new("t"))));
    }

    #[test]
    fn keys_that_are_not_supported_are_refused() {
        for (cluster, user, key) in [
            ("insecure-skip-tls-verify: true", "", "insecure-skip-tls-verify"),
            ("proxy-url: 'http://p'", "", "proxy-url"),
            ("", "exec: {command: aws}", "exec"),
            ("", "auth-provider: {name: oidc}", "auth-provider"),
            ("", "username: u, password: s3cret", "username"),
            ("", "as: root", "as"),
        ] {
            let fault = parse(cluster, user).unwrap_err();
            assert!(fault.starts_with(&format!("{key} is not supported: ")), "{fault}");
            assert!(!fault.contains("s3cret"));
        }
        assert!(parse("insecure-skip-tls-verify: false", "").is_ok());
    }

    #[test]
    fn missing_entries_are_named() {
        let fault =
            |text: &str, context| Kubeconfig::parse(text, Path::new("/"), context).unwrap_err();
        let whole = config("", "");
        assert_eq!(fault(&whole, Some("x")), "there is no context \"x\"");
        assert_eq!(fault(&whole, Some("b")), "there is no user \"nobody\"");
        assert_eq!(fault("", None), "the file is empty");
        assert!(fault("{}", None).contains("K8S_CURRENT_CONTEXT"));
        assert_eq!(fault("clusters: s3cret", None), "it is no kubeconfig");
        assert!(parse("", "client-key: /k").unwrap_err().contains("come together"));
        assert!(parse("", "token: [s3cret]").unwrap_err() == "token is not text");
        let missing = Kubeconfig::read(Path::new("/nonexistent"), None).unwrap_err();
        assert!(missing.starts_with("cannot read /nonexistent"));
    }
}
