//! What both programs are around their work: the flags they share, log lines, where they listen and serve, and the form of their metrics.

pub mod exposition;
pub mod listen;
pub mod server;
pub mod settings;
pub mod telemetry;
