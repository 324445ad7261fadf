//! Many speakers on one clock, from one seed: tests and fuzzing.
