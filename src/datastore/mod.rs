//! Where Calico's objects come from: one contract, several sources.
//!
//! - [`Source`]: etcd, the Kubernetes API, a folder of files, Felix's endpoint-status folder.
//! - [`Starter`]: follows sources, each in its own task; [`Receiver`]: the events of one source.
//!
//! All sources work the same way: list everything at one moment, follow the changes from there, and
//! list again after any gap. A later list is compared with the known state and only differences are
//! sent, so that a lost connection without changes costs its consumer nothing.
//!
//! Invariants. [`Event::Listed`] comes once, before every [`Event::Changed`]. While a source cannot
//! be reached nothing is deleted: the last state sent stays in force. The memory held for a
//! consumer that does not read is bounded by the number of objects, whatever the rate of changes.
//!
//! Objects are decoded by [`crate::calico::model`]; this module does not interpret them.

mod backoff;
mod certificate;
mod etcd;
mod files;
mod kubernetes;
mod outbox;
mod variable;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::calico::Problem;
use crate::calico::model::{Decoded, ObjectId};
use crate::supervise::{self, Ending};
use files::Layout;

pub(crate) use files::{Folders, Watch as FileWatch, watch as watch_files};

pub use etcd::{
    Blocks, EnvError, EtcdConfig, Password, Secret, Timings, TlsFiles, User, parse_endpoints,
};
pub use kubernetes::{
    ApiConfig, ApiEnvError, Group, KubernetesConfig, Lacking, Proven, Services, ServicesConfig,
    Wanted, proxy_variable, typha_variable,
};
pub use outbox::{Followed, Receiver, Sender, Watcher, outbox};
pub use variable::{prefixed_variable, variable};

/// The name of every source's task for the supervisor.
const PART: &str = "datastore";

/// What a source sends.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Everything that exists, of every kind that the source has, at one moment; sorted by id, each
    /// id once. Sent once, before any [`Event::Changed`].
    ///
    /// No decision may be made before every source has sent its list: an object missing until then
    /// is not absent but unknown.
    Listed(Vec<Decoded>),
    /// Later changes, in order. Unread changes of one object are merged into the last, so an id
    /// occurs once; twice where a readable object was followed by an unreadable one, because the
    /// former is then the state to keep.
    Changed(Vec<Change>),
    /// Problems of the source itself and of things in it that are not objects, such as a file that
    /// cannot be parsed. Replaces the problems sent before; empty: all are resolved.
    Problems(Vec<Problem>),
    /// Whether the source is reachable: for status, metrics and readiness.
    State(State),
}

/// A change of one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object is new or different. One that cannot be read keeps its previous state.
    Put(Decoded),
    /// The object was deleted.
    Withdraw(ObjectId),
}

impl Change {
    /// The object that changed.
    pub fn id(&self) -> &ObjectId {
        match self {
            Change::Put(decoded) => &decoded.id,
            Change::Withdraw(id) => id,
        }
    }
}

/// Whether a source is reachable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The first list is being read. The initial state.
    Connecting,
    /// What was sent is the state of the source, apart from changes in flight.
    Current,
    /// The source cannot be reached or read. The last state sent stays in force; attempts go on.
    Away {
        /// When it became unavailable.
        since: Instant,
        /// Why, with the endpoint or path. Never contains a password.
        reason: Arc<str>,
    },
}

/// Objects in files: a folder of YAML and JSON, or single files, as [`crate::calico::load`] reads
/// them. Watched with inotify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesConfig {
    /// Folders and files. Of two objects with the same name, that in the file whose path sorts last
    /// is used.
    pub paths: Vec<PathBuf>,
}

/// Felix's endpoint-status folder, one file for each local workload. Watched with inotify; it need
/// not exist yet, and is empty until it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointsConfig {
    /// The folder. Calico's default: `/var/run/calico/endpoint-status`.
    pub folder: PathBuf,
}

/// Where objects come from.
#[allow(clippy::large_enum_variant, reason = "there are two or three, moved once each")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Calico's objects in etcd v3.
    Etcd(EtcdConfig),
    /// Calico's objects and the Nodes in the Kubernetes API.
    Kubernetes(KubernetesConfig),
    /// Services, EndpointSlices and Secrets in the Kubernetes API, as far as they are [`Wanted`].
    Services(ServicesConfig),
    /// Calico's and Kubernetes' objects in files.
    Files(FilesConfig),
    /// Local workloads with which BGP is spoken.
    Endpoints(EndpointsConfig),
}

/// Starts sources. Those that read one API server share a connection.
pub struct Starter {
    servers: Vec<(ApiConfig, kubernetes::Server)>,
    wanted: watch::Receiver<Option<Wanted>>,
    span: kubernetes::Span,
}

impl Starter {
    /// `wanted` is what the plan needs of [`Source::Services`], which sends nothing while it is
    /// `None`.
    pub fn new(wanted: watch::Receiver<Option<Wanted>>) -> Self {
        Starter { servers: Vec::new(), wanted, span: kubernetes::Span::Followed }
    }

    /// As [`Starter::new`], for callers that need only the first list: the Kubernetes API is not
    /// watched.
    pub fn of_lists(wanted: watch::Receiver<Option<Wanted>>) -> Self {
        Starter { span: kubernetes::Span::Once, ..Starter::new(wanted) }
    }

    /// Follows a source in a task of its own, which ends when the receiver is dropped.
    ///
    /// Nothing about the source is checked beforehand: if a server does not answer or a certificate
    /// cannot be read, the source is [`State::Away`], and attempts continue. Must be called within
    /// a tokio runtime.
    pub fn start(&mut self, source: Source) -> (Receiver, JoinHandle<()>) {
        let (sender, receiver) = outbox();
        let liveness = sender.liveness().clone();
        let following: Pin<Box<dyn Future<Output = ()> + Send>> = match source {
            Source::Etcd(config) => Box::pin(etcd::follow(config, sender)),
            Source::Kubernetes(config) => {
                let server = self.server(&config.api);
                Box::pin(kubernetes::follow(server, config, sender))
            }
            Source::Services(config) => {
                let server = self.server(&config.api);
                let wanted = self.wanted.clone();
                Box::pin(kubernetes::follow_services(server, config, wanted, sender))
            }
            Source::Files(config) => Box::pin(files::follow(Layout::Objects(config.paths), sender)),
            Source::Endpoints(config) => {
                Box::pin(files::follow(Layout::Endpoints(config.folder), sender))
            }
        };
        let task = async move {
            tokio::select! {
                () = following => {}
                () = liveness.answer_always() => {}
            }
        };
        // The task may end: it does so when the receiver is dropped.
        let task = supervise::task(PART, Ending::Allowed, task);
        (receiver, tokio::spawn(task))
    }

    /// The rights that a source in the Kubernetes API needs but lacks, according to the API server;
    /// other sources have no rights to check. `wanted` is what the plan needs of
    /// [`Source::Services`].
    ///
    /// # Errors
    /// The server cannot be queried; the text says why, in one line.
    pub async fn lacking(
        &mut self,
        source: &Source,
        wanted: &Wanted,
        proven: Proven,
    ) -> Result<Vec<Lacking>, String> {
        match source {
            Source::Kubernetes(config) => {
                kubernetes::lacking(&self.server(&config.api), config, proven).await
            }
            Source::Services(config) => {
                let server = self.server(&config.api);
                kubernetes::lacking_for_services(&server, config, wanted, proven).await
            }
            Source::Etcd(_) | Source::Files(_) | Source::Endpoints(_) => Ok(Vec::new()),
        }
    }

    fn server(&mut self, config: &ApiConfig) -> kubernetes::Server {
        if let Some((_, server)) = self.servers.iter().find(|(known, _)| known == config) {
            return server.clone();
        }
        let server = kubernetes::Server::new(config.clone(), self.span);
        self.servers.push((config.clone(), server.clone()));
        server
    }
}

/// Follows one source, as [`Starter::start`]. Of [`Source::Services`], Services and EndpointSlices
/// are read, and no Secrets.
pub fn start(source: Source) -> (Receiver, JoinHandle<()>) {
    let wanted = Wanted { services: Services::Used, ..Wanted::default() };
    let (_, wanted) = watch::channel(Some(wanted));
    Starter::new(wanted).start(source)
}
