//! Calico's objects in etcd v3.

mod config;

pub use config::{Blocks, EnvError, EtcdConfig, Password, Secret, TlsFiles, User, parse_endpoints};
