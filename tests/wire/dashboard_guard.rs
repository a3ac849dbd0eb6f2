//! Who may do what with the dashboard: other sites, other machines, those without the token, and those who play with its port.

use crate::dashboard::{dead, read_until};
use harness::dashboard::form;
use harness::programs::finish;
use harness::{Dashboard, Producer, RawQueue, allowed};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);
const TOKEN: &str = "0123456789abcdef-secret";

#[test]
fn every_answer_has_its_headers() {
    let queue = RawQueue::shared();
    let dashboard = Dashboard::start(&queue, Path::new("."), &[]);
    let policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
                  base-uri 'none'; frame-ancestors 'none'";
    for path in
        ["/", "/dead", "/results", "/login", "/nothing", "/metrics", "/healthz", "/app.js", "/thumb/1-1", "/batch/x"]
    {
        let page = dashboard.get(path);
        for (name, value) in [
            ("content-security-policy", policy),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(page.header(name), value, "{path}");
        }
        assert_eq!(page.header("cache-control") == "no-store", path != "/app.js", "{path}");
        let text = page.text();
        assert!(!text.contains(" style=") && !text.contains(" onclick=") && !text.contains("<script>"), "{path}");
    }
    let refused = dashboard.request("GET", "/", &[("Host", "evil.example")], "");
    assert_eq!((refused.status, refused.header("content-security-policy")), (421, policy));
    assert_eq!(dashboard.request("DELETE", "/pause", &[], "").status, 405);
}

#[test]
fn what_another_site_asks_for_changes_nothing() {
    let mut queue = RawQueue::shared();
    let entry = dead(&mut queue, "a", "https://x.org/a.jpg", "dns");
    let dashboard = Dashboard::start(&queue, Path::new("."), &[]);
    let token = dashboard.form_token();
    let own = format!("http://{}", dashboard.address);
    let right = form(&[("form_token", &token), ("entry", &entry), ("reason", "dns")]);
    let wrong = form(&[("form_token", &"0".repeat(64)), ("entry", &entry), ("reason", "dns")]);
    let none = form(&[("entry", &entry), ("reason", "dns")]);
    let cases: [(&[(&str, &str)], &str); 8] = [
        (&[("Origin", "http://evil.example")], &right),
        (&[("Origin", "null")], &right),
        (&[("Sec-Fetch-Site", "cross-site")], &right),
        (&[("Sec-Fetch-Site", "same-site"), ("Origin", &own)], &right),
        (&[("Origin", &own)], &wrong),
        (&[("Origin", &own)], &none),
        (&[], &none),
        (&[("Origin", &own), ("Host", "evil.example")], &right),
    ];
    for path in ["/pause", "/resume", "/dead/retry", "/dead/drop", "/dead/retry-reason", "/logout"] {
        for (headers, body) in &cases {
            let refused = dashboard.request("POST", path, headers, body);
            assert!(matches!(refused.status, 403 | 421), "{path} {headers:?}: {refused:?}");
        }
        let by_get = dashboard.get(&format!("{path}?{right}"));
        assert_eq!(by_get.status, 405, "{path}");
    }
    let too_long =
        dashboard.request("POST", "/pause", &[("Origin", &own)], &format!("{right}&x={}", "y".repeat(20_000)));
    assert_eq!(too_long.status, 403);
    assert_eq!((queue.run::<u64>(&["XLEN", "@dead"]), queue.ready_len()), (1, 0));
    assert!(!queue.hash("meta").contains_key("paused"));
    // And with everything right it is done, also without what only browsers send.
    assert_eq!(dashboard.request("POST", "/pause", &[], &right).status, 303);
    assert_eq!(queue.hash("meta")["paused"], "1");
}

#[test]
fn names_of_other_machines_are_not_answered() {
    let queue = RawQueue::shared();
    let dashboard = Dashboard::start(&queue, Path::new("."), &[]);
    let port = dashboard.address.rsplit(':').next().unwrap();
    for host in [
        "evil.example",
        &format!("evil.example:{port}"),
        "127.0.0.1",
        "localhost:1",
        "",
        &format!("127.0.0.1.evil.example:{port}"),
    ] {
        for path in ["/", "/metrics", "/events", "/healthz"] {
            let refused = dashboard.request("GET", path, &[("Host", host)], "");
            assert_eq!(refused.status, 421, "{host} {path}");
            assert!(!refused.text().contains("form_token"), "{host} {path}");
        }
    }
    for host in [format!("localhost:{port}"), format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        assert_eq!(dashboard.request("GET", "/", &[("Host", &host)], "").status, 200, "{host}");
    }
}

#[test]
fn other_machines_need_the_token() {
    let queue = RawQueue::shared();
    let listens = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = Producer::command(&queue, &[&["dashboard"], arguments].concat());
        command.envs(environment.iter().copied());
        finish(command, b"", SOON)
    };
    for address in ["0.0.0.0:0", ":0"] {
        let refused = listens(&["--listen", address], &[]);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(
            refused.stderr.contains("no token") && refused.stderr.contains("hint: set IMGQ_DASHBOARD_TOKEN"),
            "{refused:?}"
        );
    }
    let short = listens(&["--listen", "127.0.0.1:0"], &[("IMGQ_DASHBOARD_TOKEN", "hunter2")]);
    assert!(short.code == 2 && short.stderr.contains("openssl rand") && !short.stderr.contains("hunter2"), "{short:?}");
    let dashboard =
        Dashboard::start_with(&queue, Path::new("."), &["--listen", "0.0.0.0:0"], &[("IMGQ_DASHBOARD_TOKEN", TOKEN)]);
    let host = ("Host", "imgq.example.org");
    // Without it: the way to the login, and nothing else.
    let page = dashboard.request("GET", "/", &[host], "");
    assert_eq!((page.status, page.header("location")), (303, "/login"));
    for path in ["/metrics", "/events", "/thumb/1-1"] {
        let refused = dashboard.request("GET", path, &[host], "");
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Bearer"), "{path}");
    }
    for path in ["/login", "/app.css", "/app.js", "/icon.svg", "/healthz", "/readyz"] {
        assert_eq!(dashboard.request("GET", path, &[host], "").status, 200, "{path}");
    }
    assert_eq!(dashboard.request("POST", "/pause", &[host], &form(&[("form_token", "x")])).status, 401);
    for wrong in ["", "0123456789abcdef", "0123456789abcdef-secres", "0123456789abcdef-secret-and-more"] {
        let refused = dashboard.request("POST", "/login", &[host], &form(&[("token", wrong)]));
        assert_eq!((refused.status, refused.header("set-cookie")), (401, ""), "{wrong}");
        let bearer = format!("Bearer {wrong}");
        assert_eq!(
            dashboard.request("GET", "/metrics", &[host, ("Authorization", &bearer)], "").status,
            401,
            "{wrong}"
        );
    }
    let foreign =
        dashboard.request("POST", "/login", &[host, ("Origin", "https://evil.example")], &form(&[("token", TOKEN)]));
    assert_eq!((foreign.status, foreign.header("set-cookie")), (403, ""));
    // With it: a cookie, which is not the token, and opens everything.
    let logged_in = dashboard.request(
        "POST",
        "/login",
        &[host, ("Origin", "https://imgq.example.org"), ("X-Forwarded-Proto", "https")],
        &form(&[("token", TOKEN)]),
    );
    let cookie = logged_in.header("set-cookie");
    assert_eq!((logged_in.status, logged_in.header("location")), (303, "/"));
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Secure"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains(TOKEN) && !cookie.contains("secret"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    let page = dashboard.request("GET", "/", &[host, ("Cookie", cookie)], "").text();
    assert!(page.contains("Log out") && !page.contains(TOKEN), "{page}");
    assert_eq!(
        dashboard.request("GET", "/metrics", &[host, ("Authorization", &format!("Bearer {TOKEN}"))], "").status,
        200
    );
    let mut forged = cookie.to_owned();
    forged.pop();
    assert_eq!(dashboard.request("GET", "/", &[host, ("Cookie", &forged)], "").status, 303);
    // The cookie alone changes nothing: the form's token is asked for too.
    let bare = dashboard.request("POST", "/pause", &[host, ("Cookie", cookie)], "");
    assert_eq!(bare.status, 403);
    let token = page.split("name=\"form_token\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let headers = [host, ("Cookie", cookie), ("Origin", "https://imgq.example.org")];
    assert_eq!(dashboard.request("POST", "/pause", &headers, &form(&[("form_token", token)])).status, 303);
    let out = dashboard.request("POST", "/logout", &headers, &form(&[("form_token", token)]));
    assert!(out.status == 303 && out.header("set-cookie").contains("Max-Age=0"), "{out:?}");
}

#[test]
fn an_address_that_somebody_has() {
    let queue = RawQueue::shared();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = Producer::run(&queue, &["dashboard", "--listen", &address]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains(&address) && refused.stderr.contains("hint: another program has this port"),
        "{refused:?}"
    );
    let nonsense = Producer::run(&queue, &["dashboard", "--listen", "8080"]);
    assert!(nonsense.code == 2 && nonsense.stderr.contains("127.0.0.1:"), "{nonsense:?}");
}

#[test]
fn who_plays_with_the_port_holds_up_nobody() {
    let queue = RawQueue::shared();
    let dashboard = Dashboard::start(&queue, Path::new("."), &[]);
    let mut viewer = dashboard.watch("");
    read_until(&mut viewer, "event: tick");
    // Connections that say nothing, and one that never gets to the end of its head.
    let idle: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(&dashboard.address).unwrap()).collect();
    assert_eq!(dashboard.get("/healthz").status, 200);
    read_until(&mut viewer, "event: tick");
    drop(idle);
    let many: Vec<(String, String)> = (0..100).map(|n| (format!("X-{n}"), "y".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let refused = dashboard.try_request("GET", "/", &many, "");
    assert!(refused.is_err() || refused.is_ok_and(|page| page.status == 431), "too many headers");
    let long = "y".repeat(100_000);
    let refused = dashboard.try_request("GET", "/", &[("X-Long", &long)], "");
    assert!(refused.is_err() || refused.is_ok_and(|page| page.status == 431), "too long a header");
    let mut silent = TcpStream::connect(&dashboard.address).unwrap();
    silent.set_read_timeout(Some(SOON)).unwrap();
    silent.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let began = Instant::now();
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest);
    assert!(began.elapsed() < allowed(Duration::from_secs(20)), "closed after a while");
}
