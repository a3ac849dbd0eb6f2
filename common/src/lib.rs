//! What the producer and the worker agree on: links, jobs, outcomes, reports, retries, and the Redis queue between them.
//!
//! `link`, `host`, `media`, `job`, `outcome`, `report`, `retry` and `exposition` are pure: no I/O, no clock. Everything that speaks to Redis
//! lives in `connect` and `queue`, and nowhere else.

pub mod connect;
pub mod error;
pub mod exposition;
pub mod host;
pub mod job;
pub mod keys;
pub mod link;
pub mod listen;
pub mod media;
pub mod outcome;
pub mod queue;
pub mod report;
pub mod retry;
pub mod settings;
pub mod telemetry;
