//! One test binary for everything that crosses a wire: real Redis, real HTTP, real processes, real files.
//!
//! Each test has a queue of its own and waits for conditions. What is pure is tested beside its code.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests say what they show in their names, and may panic")]

mod admissions;
mod content;
mod crashes;
mod dashboard;
mod dashboard_guard;
mod durable;
mod enqueueing;
mod errors;
mod faults;
mod first_run;
mod hand_pushed;
mod held;
mod help;
mod hostile;
mod hostile_http2;
mod idling;
mod imgur;
mod keys;
mod lists;
mod metrics;
mod migration;
mod model;
mod modules;
mod outcomes;
mod payloads;
mod planted;
mod politeness;
mod probes;
mod protocol;
mod purge;
mod questions;
mod readers;
mod redirected;
mod redis_away;
mod redis_states;
mod redis_tls;
mod replicas;
mod retention;
mod running;
mod script_faults;
mod script_times;
mod scripts;
mod stopping;
mod structure;
mod telling;
mod terminal;
mod trickles;
mod versions;
mod watching;
