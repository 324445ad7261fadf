//! margay: the edges around [`bgp_proto`].
//!
//! `bgp_proto` decides; this crate brings it bytes and time and carries out what it decided.
//! [`architecture`] shows how the parts work together:
//!
//! - [`config`]: TOML to one immutable configuration; errors name file, line, key and remedy.
//! - [`calico`]: Calico's objects to sessions, routes and policies.
//! - [`datastore`]: where Calico's objects come from: etcd, files; listed, then watched.
//! - [`node`]: running as a Calico node: settings, and configurations that follow objects.
//! - [`engine`]: the thread that owns the table, and the handle to it.
//! - [`bfd`]: BFD sessions with real sockets, on a thread of their own.
//! - [`net`]: listeners, one task per peer, socket options.
//! - [`kernel`]: the kernel's routes: written, watched, learned from.
//! - [`logging`]: the log, its level and its limit.
//! - [`ctl`]: the control socket; [`cli`]: what people type and read; [`http`]: metrics and health.
//! - [`liveness`]: how a part proves that it still turns.
//! - [`supervise`]: who owns threads and tasks, and what the death of one means.
//! - [`client_slots`]: who is disconnected when a socket has as many clients as it may.
//! - `counts`: how many of something there are, by key.
//! - `replace_file`: a file of ours in the place of another, as a whole.
//! - [`metric_names`]: what every exported metric is called.
//! - [`doctor`]: whether a node may go from BIRD to margay, or back.
//! - [`version`]: which build this is.
//! - [`daemon`]: wires all of these; start, reload, stop.
//!
//! Hard rules. No input from a peer, a file, the kernel or a control client makes the process exit,
//! hang or grow without bound. Every queue has a bound and a rule for when it is full; every wait
//! has a limit and a name. Each piece of state has one owner. Results of socket options are checked.
//! `unsafe` is in `net/sockopt.rs` and nowhere else.
//!
//! Dependencies point one way: a module knows those behind the arrow, all know `bgp_proto`, and
//! `daemon` and `main` wire them.
//!
//! ```text
//! config       ←
//! calico       ← config
//! liveness     ←
//! client_slots ←
//! counts       ←
//! metric_names ←
//! replace_file ←
//! supervise    ←
//! version      ←
//! datastore    ← config, calico, liveness, supervise
//! node         ← config, calico, datastore, liveness, replace_file, supervise
//! engine       ← metric_names, supervise
//! bfd          ← engine, supervise
//! net          ← engine, metric_names, supervise
//! kernel       ← counts, liveness, metric_names, supervise
//! ctl          ← client_slots
//! http         ← client_slots, metric_names, version
//! logging      ← config, supervise
//! doctor       ← config, calico, datastore, node, kernel, ctl
//! cli          ← config, ctl, calico, node, doctor, version
//! daemon       ← config, calico, counts, node, datastore, engine, bfd, net, kernel, ctl, http, logging, liveness, replace_file, supervise, version
//! ```

#[doc = include_str!("../ARCHITECTURE.md")]
pub mod architecture {}

pub mod bfd;
pub mod calico;
pub mod cli;
pub mod client_slots;
pub mod config;
mod counts;
pub mod ctl;
pub mod daemon;
pub mod datastore;
pub mod doctor;
pub mod engine;
pub mod http;
pub mod kernel;
pub mod liveness;
pub mod logging;
pub mod metric_names;
pub mod net;
pub mod node;
mod replace_file;
pub mod supervise;
pub mod version;
