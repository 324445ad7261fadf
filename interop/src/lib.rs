//! The harness: namespaces, daemons, waiting.
