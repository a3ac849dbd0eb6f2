//! The dashboard in a real Chromium; `scripts/browser-test.sh` runs it.
//!
//! With IMGQ_SCREENSHOTS=FOLDER its pictures are left there, else in a temporary folder.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests say what they show in their names, and may panic")]

mod chrome;
mod operating;
mod photos;
mod pictures;
