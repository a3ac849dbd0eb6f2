//! Chromium, driven over a pipe in its own protocol (<https://chromedevtools.github.io/devtools-protocol/>).
//!
//! It listens on file descriptor 3 and answers on 4, messages apart by a zero byte: so there is neither a port nor a driver, and no
//! library that is made of the whole protocol for the dozen of its words that are needed.

use harness::until;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);

/// A browser with one page; it is killed when this is dropped.
pub(crate) struct Chrome {
    child: Child,
    orders: ChildStdin,
    messages: Receiver<Value>,
    /// Events of the page so far.
    events: Vec<Value>,
    session: Option<String>,
    orders_given: u64,
    _profile: TempDir,
}

fn program() -> String {
    let named = std::env::var("IMGQ_TEST_BROWSER").ok();
    let found = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    });
    named.or(found.map(str::to_owned)).expect("a browser; scripts/ensure-browser.sh installs one")
}

impl Chrome {
    /// Starts one with an empty page.
    pub(crate) fn start() -> Chrome {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        // Our pipes become those that it listens on.
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null 1>&2"]).arg(program());
        command.args([
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-first-run",
            "--disable-gpu",
            "--hide-scrollbars",
        ]);
        command.args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-extensions",
        ]);
        command.args(["--disable-dev-shm-usage", "--font-render-hinting=none", "--no-default-browser-check"]);
        if rustix::process::geteuid().is_root() {
            command.arg("--no-sandbox");
        }
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let orders = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while answers.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                if let Ok(value) = serde_json::from_slice(&message)
                    && sender.send(value).is_err()
                {
                    return;
                }
                message.clear();
            }
        });
        let mut chrome =
            Chrome { child, orders, messages, events: Vec::new(), session: None, orders_given: 0, _profile: profile };
        let target = chrome.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = chrome.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        chrome.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Network", "Log"] {
            chrome.call(&format!("{domain}.enable"), json!({}));
        }
        chrome
    }

    /// Gives an order and waits for what comes of it.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.orders_given += 1;
        let id = self.orders_given;
        let mut order = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            order["sessionId"] = json!(session);
        }
        self.orders.write_all(order.to_string().as_bytes()).unwrap();
        self.orders.write_all(&[0]).unwrap();
        let began = Instant::now();
        loop {
            let left = SOON.saturating_sub(began.elapsed());
            let mut message = self.messages.recv_timeout(left).unwrap_or_else(|_| panic!("no answer to {method}"));
            if message["id"] == id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].take();
            }
            self.events.push(message);
        }
    }

    /// Opens an address, and waits until it is loaded.
    pub(crate) fn open(&mut self, url: &str) {
        let answer = self.call("Page.navigate", json!({ "url": url }));
        assert!(answer.get("errorText").is_none(), "{answer}");
        self.until(url, "document.readyState == 'complete' && location.href != 'about:blank'");
    }

    /// What an expression gives, evaluated in the page.
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", parameters);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true.
    pub(crate) fn until(&mut self, what: &str, expression: &str) {
        // While a page is replaced by the next there is nothing to ask.
        let guarded = format!("(() => {{ try {{ return !!({expression}); }} catch (error) {{ return false; }} }})()");
        until(what, SOON, || self.eval(&guarded).as_bool().filter(|is_true| *is_true));
    }

    /// Presses and releases a key.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, None),
            "Enter" => (13, Some("\r")),
            _ => panic!("no key {key}"),
        };
        let kind = if text.is_some() { "keyDown" } else { "rawKeyDown" };
        let mut down = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
        if let Some(text) = text {
            down["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", down);
        let up = json!({ "type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code });
        self.call("Input.dispatchKeyEvent", up);
    }

    /// Goes from control to control with Tab until `selector` has the focus, and says how many steps that took.
    pub(crate) fn tab_to(&mut self, selector: &str) -> usize {
        for steps in 0..60 {
            if self.eval(&format!("document.activeElement.matches({})", json!(selector))) == true {
                return steps;
            }
            self.press("Tab");
        }
        panic!("{selector} is not reached with Tab");
    }

    /// Clicks the middle of what `selector` finds.
    pub(crate) fn click(&mut self, selector: &str) {
        let place = self.eval(&format!(
            "(() => {{ const found = document.querySelector({}); found.scrollIntoView({{block: 'center', behavior: 'instant'}}); \
             const box = found.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()",
            json!(selector)
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let parameters = json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", parameters);
        }
    }

    /// The page in a window of that size and scheme.
    pub(crate) fn look(&mut self, width: u32, height: u32, is_phone: bool, scheme: &str) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }, { "name": "prefers-reduced-motion", "value": "reduce" }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// What the window shows, as a PNG.
    pub(crate) fn screenshot(&mut self) -> Vec<u8> {
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        base64(answer["data"].as_str().unwrap())
    }

    /// Every address that the page asked for so far.
    pub(crate) fn requested(&mut self) -> Vec<String> {
        self.eval("1");
        let requests = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        requests.map(|event| event["params"]["request"]["url"].as_str().unwrap().to_owned()).collect()
    }

    /// What must not have happened: dialogs, errors of scripts, and what the page's policy refused.
    pub(crate) fn troubles(&mut self) -> Vec<String> {
        self.eval("1");
        let is_trouble = |event: &&Value| match event["method"].as_str().unwrap_or_default() {
            "Page.javascriptDialogOpening" | "Runtime.exceptionThrown" => true,
            "Log.entryAdded" => event["params"]["entry"]["source"] == "security",
            _ => false,
        };
        self.events.iter().filter(is_trouble).map(Value::to_string).collect()
    }
}

impl Drop for Chrome {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// RFC 4648, as the browser writes it.
fn base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u32> = text.bytes().filter(|byte| *byte != b'=').map(value).collect();
    let group = |four: &[u32]| {
        let bits = four.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - four.len()));
        bits.to_be_bytes()[1..four.len()].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}
