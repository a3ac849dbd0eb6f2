//! What the tests stand on: a real Redis, the programs as processes, an origin that misbehaves on demand, and an Imgur that
//! behaves like Imgur.
//!
//! Nothing here knows how imgq works inside: tests speak the contract, through raw Redis and the two programs.

pub mod chaos;
pub mod dashboard;
pub mod fault_proxy;
pub mod files;
pub mod imgur;
pub mod origin;
pub mod programs;
pub mod queue;
pub mod redis_server;
pub mod scrape;
pub mod scripted;
pub mod sentinel;
pub mod tls;
pub mod tunnel;
pub mod wait;

pub use dashboard::Dashboard;
pub use fault_proxy::FaultProxy;
pub use origin::Origin;
pub use programs::{Producer, Worker};
pub use queue::RawQueue;
pub use redis_server::Redis;
pub use scrape::{MeteredWorker, Scrape};
pub use scripted::Scripted;
pub use sentinel::Replicated;
pub use wait::{allowed, until};
