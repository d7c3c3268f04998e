//! What every request passes and every answer carries: names, origins, types, sizes, headers.

use mommygpt::web::WebOptions;
use serde_json::{Value, json};

use crate::app::{Setting, TestApp, new_id};
use crate::client::{Answer, ask, raw};

fn status(app: &TestApp, request: &str) -> u16 {
    raw(app.addr, request.replace('\n', "\r\n").as_bytes()).unwrap().status
}

#[test]
fn only_our_names_are_answered_before_anything_else_is_looked_at() {
    let web = WebOptions { allowed_hosts: vec!["mommy.example".into()], ..WebOptions::default() };
    let app = TestApp::with(Setting { web, ..Setting::default() });
    let get = |host: &str| status(&app, &format!("GET /health/live HTTP/1.1\nhost: {host}\n\n"));
    let port = app.addr.port();
    for host in
        ["localhost", "LOCALHOST", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:4467", "mommy.example"]
    {
        assert_eq!(get(host), 200, "{host}");
    }
    assert_eq!(get(&format!("localhost:{port}")), 200);
    for host in [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost.",
        "192.0.2.1",
        "[2001:db8::1]",
    ] {
        assert_eq!(get(host), 421, "{host}");
    }
    for host in ["", "a@localhost", "localhost:port", "[::1", "local host", "::1"] {
        assert_eq!(get(host), 400, "{host}");
    }
    assert_eq!(status(&app, "GET / HTTP/1.1\n\n"), 400);
    assert_eq!(status(&app, "GET / HTTP/1.0\n\n"), 400);
    assert_eq!(status(&app, "GET / HTTP/1.1\nhost: localhost\nhost: localhost\n\n"), 400);
    assert_eq!(status(&app, "GET / HTTP/1.1\nhost: localhost\nhost: evil.example\n\n"), 400);
    assert_eq!(status(&app, "GET http://localhost/health/live HTTP/1.1\nhost: localhost\n\n"), 200);
    assert_eq!(status(&app, "GET http://evil.example/ HTTP/1.1\nhost: localhost\n\n"), 421);
    assert_eq!(status(&app, "GET http://mommy.example/ HTTP/1.1\nhost: localhost\n\n"), 400);
    // Before authentication, before the route table, and for writes.
    for path in ["/", "/api/me", "/nothing"] {
        assert_eq!(status(&app, &format!("GET {path} HTTP/1.1\nhost: evil.example\n\n")), 421);
    }
    assert_eq!(
        status(&app, "POST /api/auth/signin HTTP/1.1\nhost: evil.example\ncontent-length: 0\n\n"),
        421
    );
}

#[test]
fn every_interface_means_every_literal_address_and_still_no_foreign_name() {
    let app = TestApp::with(Setting { bind: "0.0.0.0:0", ..Setting::default() });
    assert_eq!(status(&app, "GET /health/live HTTP/1.1\nhost: 192.168.7.7:4467\n\n"), 200);
    assert_eq!(status(&app, "GET /health/live HTTP/1.1\nhost: evil.example\n\n"), 421);
}

/// The writing routes of the document, with ids filled in.
fn writes() -> Vec<(String, String)> {
    let app = TestApp::start();
    let document = ask("GET", "/api/openapi.json").send(app.addr).expect(200).json();
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().filter(|m| *m != "get") {
            let path = path.replace("{id}", &new_id()).replace("{message_id}", &new_id());
            all.push((method.to_uppercase(), path));
        }
    }
    assert!(all.len() >= 20, "{all:?}");
    all
}

#[test]
fn no_other_site_can_write_with_our_cookie() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let chat = app.new_chat(&ada);
    let before = app.get(&ada, "/api/export").expect(200).json();
    let cookie = format!("mommygpt_session={}", ada.token);
    let port = app.addr.port();
    let sites = [
        ("origin", "https://evil.example".to_owned()),
        ("origin", "null".to_owned()),
        ("origin", format!("http://sub.127.0.0.1:{port}")),
        ("origin", format!("http://127.0.0.1:{}", port.wrapping_add(1).max(1))),
        ("sec-fetch-site", "cross-site".to_owned()),
        ("sec-fetch-site", "same-site".to_owned()),
    ];
    let mut targets = writes();
    targets.push(("PATCH".into(), format!("/api/chats/{chat}")));
    targets.push(("DELETE".into(), format!("/api/chats/{chat}")));
    for (method, path) in &targets {
        for (name, value) in &sites {
            for kind in [
                "application/json",
                "text/plain",
                "application/x-www-form-urlencoded",
                "multipart/form-data",
                "",
            ] {
                let answer = ask(method, path)
                    .header("cookie", &cookie)
                    .header(name, value)
                    .body(kind, br#"{"title":"stolen"}"#.to_vec())
                    .send(app.addr);
                assert!(
                    matches!(answer.status, 403 | 415),
                    "{method} {path} {value} {kind}: {}",
                    answer.status
                );
                assert_eq!(answer.header("access-control-allow-origin"), None);
            }
        }
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""] {
        let answer = ask("PATCH", &format!("/api/chats/{chat}"))
            .header("cookie", &cookie)
            .body(kind, br#"{"title":"stolen"}"#.to_vec())
            .send(app.addr);
        assert_eq!((answer.status, answer.code().as_str()), (415, "not_json"), "{kind}");
    }
    let preflight = ask("OPTIONS", "/api/chats")
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "POST")
        .send(app.addr);
    assert!(preflight.headers.iter().all(|(name, _)| !name.starts_with("access-control-")));
    let mut after = app.get(&ada, "/api/export").expect(200).json();
    after["exported_at"].clone_from(&before["exported_at"]);
    assert_eq!(after, before);
    // The same from our own page.
    let own = ask("PATCH", &format!("/api/chats/{chat}"))
        .header("cookie", &cookie)
        .header("origin", &format!("http://{}", app.addr))
        .json(&json!({"title": "Mine"}))
        .send(app.addr);
    assert_eq!(own.expect(200).json()["title"], "Mine");
}

#[track_caller]
fn sealed(answer: &Answer, what: &str) {
    let csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
        base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";
    for (name, value) in [
        ("content-security-policy", csp),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("x-dns-prefetch-control", "off"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{what}");
    }
    assert!(answer.header("x-request-id").is_some_and(|id| !id.is_empty()), "{what}");
    assert!(answer.header("cache-control").is_some_and(|c| c == "no-store" || c == "no-cache"), "{what}");
    assert_eq!(answer.header("server"), None);
}

#[test]
fn every_answer_is_sealed() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let chat = app.new_chat(&ada);
    let document = ask("GET", "/api/openapi.json").send(app.addr).expect(200).json();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            let path = path.replace("{id}", &chat).replace("{message_id}", &new_id());
            if method == "GET" && path == "/api/events" {
                sealed(ask("GET", &path).bearer(&ada.token).stream(app.addr).head(), &path);
            } else {
                sealed(&ask(&method, &path).send(app.addr), &path);
                sealed(&ask(&method, &path).bearer(&ada.token).json(&json!({"x": 1})).send(app.addr), &path);
            }
        }
    }
    for (method, path) in [
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/app.js"),
        ("GET", "/nothing"),
        ("TRACE", "/"),
        ("PUT", "/api/me"),
    ] {
        sealed(&ask(method, path).send(app.addr), path);
    }
    sealed(&ask("GET", "/").header("host", "evil.example").send(app.addr), "421");
    let page = ask("GET", "/").send(app.addr).expect(200);
    let tag = page.header("etag").unwrap();
    let again = ask("GET", "/").header("if-none-match", tag).send(app.addr).expect(304);
    sealed(&again, "304");
    assert!(again.body.is_empty());
    let stream = app.send(&ada, &app.new_chat(&ada), &json!({"content": "hello"}));
    assert_eq!(stream.head().header("content-type"), Some("text/event-stream"));
    assert_eq!(stream.head().header("x-accel-buffering"), Some("no"));
    sealed(stream.head(), "stream");
    let ids: Vec<_> =
        (0..3).map(|_| ask("GET", "/").send(app.addr).header("x-request-id").unwrap().to_owned()).collect();
    assert!(ids[0] != ids[1] && ids[1] != ids[2]);
}

#[test]
fn bodies_are_bounded_plain_utf8_json_without_unknown_fields() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let chat = app.new_chat(&ada);
    let messages = format!("/api/chats/{chat}/messages");
    let post = |path: &str, body: Vec<u8>| {
        let answer = ask("POST", path).bearer(&ada.token).body("application/json", body).send(app.addr);
        (answer.status, answer.code())
    };
    let big = |n: usize| format!("{{\"content\":\"{}\"}}", "a".repeat(n)).into_bytes();
    assert_eq!(post(&messages, big((2 << 20) + 1)), (413, "too_large".into()));
    assert_eq!(
        post(&messages, big((1 << 20) + 1)),
        (422, "invalid_field".into()),
        "the text itself is too long"
    );
    assert_eq!(post("/api/auth/signin", big(5000)), (413, "too_large".into()));
    // Without a length, and with one that lies.
    let chunk = "a".repeat(3000);
    let chunked = format!(
        "POST /api/auth/signin HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\nbb8\r\n{chunk}\r\nbb8\r\n{chunk}\r\n0\r\n\r\n"
    );
    assert_eq!(raw(app.addr, chunked.as_bytes()).unwrap().status, 413);
    let lying = "POST /api/auth/signin HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: 999999999999\r\n\r\n{}";
    assert_eq!(raw(app.addr, lying.as_bytes()).unwrap().status, 413);
    let zipped =
        ask("POST", "/api/auth/signin").header("content-encoding", "gzip").json(&json!({})).send(app.addr);
    assert_eq!(zipped.status, 415);
    assert_eq!(post(&messages, b"{\"content\":\"\xff\xfe\"}".to_vec()).0, 400);
    assert_eq!(post(&messages, b"{\"content\":".to_vec()).0, 400);
    let deep = format!("{{\"content\":{}", "[".repeat(10_000));
    assert!(matches!(post(&messages, deep.into_bytes()).0, 400 | 422));
    assert_eq!(post(&messages, b"{\"content\":\"a\"} {}".to_vec()).0, 400);
    for body in [
        json!({"content": 7}),
        json!({"content": null}),
        json!({}),
        json!([]),
        json!("x"),
        json!({"content": "a", "n": 1}),
    ] {
        assert_eq!(post(&messages, body.to_string().into_bytes()), (422, "invalid_field".into()), "{body}");
    }
    assert_eq!(post(&messages, br#"{"content":"   "}"#.to_vec()).0, 422);
    assert!(app.messages(&ada, &chat).is_empty());
}

#[test]
fn queries_are_parsed_whole_or_refused() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let get = |path: &str| app.get(&ada, path).status;
    for limit in [
        "0",
        "-1",
        "201",
        "4294967296",
        "9007199254740993",
        "18446744073709551616",
        "1e3",
        "NaN",
        "null",
        "",
        "%00",
    ] {
        assert_eq!(get(&format!("/api/chats?limit={limit}")), 422, "{limit}");
    }
    assert_eq!(get("/api/chats?limit=200&include=messages"), 200);
    for query in ["limit=1&limit=2", "unknown=1", "include=everything", "cursor=zz", "cursor=", "archived=2"]
    {
        assert_eq!(get(&format!("/api/chats?{query}")), 422, "{query}");
    }
    let chat = app.new_chat(&ada);
    assert_eq!(get(&format!("/api/chats/{chat}/stream?from=-1")), 422);
    assert_eq!(get("/api/search"), 422);
    assert_eq!(get("/api/search?q="), 422);
    assert_eq!(get("/api/search?q=hello&limit=5"), 200);
    // Secrets do not belong into addresses, right or wrong.
    let by_query = ask("GET", &format!("/api/me?token={}", ada.token)).send(app.addr);
    assert_eq!((by_query.status, by_query.code().as_str()), (422, "secret_in_address"));
    assert_eq!(get(&format!("/api/me?api_key={}", ada.token)), 422);
    let event = ask("GET", "/api/events").bearer(&ada.token).header("last-event-id", "x").send(app.addr);
    assert_eq!(event.status, 422);
}

#[test]
fn what_is_not_there_says_so_in_json() {
    let app = TestApp::start();
    for (method, path, status, code) in [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/api/nothing", 404, "not_found"),
        ("GET", "/..%2f..%2fetc/passwd", 404, "not_found"),
        ("GET", "/crisis.toml", 404, "not_found"),
        ("PUT", "/api/me", 405, "method_not_allowed"),
        ("GET", "/api/me", 401, "unauthorized"),
        ("GET", "/api/admin/users", 401, "unauthorized"),
    ] {
        let answer = ask(method, path).send(app.addr);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {path}");
    }
}

#[test]
fn metrics_are_for_this_machine_or_an_admin() {
    let app = TestApp::start();
    let admin = app.sign_up("ada");
    let member = app.sign_up("ben");
    app.exchange(&admin, &app.new_chat(&admin), "hello");
    let text = ask("GET", "/metrics").send(app.addr).expect(200);
    for name in [
        "mommygpt_uptime_seconds ",
        "mommygpt_http_requests_total{method=\"POST\",route=\"/api/chats/{id}/messages\",status=\"200\"} 1",
        "mommygpt_tokens_predicted_total ",
        "mommygpt_time_to_first_token_seconds_bucket{le=\"+Inf\"} 1",
        "mommygpt_store_commits_total ",
        "mommygpt_sse_open 0",
    ] {
        assert!(text.text().contains(name), "{name}\n{}", text.text());
    }
    assert!(!text.text().contains(&admin.id));
    // Behind a proxy on this machine, everybody looks local: then only an admin.
    let proxied = |who: Option<&str>| {
        let request = ask("GET", "/metrics").header("x-forwarded-for", "203.0.113.9");
        who.map_or(request.clone(), |token| request.bearer(token)).send(app.addr).status
    };
    assert_eq!((proxied(None), proxied(Some(&member.token)), proxied(Some(&admin.token))), (401, 403, 200));
}

#[test]
fn the_cookie_is_locked_down_and_follows_the_proxys_word_on_tls() {
    let web = WebOptions { trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()], ..WebOptions::default() };
    let app = TestApp::with(Setting { web, ..Setting::default() });
    let ada = app.sign_up("ada");
    let sign_in = |request: crate::client::Ask| {
        let form: Value = json!({"email": ada.email, "password": crate::app::PASSWORD});
        request.json(&form).send(app.addr).expect(200).header("set-cookie").unwrap().to_owned()
    };
    let plain = sign_in(ask("POST", "/api/auth/signin"));
    assert!(plain.starts_with("mommygpt_session=mgs_"), "{plain}");
    assert!(
        plain.contains("; HttpOnly; SameSite=Strict")
            && plain.contains("; Path=/;")
            && !plain.contains("Secure")
    );
    let https = sign_in(ask("POST", "/api/auth/signin").header("x-forwarded-proto", "https"));
    assert!(https.starts_with("__Host-mommygpt_session=mgs_") && https.ends_with("; Secure"), "{https}");
    // A cookie planted before signing in is not taken over.
    let planted = ask("POST", "/api/auth/signin")
        .header("cookie", &format!("mommygpt_session={}", ada.token))
        .json(&json!({"email": ada.email, "password": crate::app::PASSWORD}))
        .send(app.addr)
        .expect(200);
    assert!(!planted.header("set-cookie").unwrap().contains(&ada.token));
}
