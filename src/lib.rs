//! margay: the edges.

pub mod fib;
