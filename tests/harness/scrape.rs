//! What a program serves with `--metrics`: asked for over a bare connection, and read strictly, as the formats are written
//! down (<https://prometheus.io/docs/instrumenting/exposition_formats/>, <https://prometheus.io/docs/specs/om/open_metrics_spec/>).

use crate::{RawQueue, Worker, until};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A worker that serves its metrics on a free port.
#[derive(Debug)]
pub struct MeteredWorker {
    /// The worker.
    pub worker: Worker,
    /// Where its metrics are: host and port.
    pub address: String,
}

impl MeteredWorker {
    /// Starts one with further arguments, and waits until it says where its metrics are.
    ///
    /// # Panics
    /// When it does not start, or does not say so.
    pub fn start(queue: &RawQueue, storage: &Path, arguments: &[&str]) -> MeteredWorker {
        let mut command = Worker::command(queue, storage);
        command.args(["--metrics", "127.0.0.1:0"]).args(arguments).env("RUST_LOG", "info").stderr(Stdio::piped());
        let mut child = command.spawn().expect("the worker starts");
        let stderr = child.stderr.take().expect("piped");
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let lines = Arc::clone(&log);
        // Read to the end, so that the worker never waits for somebody to read.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln!("{line}");
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let worker = Worker::of(child);
        let address = until("the worker says where its metrics are", Duration::from_secs(20), || {
            let lines = log.lock().unwrap_or_else(PoisonError::into_inner);
            lines.iter().find_map(|line| {
                let (_, address) = line.split_once("metrics at http://")?;
                Some(address.strip_suffix("/metrics")?.to_owned())
            })
        });
        MeteredWorker { worker, address }
    }

    /// Its numbers now, in the older form.
    ///
    /// # Panics
    /// When they cannot be had, or are not what the format says.
    pub fn scrape(&self) -> Scrape {
        let answer = get(&self.address, "/metrics", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        Scrape::read(&answer.body, Form::Prometheus)
    }
}

/// An answer to a request.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }
}

/// Asks for a path; `accept` is left out when it is empty.
///
/// # Panics
/// When there is no answer within ten seconds.
pub fn get(address: &str, path: &str, accept: &str) -> Answer {
    let accept = if accept.is_empty() { String::new() } else { format!("Accept: {accept}\r\n") };
    try_request(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{accept}\r\n")).expect("an answer")
}

/// Sends a request as it is given.
///
/// # Errors
/// Whatever the connection says; also for an answer that is none.
pub fn try_request(address: &str, request: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let broken = || std::io::Error::other(format!("no answer: {text:?}"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(broken)?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or_else(broken)?;
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Ok(Answer { status, headers, body: body.to_owned() })
}

/// The two forms of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The older one.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// Names and values of labels.
pub type Labels = BTreeMap<String, String>;

/// A metric family.
#[derive(Debug)]
pub struct Family {
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: String,
    /// What it says about itself.
    pub help: String,
    /// Sample name, labels and value, in their order.
    pub samples: Vec<(String, Labels, f64)>,
}

/// What was scraped.
#[derive(Debug)]
pub struct Scrape {
    /// By name, as it stands in the header.
    pub families: BTreeMap<String, Family>,
}

impl Scrape {
    /// Reads a page, and refuses what the format does not allow.
    ///
    /// # Panics
    /// With the line that is wrong.
    pub fn read(page: &str, form: Form) -> Scrape {
        assert!(page.ends_with('\n') && !page.contains('\r'), "lines end with a line feed");
        let mut lines: Vec<&str> = page.lines().collect();
        if form == Form::OpenMetrics {
            assert_eq!(lines.pop(), Some("# EOF"), "the end is marked");
        }
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut current = String::new();
        let mut helped: Option<(String, String)> = None;
        for line in lines {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                assert!(is_name(name) && !help.trim().is_empty() && !help.contains('\\'), "{line}");
                helped = Some((name.to_owned(), help.to_owned()));
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                let (helped, help) = helped.take().unwrap_or_else(|| panic!("no help before: {line}"));
                assert_eq!(helped, name, "help and type are of the same family");
                let known =
                    ["counter", "gauge", "histogram"].contains(&kind) || form == Form::OpenMetrics && kind == "info";
                assert!(known, "{line}");
                assert_eq!(form == Form::Prometheus && kind == "counter", name.ends_with("_total"), "{line}");
                current = name.to_owned();
                let family = Family { kind: kind.to_owned(), help, samples: Vec::new() };
                assert!(families.insert(current.clone(), family).is_none(), "a second time: {line}");
            } else if let Some(rest) = line.strip_prefix("# UNIT ") {
                let (name, unit) = rest.split_once(' ').unwrap_or_else(|| panic!("no unit: {line}"));
                assert!(form == Form::OpenMetrics && name == current && name.ends_with(&format!("_{unit}")), "{line}");
                assert!(families[&current].samples.is_empty(), "after samples: {line}");
            } else {
                let (name, labels, value) = sample(line);
                let family = families.get_mut(&current).unwrap_or_else(|| panic!("of no family: {line}"));
                let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("not of {current}: {line}"));
                let suffixes: &[&str] = match (family.kind.as_str(), form) {
                    ("counter", Form::OpenMetrics) => &["_total"],
                    ("info", _) => &["_info"],
                    ("histogram", _) => &["_sum", "_count", "_bucket"],
                    _ => &[""],
                };
                assert!(suffixes.contains(&suffix), "{line}");
                assert_eq!(suffix == "_bucket", labels.contains_key("le"), "{line}");
                assert!(family.kind == "gauge" || value >= 0.0, "{line}");
                let again = family.samples.iter().any(|(known, with, _)| *known == name && *with == labels);
                assert!(!again, "a second time: {line}");
                family.samples.push((name, labels, value));
            }
        }
        for (name, family) in &families {
            assert!(!family.samples.is_empty(), "{name} has no sample");
            if family.kind == "histogram" {
                check_histogram(name, family);
            }
        }
        Scrape { families }
    }

    /// The value of one sample.
    ///
    /// # Panics
    /// When there is none.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut samples = self.families.values().flat_map(|family| &family.samples);
        let found = samples.find(|(found, with, _)| found == name && *with == labels);
        found.unwrap_or_else(|| panic!("no {name} {labels:?}")).2
    }

    /// The sum of all samples of that name.
    pub fn sum(&self, name: &str) -> f64 {
        let samples = self.families.values().flat_map(|family| &family.samples);
        samples.filter(|(found, _, _)| found == name).map(|(_, _, value)| value).sum()
    }

    /// The names of a family's labels, `le` left out.
    pub fn labels(&self, family: &str) -> BTreeSet<String> {
        let labels = self.families[family].samples.iter().flat_map(|(_, labels, _)| labels.keys());
        labels.filter(|name| *name != "le").cloned().collect()
    }
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// `name{label="value",…} number`; none of our values needs an escape.
fn sample(line: &str) -> (String, Labels, f64) {
    let (series, number) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, rest)) => (name, rest.strip_suffix('}').unwrap_or_else(|| panic!("open: {line}"))),
    };
    assert!(is_name(name) && !labels.contains('\\'), "{line}");
    let mut read = Labels::new();
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (key, value) = label.split_once('=').unwrap_or_else(|| panic!("no label: {line}"));
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let value = value.unwrap_or_else(|| panic!("no quotes: {line}"));
        assert!(is_name(key) && !value.contains('"'), "{line}");
        assert!(read.insert(key.to_owned(), value.to_owned()).is_none(), "twice {key}: {line}");
    }
    (name.to_owned(), read, number.parse().unwrap_or_else(|_| panic!("no number: {line}")))
}

/// Buckets rise to +Inf, which is the count; a sum and a count belong to them.
fn check_histogram(name: &str, family: &Family) {
    let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for (sample, labels, value) in &family.samples {
        let mut labels = labels.clone();
        let bound = labels.remove("le");
        let buckets = series.entry(labels).or_default();
        if sample.ends_with("_bucket") {
            let bound = bound.unwrap_or_default();
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a bound") };
            buckets.push((bound, *value));
        }
    }
    for (labels, buckets) in series {
        let of = |suffix: &str| {
            let sample = family.samples.iter().find(|(n, with, _)| *n == format!("{name}{suffix}") && *with == labels);
            sample.unwrap_or_else(|| panic!("{name}{suffix} {labels:?}")).2
        };
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name} {labels:?} {buckets:?}");
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, of("_count"))), "{name} {labels:?}");
        let count = of("_count");
        assert_eq!(count > 0.0, of("_sum") > 0.0, "{name} {labels:?}");
    }
}
