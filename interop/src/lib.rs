//! The harness: namespaces, daemons, waiting, and what the tests ask of a BGP speaker.
//!
//! - [`lab`]: a bridge and hosts in network namespaces of their own, removed on every exit path.
//! - [`full_kernel`]: the same under a kernel that has what this machine's lacks.
//! - [`daemon`], [`wait`], [`require`]: processes, bounded waits, and what a test needs.
//! - [`speaker`]: one description of a speaker and one set of questions for all of them.
//! - [`margay`], [`bird2`], [`bird16`], [`frr`], [`gobgp`], [`openbgpd`], [`exabgp`]: the speakers.
//! - [`calico`]: etcd, nodes and pods of a Calico cluster.
//! - [`pki`]: an authority and certificates.
//! - [`monitor`]: Prometheus, which reads our metrics and is asked what dashboards and alerts ask.
//! - [`subject`]: the speaker under test: margay, or BIRD 2 when the harness itself is in doubt.
//! - [`matrix`], [`cases`]: what every peer goes through, and the tests made of it.
//! - [`raw`], [`message`]: a neighbour that speaks scripted bytes.
//! - [`kubernetes`]: kube-apiserver and its etcd, and what goes wrong with them.
//! - [`doctor`]: `margay calico doctor` on a host.
//! - [`sequence`]: the interpreter of the recorded session scenarios.
//!
//! Every test has its own namespaces, so tests run in parallel and ports never clash.

pub mod bird16;
pub mod bird2;
pub mod calico;
pub mod cases;
pub mod daemon;
pub mod doctor;
pub mod exabgp;
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
pub mod pki;
pub mod random;
pub mod raw;
pub mod require;
pub mod sequence;
pub mod speaker;
pub mod subject;
pub mod wait;
