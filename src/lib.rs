//! margay: the edges around [`bgp_proto`].
//!
//! `bgp_proto` decides; this crate feeds it bytes and time and carries out its decisions.
//! [`architecture`] shows how the parts work together:
//!
//! - [`config`]: from TOML to one immutable configuration; errors name file, line, key and remedy.
//! - [`calico`]: from Calico's objects to sessions, routes and policies.
//! - [`simulate`]: a Calico cluster in simulated time.
//! - [`datastore`]: where Calico's objects come from: etcd, files; listed, then watched.
//! - [`node`]: running as a Calico node: settings, and a configuration that follows the objects.
//! - [`engine`]: the thread that owns the table, and the handle to it.
//! - [`bfd`]: BFD sessions over real sockets, on their own thread.
//! - [`discovery`]: neighbours on links without addresses, found by router advertisements.
//! - [`bmp`]: monitoring stations (RFC 7854): connections, and what is sent on them.
//! - [`mrt`]: messages of peers and changes of state in MRT files, written by a thread of its own.
//! - [`net`]: listeners, one task per peer, socket options.
//! - [`kernel`]: the kernel's routes: installed, watched, and imported.
//! - [`logging`]: the log, its level and its rate limit.
//! - [`events`]: the recent changes of state, taken from the log; [`event_names`]: their names.
//! - [`ctl`]: the control socket; [`cli`]: the command line; [`http`]: metrics, health and the status page.
//! - [`liveness`]: how a part of the daemon proves that it still makes progress.
//! - [`supervise`]: who owns threads and tasks, and what happens when one of them dies.
//! - [`client_slots`]: which client is disconnected when a socket has too many.
//! - `counts`: reference counts by key.
//! - `plural`: counts with the right form of their noun.
//! - `replace_file`: replacing a file atomically.
//! - [`metric_names`]: the name of every exported metric.
//! - [`doctor`]: whether a node can migrate from BIRD to margay, or back.
//! - [`version`]: which build this is.
//! - [`daemon`]: wires all of these together; start, reload, stop.
//!
//! Hard rules. No input from a peer, a file, the kernel or a control client makes the process exit,
//! hang or grow without bound. Every queue has a bound and a rule for when it is full; every wait
//! has a limit and a name. Each piece of state has one owner. The result of setting a socket option
//! is always checked. `unsafe` is in `net/sockopt.rs` and nowhere else.
//!
//! Dependencies point one way: a module uses the ones to the right of its arrow, every module may
//! use `bgp_proto`, and `daemon` and `main` wire them together.
//!
//! ```text
//! config       ←
//! calico       ← config
//! simulate     ← config, calico
//! liveness     ←
//! client_slots ←
//! counts       ←
//! metric_names ←
//! event_names  ←
//! events       ← event_names
//! plural       ←
//! replace_file ←
//! supervise    ←
//! version      ←
//! datastore    ← config, calico, liveness, supervise
//! node         ← config, calico, datastore, event_names, liveness, replace_file, supervise
//! engine       ← metric_names, supervise
//! bfd          ← engine, supervise
//! bmp          ← config, engine, event_names, supervise
//! mrt          ← event_names, supervise
//! kernel       ← counts, event_names, liveness, metric_names, supervise
//! net          ← engine, event_names, kernel, metric_names, mrt, supervise
//! discovery    ← engine, net, supervise
//! ctl          ← client_slots
//! http         ← config, client_slots, metric_names, version
//! logging      ← config, event_names, events, supervise
//! doctor       ← config, calico, datastore, node, kernel, ctl
//! cli          ← config, ctl, calico, simulate, net, node, doctor, kernel, plural, replace_file, supervise, version
//! daemon       ← config, calico, counts, event_names, events, node, datastore, engine, bfd, bmp, net, discovery, kernel, ctl, http, logging, liveness, mrt, plural, replace_file, supervise, version
//! ```

#[doc = include_str!("../ARCHITECTURE.md")]
pub mod architecture {}

pub mod bfd;
pub mod bmp;
pub mod calico;
pub mod cli;
pub mod client_slots;
pub mod config;
mod counts;
pub mod ctl;
pub mod daemon;
pub mod datastore;
pub mod discovery;
pub mod doctor;
pub mod engine;
pub mod event_names;
pub mod events;
pub mod http;
pub mod kernel;
pub mod liveness;
pub mod logging;
pub mod metric_names;
pub mod mrt;
pub mod net;
pub mod node;
mod plural;
mod replace_file;
pub mod simulate;
pub mod supervise;
pub mod version;
