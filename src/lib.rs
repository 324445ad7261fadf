//! margay: the edges.
