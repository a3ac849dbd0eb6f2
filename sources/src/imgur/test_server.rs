//! A server for tests that gives prepared replies in turn and records what was asked. Not an Imgur that behaves like
//! Imgur: that one is in the package `tests`.

use super::ImgurClient;
use super::answer::ImgurError;
use super::client::{Clock, TestClock};
use super::target::ImgurSites;
use crate::Notify;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use url::Url;

/// When the test clock starts.
const START_S: u64 = 1_700_000_000;

/// What the server answers once.
pub(crate) struct Reply {
    status: u16,
    headers: String,
    body: String,
    hangs_up: bool,
}

impl Reply {
    /// HTTP 200 with this body.
    pub(crate) fn json(body: &str) -> Reply {
        Reply { status: 200, headers: String::new(), body: body.to_owned(), hangs_up: false }
    }
    /// Closes the connection without a word.
    pub(crate) fn hang_up() -> Reply {
        Reply { hangs_up: true, ..Reply::json("") }
    }
    pub(crate) fn status(self, status: u16) -> Reply {
        Reply { status, ..self }
    }
    pub(crate) fn header(mut self, name: &str, value: &str) -> Reply {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }
}

/// The usual error body.
pub(crate) fn error_body(message: &str, status: u16) -> String {
    format!(r#"{{"data":{{"error":"{message}","method":"GET"}},"success":false,"status":{status}}}"#)
}

/// The value of `X-RateLimit-UserReset`, from the start of the test clock on.
pub(crate) fn reset_in(seconds: u64) -> String {
    (START_S + seconds).to_string()
}

/// The server, and the clock and notices of its clients.
pub(crate) struct TestImgur {
    base: String,
    requests: Arc<Mutex<Vec<String>>>,
    notices: Arc<Mutex<Vec<String>>>,
    clock: Arc<Mutex<TestClock>>,
    server: JoinHandle<()>,
}

impl Drop for TestImgur {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl TestImgur {
    /// Serves the replies in turn, the last one for ever.
    pub(crate) async fn start(replies: Vec<Reply>) -> TestImgur {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("bound"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let server = tokio::spawn(async move {
            let mut turn = 0;
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => request.push(byte),
                        Err(_) => break,
                    }
                }
                seen.lock().expect("no poison").push(String::from_utf8_lossy(&request).into_owned());
                let reply = &replies[turn.min(replies.len() - 1)];
                turn += 1;
                if reply.hangs_up {
                    continue;
                }
                let Reply { status, headers, body, .. } = reply;
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n");
                // A client that has gone away is the client's business.
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            }
        });
        let clock = TestClock { now: UNIX_EPOCH + Duration::from_secs(START_S), slept: Vec::new() };
        TestImgur { base, requests, notices: Arc::default(), clock: Arc::new(Mutex::new(clock)), server }
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// API, pages and images below three paths of the server.
    pub(crate) fn sites(&self) -> ImgurSites {
        let at = |path: &str| Url::parse(&format!("{}/{path}", self.base)).expect("a base");
        ImgurSites { api: at("api"), web: at("web"), image: at("i") }
    }

    pub(crate) fn notify(&self) -> Notify {
        let notices = self.notices.clone();
        Arc::new(move |notice| notices.lock().expect("no poison").push(notice))
    }

    pub(crate) fn try_client(&self, id: Option<&str>) -> Result<ImgurClient, ImgurError> {
        let client = ImgurClient::new(self.sites(), id, "imgq-test", self.notify())?;
        Ok(client.with_clock(Clock::Test(self.clock.clone())))
    }

    pub(crate) fn client(&self, id: Option<&str>) -> ImgurClient {
        self.try_client(id).expect("a client")
    }

    /// Each request with its headers.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no poison").clone()
    }

    /// The paths that were asked for.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.requests().iter().filter_map(|r| r.split(' ').nth(1).map(str::to_owned)).collect()
    }

    pub(crate) fn notices(&self) -> Vec<String> {
        self.notices.lock().expect("no poison").clone()
    }

    pub(crate) fn slept_s(&self) -> Vec<u64> {
        self.clock.lock().expect("no poison").slept.iter().map(Duration::as_secs).collect()
    }
}
