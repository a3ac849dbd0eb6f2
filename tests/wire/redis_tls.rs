//! Redis over TLS, with a certificate of one's own authority, as people have it who run their own server.

use harness::programs::finish;
use harness::tls::{Authority, Certificate};
use harness::{Origin, Producer, RawQueue, Redis, Worker};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// A server with a TLS port, and that port's URL. `None` where redis-server was built without TLS.
fn server(certificate: Certificate, authority: &Authority, folder: &Path) -> (Redis, String) {
    let [cert, key] = authority.write_server_files(certificate, folder);
    // Free now; Redis cannot take one by itself.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let options = ["--tls-port", &port.to_string(), "--tls-cert-file", cert.to_str().unwrap(), "--tls-key-file"];
    let mut options = options.to_vec();
    options.extend([key.to_str().unwrap(), "--tls-auth-clients", "no"]);
    (Redis::private(&options), format!("rediss://127.0.0.1:{port}/0"))
}

#[test]
fn a_queue_over_tls_works_with_an_authority_of_one_s_own() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, file) = (Authority::new(), folder.path().join("ca.pem"));
    authority.write_to(&file);
    let (redis, url) = server(Certificate::Good, &authority, folder.path());
    let mut queue = RawQueue::on(&redis);
    let origin = Origin::start();
    let storage = folder.path().join("images");
    let link = origin.url("1/500.gif");

    let mut enqueue = Producer::command_at(&url, &queue.name, &["enqueue", &link]);
    enqueue.env("SSL_CERT_FILE", &file);
    let enqueued = finish(enqueue, b"", SOON);
    assert_eq!(enqueued.code, 0, "{enqueued:?}");
    let mut worker = Worker::command_at(&url, &queue.name, &storage);
    let _worker = Worker::of(worker.env("SSL_CERT_FILE", &file).spawn().unwrap());
    let results = queue.until_results(1, SOON);
    assert_eq!(results[0]["outcome"], "stored");
    // Idle, it waits on a connection of its own, and wakes.
    queue.push(&origin.url("2/500.gif"));
    queue.until_results(2, SOON);
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let (_redis, url) = server(Certificate::Good, &Authority::new(), folder.path());
    let status = finish(Producer::command_at(&url, "q", &["status"]), b"", SOON);
    assert_eq!(status.code, 1, "{status:?}");
    assert!(status.stderr.contains(&url) && status.stderr.contains("certificate"), "{status:?}");
    assert!(status.stderr.contains("SSL_CERT_FILE"), "{status:?}");
}
