//! Sockets that behave badly, proxies that say who asks, and an end in good order.

use std::io::{BufReader, Read as _, Write as _};
use std::time::{Duration, Instant};

use mommygpt::web::WebOptions;
use serde_json::json;

use crate::app::{Setting, TestApp, until};
use crate::client::{ask, connect, raw, read_head};

/// The server gives a silent or dawdling client ten seconds (fifteen for a body); a loaded machine some more.
const REAPED: Duration = Duration::from_secs(30);

#[test]
fn clients_that_say_nothing_or_half_a_word_are_hung_up_on() {
    let app = TestApp::start();
    let started = Instant::now();
    let mut lazy = Vec::new();
    for words in ["", "GET / HT", "GET / HTTP/1.1\r\nhost: localhost\r\nx-a: b", "\r\n"] {
        let mut socket = connect(app.addr).unwrap();
        socket.write_all(words.as_bytes()).unwrap();
        lazy.push(socket);
    }
    let mut dawdler = connect(app.addr).unwrap();
    let head = "POST /api/auth/signin HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
        content-length: 100\r\n\r\n{";
    dawdler.write_all(head.as_bytes()).unwrap();
    // Meanwhile others are served.
    ask("GET", "/health/live").send(app.addr).expect(200);
    for mut socket in lazy {
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&rest));
    }
    let (answer, _) = read_head(BufReader::new(dawdler), false).unwrap();
    assert_eq!(answer.status, 408);
    assert!(started.elapsed() < REAPED);
}

#[test]
fn a_head_past_the_buffer_and_broken_requests_are_refused_and_the_server_lives() {
    let app = TestApp::start();
    let many = (0..10_000).map(|i| format!("x-{i}: y")).collect::<Vec<_>>().join("\r\n");
    let long = "a".repeat(1 << 20);
    for request in [
        format!("GET / HTTP/1.1\r\nhost: localhost\r\n{many}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        "GET / HTTP/1.1\r\nhost: localhost\r\n folded: x\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nhost: localhost\r\nbad header: x\r\n\r\n".to_owned(),
        "POST /api/me HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello"
            .to_owned(),
        "POST /api/me HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n".to_owned(),
        "POST /api/me HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\u{0}\u{1}\u{2}\r\n\r\n".to_owned(),
    ] {
        // A refusal or a closed connection; never a good answer.
        if let Ok(answer) = raw(app.addr, request.as_bytes()) {
            assert!(
                (400..500).contains(&answer.status),
                "{}: {}",
                answer.status,
                &request[..40.min(request.len())]
            );
        }
    }
    ask("GET", "/health/live").send(app.addr).expect(200);
}

#[test]
fn many_idle_streams_and_one_more_guest() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let streams: Vec<_> =
        (0..200).map(|_| ask("GET", "/api/events").bearer(&ada.token).stream(app.addr)).collect();
    assert!(streams.iter().all(|s| s.head().status == 200));
    let open = || {
        let text = ask("GET", "/metrics").send(app.addr).expect(200);
        text.text().lines().any(|l| l == "mommygpt_sse_open 200")
    };
    until("all are open", open);
    app.sign_in(&ada);
    drop(streams);
    until("all are closed", || {
        ask("GET", "/metrics").send(app.addr).text().lines().any(|l| l == "mommygpt_sse_open 0")
    });
}

#[test]
fn guesses_are_counted_per_client_whatever_they_claim() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let wrong = json!({"email": ada.email, "password": "wrong password"});
    let guess = |app: &TestApp, i: usize| {
        ask("POST", "/api/auth/signin")
            .header("x-forwarded-for", &format!("203.0.113.{}", i % 250))
            .header("x-real-ip", &format!("203.0.113.{}", i % 250))
            .header("forwarded", &format!("for=203.0.113.{}", i % 250))
            .json(&wrong)
            .send(app.addr)
    };
    // Nobody made this peer a proxy, so its words about others count for nothing.
    let last = (0..40).map(|i| guess(&app, i)).find(|a| a.status == 429).expect("a limit");
    assert_eq!(last.code(), "too_many_attempts");
    assert!(last.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
}

#[test]
fn behind_a_proxy_one_guesser_does_not_lock_the_family_out() {
    let web = WebOptions { trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..WebOptions::default() };
    let app = TestApp::with(Setting { web, ..Setting::default() });
    let ada = app.sign_up("ada");
    let from = |ip: &str, password: &str| {
        ask("POST", "/api/auth/signin")
            .header("x-forwarded-for", ip)
            .json(&json!({"email": ada.email, "password": password}))
            .send(app.addr)
            .status
    };
    assert!((0..40).any(|_| from("203.0.113.7", "wrong password") == 429));
    assert_eq!(from("203.0.113.8", crate::app::PASSWORD), 200);
}

#[test]
fn the_server_stops_within_five_seconds_and_streams_end_in_good_order() {
    let mut app = TestApp::start();
    let ada = app.sign_up("ada");
    let idle: Vec<_> =
        (0..100).map(|_| ask("GET", "/api/events").bearer(&ada.token).stream(app.addr)).collect();
    let chat = app.new_chat(&ada);
    let reply = crate::script::count_to(200);
    app.script.says(&reply);
    app.script.allow(5);
    let mut writing = app.send(&ada, &chat, &json!({"content": "count"}));
    writing.until("delta");
    let took = app.stop();
    assert!(took < Duration::from_secs(5), "{took:?}");
    for stream in idle {
        // A chunked body that ends with its last chunk; a broken one would panic here.
        stream.rest();
    }
    writing.rest();
    let app = app.restart();
    let stored = app.messages(&ada, &chat);
    assert_eq!(stored[0]["content"], "count");
    let reply_now = &stored[1];
    assert!(reply.starts_with(reply_now["content"].as_str().unwrap()));
    assert_ne!(reply_now["finish_reason"], json!(null), "no reply is left open");
}

#[test]
fn the_first_account_of_an_exposed_server_needs_the_code_on_the_console() {
    let app = TestApp::with(Setting { exposed: true, bind: "0.0.0.0:0", ..Setting::default() });
    let form = |code: Option<&str>| {
        let mut form = json!({"email": "neighbour@example.org", "password": "long enough password"});
        if let Some(code) = code {
            form["setup_code"] = json!(code);
        }
        ask("POST", "/api/auth/signup").json(&form).send(app.addr)
    };
    assert_eq!(form(None).expect(403).code(), "setup_code_required");
    assert_eq!(form(Some("0000-0000")).expect(403).code(), "setup_code_invalid");
    let code = app.auth.setup_code().unwrap();
    assert_eq!(form(Some(&code)).expect(201).json()["user"]["role"], "admin");
}
