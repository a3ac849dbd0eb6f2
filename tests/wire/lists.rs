//! Lists in every format: what becomes of their rows, and what is said about those that are none.

use flate2::write::GzEncoder;
use harness::files::sha256;
use harness::origin::gif;
use harness::programs::{Finished, finish};
use harness::scripted::Act;
use harness::{Origin, Producer, RawQueue, Scripted, Worker, until};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// A link, and the hash beside it.
type Row = (Option<String>, Option<String>);

fn row(url: &str, sha256: Option<&str>) -> Row {
    (Some(url.to_owned()), sha256.map(str::to_owned))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 0).unwrap()
}

/// A Parquet file with a row group for each of `groups`; the columns are `id`, `url` and `sha256`.
fn parquet(groups: &[&[Row]], codec: Compression) -> Vec<u8> {
    let schema =
        "message rows { REQUIRED INT64 id; OPTIONAL BYTE_ARRAY url (UTF8); OPTIONAL BYTE_ARRAY sha256 (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(codec).build());
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, schema, properties).unwrap();
    for rows in groups {
        let mut group = file.next_row_group().unwrap();
        let mut ids = group.next_column().unwrap().unwrap();
        let numbers: Vec<i64> = (0..rows.len() as i64).collect();
        ids.typed::<Int64Type>().write_batch(&numbers, None, None).unwrap();
        ids.close().unwrap();
        let columns: [Vec<Option<&String>>; 2] =
            [rows.iter().map(|(url, _)| url.as_ref()).collect(), rows.iter().map(|(_, hash)| hash.as_ref()).collect()];
        for cells in columns {
            let levels: Vec<i16> = cells.iter().map(|cell| cell.is_some().into()).collect();
            let values: Vec<ByteArray> =
                cells.into_iter().flatten().map(|text| ByteArray::from(text.as_str())).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    file.close().unwrap();
    bytes
}

/// The jobs of a queue, by link and hash; nothing else is in them.
fn jobs(queue: &mut RawQueue) -> Vec<Row> {
    let read = |element: &String| {
        let job: serde_json::Value = serde_json::from_str(element).unwrap();
        let text = |name: &str| job.get(name).map(|value| value.as_str().unwrap().to_owned());
        let fields = 2 + usize::from(job.get("sha256").is_some());
        assert_eq!(job.as_object().unwrap().len(), fields, "{element}");
        (text("url"), text("sha256"))
    };
    queue.ready().iter().map(read).collect()
}

/// Enqueues a list of these bytes on a queue of its own.
fn enqueue(folder: &Path, name: &str, bytes: &[u8], arguments: &[&str]) -> (Finished, RawQueue) {
    let path = written(folder, name, bytes);
    let queue = RawQueue::shared();
    let arguments = [&["enqueue", "--json", path.to_str().unwrap()], arguments].concat();
    (Producer::run(&queue, &arguments), queue)
}

fn written(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Enqueued, duplicates, rejected.
fn counts(finished: &Finished) -> (u64, u64, u64) {
    let json = finished.json();
    let number = |name: &str| json[name].as_u64().unwrap();
    (number("enqueued"), number("duplicates"), number("rejected"))
}

#[test]
fn every_format_gives_the_same_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let (upper, lower) = ("AB".repeat(32), "ab".repeat(32));
    let (a, b, c) = ("https://example.com/a.jpg", "https://example.com/b,c.jpg", "https://example.com/%C3%A4.jpg");
    let expected = vec![row(a, Some(&lower)), row(b, None), row(c, None)];
    let rows = [row(a, Some(&upper)), row(b, None), row("https://example.com/ä.jpg", Some(""))];
    let lists: [(&str, Vec<u8>); 7] = [
        ("txt", format!("{a}\n{b}\n{c}\n").into_bytes()),
        ("csv", format!("id,URL,sha256\n1,{a},{upper}\n2,\"{b}\",\n3,https://example.com/ä.jpg,\n").into_bytes()),
        ("tsv", format!("id\tURL\tsha256\n1\t{a}\t{upper}\n2\t{b}\n3\thttps://example.com/ä.jpg\t\n").into_bytes()),
        (
            "json",
            format!(
                "[{{\"url\":\"{a}\",\"sha256\":\"{upper}\"}},\"{b}\",{{\"url\":\"https://example.com/\\u00e4.jpg\"}}]"
            )
            .into_bytes(),
        ),
        ("jsonl", format!("{{\"sha256\":\"{upper}\",\"url\":\"{a}\"}}\n\"{b}\"\n{{\"url\":\"{c}\"}}\n").into_bytes()),
        (
            "ndjson",
            format!("{{\"sha256\":\"{upper}\",\"url\":\"{a}\"}}\n{{\"url\":\"{b}\"}}\n{{\"url\":\"{c}\"}}")
                .into_bytes(),
        ),
        ("parquet", parquet(&[&rows], Compression::SNAPPY)),
    ];
    for (format, plain) in lists {
        let mut expected = expected.clone();
        if format == "txt" {
            expected[0].1 = None;
        }
        for (ending, bytes) in [("", plain.clone()), (".gz", gzip(&plain)), (".zst", zstd(&plain))] {
            let name = format!("links.{format}{ending}");
            let (enqueued, mut queue) = enqueue(folder.path(), &name, &bytes, &["--strict"]);
            assert_eq!((enqueued.code, counts(&enqueued)), (0, (3, 0, 0)), "{name}: {enqueued:?}");
            assert_eq!(jobs(&mut queue), expected, "{name}");
            // On standard input, where only the content tells that it is compressed, or Parquet.
            let mut queue = RawQueue::shared();
            let mut command = Producer::command(&queue, &["enqueue", "--strict", "-"]);
            if !["txt", "parquet"].contains(&format) {
                command.args(["--list-format", format]);
            }
            let enqueued = finish(command, &bytes, SOON);
            assert_eq!((enqueued.code, jobs(&mut queue)), (0, expected.clone()), "{name}: {enqueued:?}");
        }
    }
}

#[test]
fn bad_rows_of_a_table_are_named_counted_and_kept_for_mending() {
    let folder = tempfile::tempdir().unwrap();
    let hash = "cd".repeat(32);
    let table = format!(
        "\u{feff}title,image,sha256\r\n\
         \"a, \"\"b\"\"\r\nc\",https://example.com/1.jpg,{hash}\r\n\
         # a comment\r\n\
         \r\n\
         d,ftp://example.com/2.jpg,{hash}\r\n\
         e\r\n\
         f,,\r\n\
         g,https://example.com/3.jpg,12\r\n\
         h,https://example.com/4.jpg,\r\n"
    );
    let rejects = folder.path().join("bad.jsonl");
    let arguments = ["--rejects", rejects.to_str().unwrap()];
    let (enqueued, mut queue) = enqueue(folder.path(), "urls.csv", table.as_bytes(), &arguments);
    assert_eq!((enqueued.code, counts(&enqueued)), (0, (2, 0, 3)), "{enqueued:?}");
    for line in [
        "urls.csv:6: not an http(s) URL: \"ftp://example.com/2.jpg\"",
        "urls.csv:7: too short: the link should be in column 2: \"e\"",
        "urls.csv:9: the SHA-256 \"12\" is not 64 hex digits: \"https://example.com/3.jpg\"",
    ] {
        assert!(enqueued.stderr.contains(line), "{line}: {enqueued:?}");
    }
    let first = row("https://example.com/1.jpg", Some(&hash));
    let fourth = row("https://example.com/4.jpg", None);
    assert_eq!(jobs(&mut queue), [first.clone(), fourth.clone()]);
    let kept = std::fs::read_to_string(&rejects).unwrap();
    let kept: Vec<serde_json::Value> = kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((kept.len(), &kept[0]["line"], &kept[0]["url"]), (3, &6.into(), &"ftp://example.com/2.jpg".into()));
    assert_eq!((&kept[1]["url"], &kept[1]["row"]), (&"".into(), &"e".into()));
    assert_eq!(
        (&kept[2]["why"], &kept[2]["sha256"]),
        (&"the SHA-256 \"12\" is not 64 hex digits".into(), &"12".into())
    );
    // Mended, it is a list like any other; what has no link is left out.
    let mended = std::fs::read_to_string(&rejects).unwrap().replace("ftp:", "http:").replace("\"12\"}", "\"\"}");
    let mended = written(folder.path(), "mended.jsonl", mended.as_bytes());
    let again = Producer::run(&queue, &["enqueue", "--json", "--strict", mended.to_str().unwrap()]);
    assert_eq!((again.code, counts(&again)), (0, (2, 0, 0)), "{again:?}");
    let (second, third) = (row("http://example.com/2.jpg", Some(&hash)), row("https://example.com/3.jpg", None));
    assert_eq!(jobs(&mut queue), [first, fourth, second, third]);
    let strict = Producer::run(&queue, &["enqueue", folder.path().join("urls.csv").to_str().unwrap(), "--strict"]);
    assert_eq!(strict.code, 1, "{strict:?}");
    // It would be empty before it is read.
    let itself = Producer::run(&queue, &["enqueue", rejects.to_str().unwrap(), "--rejects", rejects.to_str().unwrap()]);
    assert!(itself.code == 2 && itself.stderr.contains("hint: "), "{itself:?}");
    assert!(std::fs::metadata(&rejects).unwrap().len() > 0);
}

#[test]
fn a_hash_in_a_list_is_compared_by_the_worker() {
    let origin = Origin::start();
    let mut queue = RawQueue::shared();
    let folder = tempfile::tempdir().unwrap();
    let links = [1, 2, 3].map(|n| origin.url(&format!("{n}/300.gif")));
    let (right, wrong) = (sha256(&gif(1, 300)).to_uppercase(), sha256(b"another"));
    let table =
        format!("digest;{right},{0}\ndigest;{wrong},{1}\n,{2}\n", links[0], links[1], links[2]).replace("digest;", "");
    let path = written(folder.path(), "links.csv", table.as_bytes());
    let _worker = Worker::start(&queue, &folder.path().join("images"), &[]);
    let arguments = ["enqueue", "--wait", path.to_str().unwrap(), "--url-column", "2", "--hash-column", "1"];
    let enqueued = Producer::run(&queue, &arguments);
    assert_eq!(enqueued.code, 3, "{enqueued:?}");
    let mut results: Vec<(String, String)> = queue
        .until_results(3, SOON)
        .into_iter()
        .map(|result| (result["url"].clone(), result.get("reason").unwrap_or(&result["outcome"]).clone()))
        .collect();
    results.sort();
    let expected = ["stored", "hash_mismatch", "stored"];
    assert_eq!(results, links.into_iter().zip(expected.map(str::to_owned)).collect::<Vec<_>>());
}

#[test]
fn columns_are_found_by_name_by_number_or_by_the_first_row() {
    let folder = tempfile::tempdir().unwrap();
    let link = "https://example.com/1.jpg";
    for (name, text, arguments) in [
        ("a.csv", format!("page,Picture\nhttps://example.com/page,{link}\n"), &["--url-column", "PICTURE"][..]),
        ("b.csv", format!("cat,{link}\n"), &[]),
        ("c.csv", format!("https://example.com/page,{link}\n"), &["--url-column", "2"]),
        ("d.tsv", format!("caption\thref\nsay \"cat\t{link}\n"), &[]),
        (
            "e.json",
            format!("{{\"found\":[{{\"a\":{{\"pic\":\"{link}\"}},\"page\":\"https://x.org/\"}}]}}"),
            &["--url-column", "pic"],
        ),
        ("f.json", format!("{{\"found\":{{\"deep\":[{{\"here\":\"{link}\"}},5,\"no link\"]}}}}"), &[]),
        // Nothing tells of this name what it is.
        ("g.list", format!("x,{link}\n"), &["--list-format", "csv"]),
    ] {
        let (enqueued, mut queue) = enqueue(folder.path(), name, text.as_bytes(), arguments);
        assert_eq!((enqueued.code, jobs(&mut queue)), (0, vec![row(link, None)]), "{name}: {enqueued:?}");
    }
}

#[test]
fn a_list_without_links_names_what_it_has_and_starts_no_batch() {
    let folder = tempfile::tempdir().unwrap();
    let table = parquet(&[&[row("https://example.com/1.jpg", None)]], Compression::UNCOMPRESSED);
    for (name, bytes, arguments, parts) in [
        ("a.csv", &b"id,title\n1,cat\n"[..], &[][..], ["its columns are \"id\", \"title\"", "--url-column NAME"]),
        ("b.csv", b"id,url\n", &["--url-column", "picture"], ["no column \"picture\"", "\"id\", \"url\""]),
        ("c.csv", b"id,url\n", &["--hash-column", "md5"], ["no column \"md5\"", "--hash-column NAME"]),
        ("d.csv", b"https://x.org/,https://x.org/1.jpg\n", &[], ["several columns, 1 and 2", "--url-column NUMBER"]),
        ("e.parquet", &table, &["--url-column", "id"], ["column \"id\"", "no text"]),
        ("f.parquet", &table, &["--url-column", "pic"], ["\"id\", \"url\", \"sha256\"", "--url-column NAME"]),
        ("g.parquet", b"PAR1 no more", &[], ["not a Parquet file", "g.parquet"]),
        ("h.csv.gz", b"id,url\n", &[], ["it is not gzip data", "hint: "]),
    ] {
        let (enqueued, mut queue) = enqueue(folder.path(), name, bytes, arguments);
        assert_eq!(enqueued.code, 1, "{name}: {enqueued:?}");
        let is_named = enqueued.stderr.starts_with("error: cannot read ") && enqueued.stderr.contains(name);
        assert!(is_named && parts.iter().all(|part| enqueued.stderr.contains(part)), "{name}: {enqueued:?}");
        assert_eq!(queue.run::<usize>(&["EXISTS", "@batches"]), 0, "{name}");
    }
    // What is only known once it is read.
    for (name, text, part) in [
        ("a.json", "{\"rows\":[{\"id\":7}]}", "no link in it; its keys are \"rows\", \"id\""),
        ("b.json", "[1,2", "not JSON: EOF while parsing a list (line 1, column 4)"),
        ("c.jsonl", "{\"id\":7}\n", "c.jsonl:1: no link in it: \"{\"id\":7}\""),
    ] {
        let (enqueued, _) = enqueue(folder.path(), name, text.as_bytes(), &[]);
        assert_eq!(enqueued.code, 1, "{name}: {enqueued:?}");
        assert!(enqueued.stderr.contains(part) && enqueued.stderr.contains("hint: "), "{name}: {enqueued:?}");
    }
}

#[test]
fn parquet_of_several_row_groups_with_gaps() {
    let folder = tempfile::tempdir().unwrap();
    let link = |n: usize| format!("https://example.com/{n}.jpg");
    let rows: Vec<Row> = (0..5000)
        .map(|n| match n {
            1500 => row("cat.jpg", None),
            _ if n % 7 == 3 => (None, Some("ab".repeat(32))),
            _ => (Some(link(n)), (n % 2 == 0).then(|| format!("{n:064x}"))),
        })
        .collect();
    let expected: Vec<Row> =
        rows.iter().filter(|(url, _)| url.as_ref().is_some_and(|url| url.starts_with("http"))).cloned().collect();
    let groups = [&rows[..1], &rows[1..1], &rows[1..2600], &rows[2600..]];
    for codec in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::BROTLI(Default::default()),
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
    ] {
        let (enqueued, mut queue) = enqueue(folder.path(), "l.parquet", &parquet(&groups, codec), &[]);
        assert_eq!((enqueued.code, counts(&enqueued)), (0, (expected.len() as u64, 0, 1)), "{codec}: {enqueued:?}");
        assert!(enqueued.stderr.contains("l.parquet:1501: not an http(s) URL: \"cat.jpg\""), "{enqueued:?}");
        assert!(jobs(&mut queue) == expected, "{codec}");
    }
}

#[test]
fn a_list_that_is_cut_short_gives_what_comes_before_and_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..20_000).map(|n| format!("https://example.com/{n}.jpg\n")).collect();
    for (name, whole) in [("l.txt.gz", gzip(text.as_bytes())), ("l.csv.zst", zstd(text.as_bytes()))] {
        let (enqueued, mut queue) = enqueue(folder.path(), name, &whole[..whole.len() / 2], &[]);
        assert_eq!(enqueued.code, 1, "{enqueued:?}");
        assert!(
            enqueued.stderr.contains("data is cut short, after line ") && enqueued.stderr.contains(name),
            "{enqueued:?}"
        );
        let jobs = jobs(&mut queue);
        assert!((100..20_000).contains(&jobs.len()), "{}", jobs.len());
        for (n, (url, _)) in jobs.iter().enumerate() {
            assert_eq!(url.as_deref(), Some(format!("https://example.com/{n}.jpg").as_str()));
        }
    }
}

/// An origin of lists.
fn lists(answer: impl Fn(&str) -> Vec<Act> + Send + Sync + 'static) -> Scripted {
    Scripted::start(answer)
}

fn ok(headers: &str, body: &[u8]) -> Vec<Act> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    vec![Act::Send(head.into_bytes()), Act::Send(body.to_vec())]
}

#[test]
fn a_list_at_a_url() {
    let csv = b"id,url\n1,https://example.com/1.jpg\n2,https://example.com/2.jpg\n3,cat.jpg\n".to_vec();
    let rows: Vec<Row> = (1..=2).map(|n| row(&format!("https://example.com/{n}.jpg"), None)).collect();
    let table = parquet(&[&rows], Compression::SNAPPY);
    let (zipped, expected) = (gzip(&csv), rows.clone());
    let origin = lists(move |path| match path {
        "l.csv.gz?secret=1" => ok("", &zipped),
        "told" => ok("Content-Type: text/csv; charset=utf-8\r\n", &csv),
        "l.parquet" => ok("", &table),
        // The connection ends with the script; who was not told would send the next request on it.
        "moved" => vec![Act::Send(
            b"HTTP/1.1 302 Found\r\nLocation: /told\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec(),
        )],
        "short.csv" => vec![
            Act::Send(
                format!("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{}", String::from_utf8_lossy(&csv)).into(),
            ),
            Act::Reset,
        ],
        _ => vec![Act::Send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec())],
    });
    for path in ["l.csv.gz?secret=1", "told", "l.parquet", "moved"] {
        let mut queue = RawQueue::shared();
        let enqueued = Producer::run(&queue, &["enqueue", "--json", &format!("list:{}", origin.url(path))]);
        assert_eq!(enqueued.code, 0, "{path}: {enqueued:?}");
        assert_eq!(jobs(&mut queue), expected, "{path}");
        let bad = format!("{}:4: not an http(s) URL: \"cat.jpg\"", origin.url(path));
        assert_eq!(enqueued.stderr.contains(&bad), path != "l.parquet", "{path}: {enqueued:?}");
    }
    let enqueue = |url: &str| Producer::run(&RawQueue::shared(), &["enqueue", &format!("list:{url}")]);
    let missing = enqueue(&origin.url("none.csv").replace("http://", "http://user:geheim@"));
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.stderr.contains("/none.csv: the answer is 404 Not Found"), "{missing:?}");
    assert!(missing.stderr.contains("hint: ") && !missing.stderr.contains("geheim"), "{missing:?}");
    let nobody = enqueue("http://127.0.0.1:1/l.csv");
    assert!(nobody.code == 1 && nobody.stderr.contains("cannot read http://127.0.0.1:1/l.csv: "), "{nobody:?}");
    let mut queue = RawQueue::shared();
    let short = Producer::run(&queue, &["enqueue", &format!("list:{}", origin.url("short.csv"))]);
    assert_eq!(short.code, 1, "{short:?}");
    assert!(short.stderr.contains("short.csv: the download broke off ("), "{short:?}");
    assert!(short.stderr.contains("after line 4") && jobs(&mut queue) == expected, "{short:?}");
}

#[test]
fn rows_are_enqueued_while_their_list_is_still_arriving() {
    let mut queue = RawQueue::shared();
    let origin = lists(|_| {
        let rows = b"url\nhttps://example.com/1.jpg\nhttps://example.com/2.jpg\n";
        vec![Act::Send([b"HTTP/1.1 200 OK\r\n\r\n", &rows[..]].concat()), Act::Stall]
    });
    let arguments = ["enqueue", &format!("list:{}", origin.url("l.csv"))];
    let mut child = Producer::command(&queue, &arguments).spawn().unwrap();
    until("the rows are on the queue", SOON, || (queue.ready_len() == 2).then_some(()));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "and Ctrl-C ends it");
}

#[test]
fn a_limit_and_a_second_run_work_as_for_text() {
    let folder = tempfile::tempdir().unwrap();
    let table = b"url\nhttps://x.org/1.jpg\nhttps://x.org/1.jpg\nhttps://x.org/2.jpg\n";
    let (first, queue) = enqueue(folder.path(), "l.csv", table, &["--limit", "2"]);
    assert_eq!((first.code, counts(&first)), (0, (1, 1, 0)), "{first:?}");
    let path = folder.path().join("l.csv");
    let second = Producer::run(&queue, &["enqueue", "--json", path.to_str().unwrap()]);
    assert_eq!(counts(&second), (1, 2, 0), "{second:?}");
}

#[test]
fn an_enqueue_of_a_table_that_was_killed_is_completed_by_the_same_command() {
    const ROWS: usize = 100_000;
    let folder = tempfile::tempdir().unwrap();
    let table: String = (0..ROWS).map(|n| format!("{n},https://x.org/{n}.jpg\n")).collect();
    let path = written(folder.path(), "many.csv.gz", &gzip(table.as_bytes()));
    let mut queue = RawQueue::shared();
    let arguments = ["enqueue", "--no-dedup", path.to_str().unwrap(), "--url-column", "2"];
    let mut child = Producer::command(&queue, &arguments).spawn().unwrap();
    until("it has begun", SOON, || (queue.ready_len() > 0).then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    let before = queue.ready_len();
    assert!((1..ROWS).contains(&before), "killed in the middle: {before}");
    // With another column it is another command; that one has no links at all.
    let other = Producer::run(&queue, &["enqueue", "--no-dedup", path.to_str().unwrap(), "--url-column", "1"]);
    assert!(!other.stderr.contains("going on with batch") && queue.ready_len() == before, "another batch");
    let second = Producer::run(&queue, &[&arguments[..], &["--json"]].concat());
    assert_eq!(second.code, 0, "{second:?}");
    assert!(second.stderr.contains("going on with batch"), "{second:?}");
    let urls: Vec<Option<String>> = jobs(&mut queue).into_iter().map(|(url, _)| url).collect();
    let expected: Vec<Option<String>> = (0..ROWS).map(|n| Some(format!("https://x.org/{n}.jpg"))).collect();
    assert!(urls == expected, "each row once and in order: {}", urls.len());
}
