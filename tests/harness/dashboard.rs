//! A dashboard as a process, and requests to it over a bare connection, as a browser or anybody else sends them.

use crate::{Producer, RawQueue, until};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

/// A running dashboard on a free port; it is killed when this is dropped.
#[derive(Debug)]
pub struct Dashboard {
    child: Child,
    /// Host and port.
    pub address: String,
}

/// An answer, its body as bytes.
#[derive(Debug)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub bytes: Vec<u8>,
}

impl Page {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl Dashboard {
    /// Starts one on `queue` with thumbnails of `storage` and further arguments.
    ///
    /// # Panics
    /// When it does not start, or does not say where it is.
    pub fn start(queue: &RawQueue, storage: &Path, arguments: &[&str]) -> Dashboard {
        Dashboard::start_with(queue, storage, arguments, &[])
    }

    /// The same with variables in its environment.
    ///
    /// # Panics
    /// As [`Dashboard::start`].
    pub fn start_with(queue: &RawQueue, storage: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Dashboard {
        let mut command = Producer::command(queue, &["dashboard"]);
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.args(arguments).arg("--storage").arg(storage).envs(environment.iter().copied()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the dashboard starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line.trim().split_once("http://").and_then(|(_, address)| address.strip_suffix('/'));
        let address = address.unwrap_or_else(|| panic!("where is it? {line:?}")).to_owned();
        Dashboard { child, address }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where a path is.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Asks for a path.
    pub fn get(&self, path: &str) -> Page {
        self.request("GET", path, &[], "")
    }

    /// Sends a form as one of its own pages does.
    pub fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let token = self.form_token();
        let origin = format!("http://{}", self.address);
        let fields = [&[("form_token", token.as_str())], fields].concat();
        self.request("POST", path, &[("Origin", &origin), ("Sec-Fetch-Site", "same-origin")], &form(&fields))
    }

    /// What its forms send along.
    ///
    /// # Panics
    /// When the overview has no form.
    pub fn form_token(&self) -> String {
        let page = self.get("/").text();
        let (_, rest) = page.split_once("name=\"form_token\" value=\"").unwrap_or_else(|| panic!("no form in {page}"));
        rest.split('"').next().expect("a value").to_owned()
    }

    /// Sends a request; a header that is given replaces the usual one.
    ///
    /// # Panics
    /// When there is no answer within twenty seconds.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Page {
        self.try_request(method, path, headers, body).expect("an answer")
    }

    /// The same where there may be no answer.
    ///
    /// # Errors
    /// What the connection says; also for an answer that is none.
    pub fn try_request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> std::io::Result<Page> {
        let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        let has = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
        if !has("host") {
            text.push_str(&format!("Host: {}\r\n", self.address));
        }
        if method == "POST" {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
            text.push_str("Content-Type: application/x-www-form-urlencoded\r\n");
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(format!("{text}\r\n{body}").as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let broken = || std::io::Error::other(format!("no answer: {:?}", String::from_utf8_lossy(&answer)));
        let end = answer.windows(4).position(|part| part == b"\r\n\r\n").ok_or_else(broken)?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or_else(broken)?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        Ok(Page { status, headers, bytes: answer[end + 4..].to_vec() })
    }

    /// Looks at the events, as a browser does; the connection stays open for as long as it is held.
    ///
    /// # Panics
    /// When the dashboard is not there.
    pub fn watch(&self, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).expect("it is there");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let request = format!("GET /events HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.address);
        stream.write_all(request.as_bytes()).expect("sent");
        stream
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the dashboard is there");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within `at_most`.
    pub fn until_end(&mut self, at_most: Duration) -> ExitStatus {
        until("the dashboard ends", at_most, || self.child.try_wait().expect("can be waited for"))
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body of a form.
pub fn form(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}
