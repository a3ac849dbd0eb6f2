//! Tests of telling sources apart, checking them, and reading several in turn.

use super::imgur::test_server::{Reply, TestImgur, error_body};
use super::*;
use std::io::Write;

fn options(sites: ImgurSites, client_id: Option<&str>) -> SourceOptions {
    SourceOptions {
        pages: Pages::default(),
        types: MediaTypes::default(),
        sites,
        client_id: client_id.map(str::to_owned),
        user_agent: "imgq-test".into(),
        lists: ListOptions::default(),
        notify: Arc::new(|_| {}),
    }
}

fn list_of(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".txt").tempfile().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

/// Links as they are, bad lines as they print, an error as the last.
async fn all(mut sources: Sources) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        match sources.next().await {
            Ok(Some(Found::Link(wanted))) => found.push(wanted.url),
            Ok(Some(Found::Bad(bad))) => found.push(bad.to_string()),
            Ok(None) => return found,
            Err(error) => {
                found.push(format!("error: {error}"));
                return found;
            }
        }
    }
}

#[test]
fn sources_are_told_apart() {
    let url = |text: &str| Source::Url(text.into());
    for (text, expected) in [
        ("-", Source::Stdin),
        ("imgur:random", Source::Imgur(ImgurSource::Random)),
        ("imgur:a/DytNW1A", Source::Imgur(ImgurSource::Album("DytNW1A".into()))),
        ("https://imgur.com/a/DytNW1A", url("https://imgur.com/a/DytNW1A")),
        ("HTTP://example.com/a.jpg", url("HTTP://example.com/a.jpg")),
        ("links.txt", Source::List("links.txt".into())),
        ("imgur.com/a/DytNW1A", Source::List("imgur.com/a/DytNW1A".into())),
        ("/tmp/a:b", Source::List("/tmp/a:b".into())),
        ("list:https://x/l.csv.gz", Source::ListUrl("https://x/l.csv.gz".into())),
        ("./list:x", Source::List("./list:x".into())),
    ] {
        assert_eq!(Source::parse(text).ok(), Some(expected), "{text}");
    }
}

#[test]
fn a_usage_error_names_the_input_the_reason_and_the_remedy() {
    for (text, reason, remedy) in [
        ("imgur:nonsense", "known are imgur:random, imgur:hot", "imgur:search/"),
        ("imgur:", "known are", "imgur:"),
        ("imgur:top/decade", "day, week, month", "imgur:"),
        ("ftp://example.com/a.jpg", "not an http(s) URL", "http://"),
        ("http:example.com", "no // after the scheme", "https://example.com/cat.jpg"),
        ("https://[::1", "not a well-formed URL", "https://example.com/cat.jpg"),
        ("http://", "not a well-formed URL", "https://example.com/cat.jpg"),
        ("list:links.csv", "not an http(s) URL", "list:https://"),
    ] {
        let error = Source::parse(text).expect_err(text);
        assert_eq!(error.exit_code(), 2, "{text}");
        assert!(error.to_string().contains(text) && error.to_string().contains(reason), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains(remedy)), "{:?}", error.hint());
    }
    let page = vec![Source::Url("https://imgur.com/upload/x/y/z".into())];
    let error = Sources::new(page, options(ImgurSites::default(), None)).err().expect("no images there");
    assert!(error.exit_code() == 2 && error.hint().is_some_and(|hint| hint.contains("imgur.com/a/ID")));
}

#[test]
fn files_are_checked_before_the_first_link() {
    let directory = tempfile::tempdir().expect("a directory");
    let touch = |name: &str| {
        let path = directory.path().join(name);
        File::create(&path).expect("created");
        path
    };
    let refused = |path: PathBuf| {
        let sources = vec![Source::Url("http://x/a".into()), Source::List(path)];
        let error = Sources::new(sources, options(ImgurSites::default(), None)).err().expect("refused");
        assert_eq!(error.exit_code(), 1);
        error
    };
    assert!(matches!(refused(directory.path().join("none.txt")), SourceError::NoSuchFile { .. }));
    assert!(matches!(refused(directory.path().join("none.csv")), SourceError::NoSuchFile { .. }));
    assert!(matches!(refused(touch("file").join("x.txt")), SourceError::NoSuchFile { .. }));
    assert!(matches!(refused(directory.path().to_owned()), SourceError::Unreadable { .. }));
    let table = touch("links.csv");
    std::fs::write(&table, "id,title\n1,cat\n").expect("written");
    assert!(matches!(refused(table), SourceError::Unreadable { .. }));
    for name in ["links.txt", "links", "links.list"] {
        Source::List(touch(name)).check(&ListOptions::default()).expect("a text list");
    }
}

#[test]
fn a_source_that_needs_a_client_id_says_what_works_without_one() {
    for text in ["imgur:random", "imgur:r/aww", "https://imgur.com/user/somebody", "https://imgur.com/t/cats"] {
        for id in [None, Some(""), Some("  ")] {
            let sources = vec![Source::parse(text).expect(text)];
            let error = Sources::new(sources, options(ImgurSites::default(), id)).err().expect("no id");
            assert_eq!(error.exit_code(), 1);
            let shown = format!("{error} {}", error.hint().unwrap_or_default());
            for part in ["2025", "IMGUR_CLIENT_ID", "--client-id", "imgur.com/a/ID", "links.txt", "scripts/demo.sh"] {
                assert!(shown.contains(part), "{part}: {shown}");
            }
        }
        let sources = vec![Source::parse(text).expect(text)];
        assert!(Sources::new(sources, options(ImgurSites::default(), Some("id"))).is_ok(), "{text}");
    }
    for text in ["imgur:a/DytNW1A", "https://imgur.com/gallery/DytNW1A", "https://imgur.com/DytNW1A", "http://x/a"] {
        let sources = vec![Source::parse(text).expect(text)];
        assert!(Sources::new(sources, options(ImgurSites::default(), None)).is_ok(), "{text}");
    }
    let sources = vec![Source::Imgur(ImgurSource::Hot)];
    let error = Sources::new(sources, options(ImgurSites::default(), Some("a\nb"))).err().expect("no header");
    assert!(!error.to_string().contains("a\nb") && error.exit_code() == 1, "{error}");
}

#[tokio::test]
async fn sources_are_read_in_turn_and_pages_in_a_list_are_expanded_in_place() {
    let imgur = TestImgur::start(vec![
        Reply::json(r#"{"data":{"count":1,"images":[{"hash":"aaaaaaa","ext":".png"}]},"success":true,"status":200}"#),
        Reply::json(r#"{"data":[],"success":true,"status":200}"#),
    ])
    .await;
    let list = list_of(
        "# links\nhttps://imgur.com/a/xxxxxxx\nhttps://imgur.com/a/yyyyyyy\nhttps://imgur.com/user/somebody\n\
         cat.jpg\nhttps://i.imgur.com/bbbbbbbh.jpeg?1",
    );
    let name = list.path().display();
    let sources = vec![
        Source::Url("http://example.com/a b#c".into()),
        Source::List(list.path().to_owned()),
        Source::Url(format!("{}/i/ccccccc.gif", imgur.base())),
    ];
    let found = all(Sources::new(sources, options(imgur.sites(), None)).expect("checked")).await;
    let image = |file: &str| format!("{}/i/{file}", imgur.base());
    assert_eq!(
        found,
        [
            "http://example.com/a%20b".to_owned(),
            image("aaaaaaa.png"),
            format!("{name}:3: Imgur does not have it: \"https://imgur.com/a/yyyyyyy\""),
            format!("{name}:4: needs an Imgur client id, and none is set: \"https://imgur.com/user/somebody\""),
            format!("{name}:5: not an http(s) URL: \"cat.jpg\""),
            image("bbbbbbb.jpg"),
            image("ccccccc.gif"),
        ]
    );
}

#[tokio::test]
async fn a_missing_album_on_the_command_line_is_an_error() {
    let imgur = TestImgur::start(vec![Reply::json(r#"{"data":[],"success":true,"status":200}"#)]).await;
    let sources = vec![Source::Imgur(ImgurSource::Album("xxxxxxx".into())), Source::Url("http://x/a".into())];
    let found = all(Sources::new(sources, options(imgur.sites(), None)).expect("checked")).await;
    assert_eq!(found, ["error: cannot read imgur:a/xxxxxxx: Imgur does not have it"]);
}

#[tokio::test]
async fn a_refused_client_id_ends_a_list_too() {
    let reply = Reply::json(&error_body("The client_id is invalid", 403)).status(403);
    let imgur = TestImgur::start(vec![reply]).await;
    let list = list_of("http://x/a\nhttps://imgur.com/a/xxxxxxx\nhttp://x/b\n");
    let sources = vec![Source::List(list.path().to_owned())];
    let found = all(Sources::new(sources, options(imgur.sites(), Some("sesame"))).expect("checked")).await;
    assert_eq!(found[0], "http://x/a");
    assert!(found[1].starts_with("error: cannot read https://imgur.com/a/xxxxxxx ("), "{}", found[1]);
    assert!(found[1].contains("refuses the client id") && !found[1].contains("sesame"), "{}", found[1]);
}

#[tokio::test]
async fn what_is_skipped_is_counted_over_all_sources() {
    let page = r#"{"data":[{"id":"aaaaaaa","type":"image/jpeg"},{"id":"bbbbbbb","type":"image/bmp"}],"success":true}"#;
    let imgur = TestImgur::start(vec![Reply::json(page)]).await;
    let both = vec![Source::Imgur(ImgurSource::Hot), Source::Imgur(ImgurSource::Random)];
    let mut sources = Sources::new(both, options(imgur.sites(), Some("id"))).expect("checked");
    let mut links = 0;
    while sources.next().await.expect("answers").is_some() {
        links += 1;
    }
    assert_eq!((links, sources.skipped()), (2, 2));
}

#[test]
fn sites_are_base_urls_without_a_trailing_slash() {
    let sites =
        sites_from("http://127.0.0.1:8000/", "http://127.0.0.1:8000/web//", "https://i.imgur.com").expect("sites");
    assert_eq!(sites.api.as_str(), "http://127.0.0.1:8000/");
    assert_eq!(sites.web.as_str(), "http://127.0.0.1:8000/web");
    assert_eq!(sites.image.as_str(), "https://i.imgur.com/");
    for bad in ["imgur.com", "ftp://x", "http://", "http://x/?a=b", ""] {
        let error = sites_from("http://x", bad, "http://x").expect_err(bad);
        assert!(error.to_string().contains("IMGUR_WEB_URL") && error.exit_code() == 2, "{error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn pages_are_a_number_from_1_or_all() {
    for text in ["1", "40", "all"] {
        assert_eq!(text.parse::<Pages>().map(|p| p.to_string()), Ok(text.to_owned()));
    }
    for text in ["0", "-1", "many", "", "1.5"] {
        assert!(text.parse::<Pages>().is_err(), "{text}");
    }
}
