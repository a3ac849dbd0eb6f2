//! Tests that need a machine's privileges (network namespaces, mounts) or its tools (strace, libfaketime); `scripts/machines-test.sh` runs them.
//!
//! What they do to the machine they do in namespaces of their own, and nobody else sees it.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests say what they show in their names, and may panic")]

mod clocks;
mod hosts;
mod partitions;
mod storage;
