//! The vocabulary: what all crates agree on. Links, hosts, jobs, outcomes, reports, retries, types of media, names of keys,
//! errors of the queue, and how all that is written for people.
//!
//! Everything here is pure: no I/O, no clock, no random numbers.

pub mod error;
pub mod host;
pub mod job;
pub mod keys;
pub mod link;
pub mod media;
pub mod outcome;
pub mod report;
pub mod retry;
pub mod text;
