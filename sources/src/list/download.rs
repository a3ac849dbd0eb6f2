//! A list at a URL, as a stream of bytes. Nothing is kept but the piece that is being read.
//!
//! It is read on the list's own thread, on which a small runtime drives the HTTP client.

use super::error::ListError;
use super::format::{Format, of_content_type};
use crate::causes::with_causes;
use common::link::without_userinfo;
use std::error::Error;
use std::fmt;
use std::io::{self, Read};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two pieces of an answer. There is none for the whole: a list may be any size.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// An answer that is being read.
pub(super) struct Download {
    response: reqwest::Response,
    /// Dropped after what it drives.
    runtime: tokio::runtime::Runtime,
    piece: io::Cursor<Vec<u8>>,
}

/// An answer that broke off.
#[derive(Debug)]
pub(super) struct DownloadError(String);

impl fmt::Display for DownloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for DownloadError {}

impl Download {
    /// Asks for the list, and waits for the head of the answer.
    ///
    /// # Errors
    /// No answer, or one that is no success.
    pub(super) fn start(url: &str, user_agent: &str) -> Result<Download, ListError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = reqwest::Client::builder()
            .user_agent(user_agent)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(IDLE_TIMEOUT)
            .build()
            .map_err(|error| ListError::new(with_causes(&error)))?;
        // Sending asks for the runtime's timer before it is awaited.
        let response = runtime.block_on(async { client.get(url).send().await }).map_err(|error| {
            ListError::with_hint(with_causes(&error), "look at the address, and whether this machine reaches it")
        })?;
        let status = response.status();
        if !status.is_success() {
            let place = |url: &url::Url| (url.host_str().map(str::to_owned), url.port(), url.path().to_owned());
            let is_elsewhere = url::Url::parse(url).is_ok_and(|url| place(&url) != place(response.url()));
            let from = if is_elsewhere {
                format!(" from {}", without_userinfo(response.url().as_str()))
            } else {
                String::new()
            };
            return Err(ListError::with_hint(
                format!("the answer{from} is {status}"),
                "open the address in a browser; user name and password go into it as https://USER:PASSWORD@host/…",
            ));
        }
        Ok(Download { response, runtime, piece: io::Cursor::default() })
    }

    /// How many bytes the answer says that it has.
    pub(super) fn length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// What the answer says that it is.
    pub(super) fn format(&self) -> Option<Format> {
        of_content_type(self.response.headers().get(reqwest::header::CONTENT_TYPE)?.to_str().ok()?)
    }
}

impl Read for Download {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let bytes = self.piece.read(into)?;
            if bytes > 0 || into.is_empty() {
                return Ok(bytes);
            }
            let broke_off = |error| DownloadError(format!("the download broke off ({})", with_causes(&error)));
            match self.runtime.block_on(self.response.chunk()).map_err(|error| io::Error::other(broke_off(error)))? {
                Some(piece) => self.piece = io::Cursor::new(piece.into()),
                None => return Ok(0),
            }
        }
    }
}
