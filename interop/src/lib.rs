//! The harness: namespaces, daemons, waiting, and the queries that tests make of a BGP speaker.
//!
//! - [`lab`]: a bridge and hosts in their own network namespaces, removed on every exit path.
//! - [`full_kernel`]: the same under a kernel with features that this machine's lacks.
//! - [`daemon`], [`wait`], [`require`]: processes, bounded waits, and requirements of tests.
//! - [`speaker`]: one description of a speaker and one set of queries for all of them.
//! - [`margay`], [`bird2`], [`bird16`], [`frr`], [`gobgp`], [`openbgpd`], [`exabgp`]: the speakers.
//! - [`calico`]: etcd, nodes and pods of a Calico cluster.
//! - [`pki`]: an authority and certificates.
//! - [`monitor`]: Prometheus, which scrapes our metrics and evaluates the queries of dashboards and
//!   alerts.
//! - [`subject`]: the speaker under test: margay, or BIRD 2 to check the harness itself.
//! - [`matrix`], [`cases`]: the cases run with every peer, and the tests made from them.
//! - [`raw`], [`message`]: a neighbour that speaks scripted bytes.
//! - [`kubernetes`]: kube-apiserver and its etcd, and their failures.
//! - [`doctor`]: `margay calico doctor` on a host.
//! - [`sequence`]: the interpreter of the recorded session scenarios.
//!
//! Every test has its own namespaces, so tests run in parallel and ports never clash.

pub mod bird16;
pub mod bird2;
pub mod bird3;
pub mod calico;
pub mod cases;
pub mod cpu_time;
pub mod daemon;
pub mod doctor;
pub mod exabgp;
pub mod forecast;
pub mod frr;
pub mod full_kernel;
pub mod gobgp;
pub mod kernel;
pub mod kubernetes;
pub mod lab;
pub mod margay;
pub mod matrix;
pub mod message;
pub mod monitor;
pub mod openbgpd;
pub mod page;
pub mod ping;
pub mod pki;
pub mod random;
pub mod raw;
pub mod require;
pub mod sequence;
pub mod speaker;
pub mod subject;
pub mod tmux;
pub mod wait;
