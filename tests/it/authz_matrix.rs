//! Who may do what: every route of the document, every id in its path or body, every kind of caller.
//!
//! Generated from `/api/openapi.json`. For somebody else's id the answer must equal, byte for byte, the answer for an
//! id that never existed; and every kind of caller who may not use a route at all must be told so whatever the id.

use std::collections::BTreeMap;

use Who::{Admin, Anybody, Caller, Me};
use mommygpt::web::WebOptions;
use serde_json::{Value, json};

use crate::app::{Person, Setting, TestApp, new_id};
use crate::client::{Answer, Ask, ask};

/// What a route needs: body, who may use it at all, and which of the victim's ids stand in its path and body.
struct Route {
    body: Option<Value>,
    who: Who,
    /// Path parameters by name, as fields of [`Victim`].
    path: &'static [(&'static str, &'static str)],
    /// Body fields that hold an id.
    fields: &'static [(&'static str, &'static str)],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    /// Everybody, signed in or not.
    Anybody,
    /// A session or an API key.
    Caller,
    /// A session.
    Me,
    /// An admin's session.
    Admin,
}

const CHAT: &[(&str, &str)] = &[("id", "chat")];
const MESSAGE: &[(&str, &str)] = &[("id", "chat"), ("message_id", "message")];

fn routes() -> BTreeMap<(&'static str, &'static str), Route> {
    let mut all = BTreeMap::new();
    let mut add = |method, path, who, body: Value, ids, fields| {
        let body = (!body.is_null()).then_some(body);
        all.insert((path, method), Route { body, who, path: ids, fields });
    };
    let none = Value::Null;
    let wrong = json!({"email": "nobody@example.org", "password": "wrong password"});
    add("post", "/api/auth/signup", Anybody, json!({"email": "x"}), &[], &[]);
    add("post", "/api/auth/signin", Anybody, wrong, &[], &[]);
    add(
        "post",
        "/api/auth/recover",
        Anybody,
        json!({"email": "x", "recovery_code": "x", "new_password": "x"}),
        &[],
        &[],
    );
    add("post", "/api/auth/signout", Me, json!({"no": 1}), &[], &[]);
    add("get", "/api/me", Caller, none.clone(), &[], &[]);
    add("patch", "/api/me", Me, json!({"full_name": "Name"}), &[], &[]);
    add("post", "/api/me/password", Me, json!({"current_password": "x", "new_password": "x"}), &[], &[]);
    add("get", "/api/me/sessions", Me, none.clone(), &[], &[]);
    add("delete", "/api/me/sessions/{id}", Me, none.clone(), &[("id", "session")], &[]);
    add("get", "/api/me/keys", Me, none.clone(), &[], &[]);
    add("post", "/api/me/keys", Me, json!({"name": ""}), &[], &[]);
    add("delete", "/api/me/keys/{id}", Me, none.clone(), &[("id", "key")], &[]);
    add("get", "/api/chats", Me, none.clone(), &[], &[]);
    add("post", "/api/chats", Me, json!({"title": "T"}), &[], &[("id", "chat")]);
    add("get", "/api/chats/{id}", Me, none.clone(), CHAT, &[]);
    add("patch", "/api/chats/{id}", Me, json!({"title": "stolen"}), CHAT, &[]);
    add("delete", "/api/chats/{id}", Me, none.clone(), CHAT, &[]);
    add("get", "/api/chats/{id}/messages", Me, none.clone(), CHAT, &[]);
    add(
        "post",
        "/api/chats/{id}/messages",
        Me,
        json!({"content": "x"}),
        CHAT,
        &[("id", "message"), ("parent_id", "message")],
    );
    add("post", "/api/chats/{id}/messages/{message_id}/regenerate", Me, json!({}), MESSAGE, &[]);
    add("put", "/api/chats/{id}/messages/{message_id}", Me, json!({"content": "x"}), MESSAGE, &[]);
    add("post", "/api/chats/{id}/stop", Me, json!({}), CHAT, &[]);
    add("get", "/api/chats/{id}/stream", Me, none.clone(), CHAT, &[]);
    add("get", "/api/search", Me, none.clone(), &[], &[]);
    add("get", "/api/events", Me, none.clone(), &[], &[]);
    add("get", "/api/safety", Me, none.clone(), &[], &[]);
    add("get", "/api/memories", Me, none.clone(), &[], &[]);
    add("post", "/api/memories", Me, json!({"content": ""}), &[], &[]);
    add("patch", "/api/memories/{id}", Me, json!({"content": "stolen"}), &[("id", "memory")], &[]);
    add("delete", "/api/memories/{id}", Me, none.clone(), &[("id", "memory")], &[]);
    add("get", "/api/export", Me, none.clone(), &[], &[]);
    add("post", "/api/import", Me, json!({"chats": 7}), &[], &[]);
    add("get", "/api/admin/users", Admin, none.clone(), &[], &[]);
    add("post", "/api/admin/users", Admin, json!({"email": "x", "password": "x"}), &[], &[]);
    add("patch", "/api/admin/users/{id}", Admin, json!({"disabled": true}), &[("id", "user")], &[]);
    add("delete", "/api/admin/users/{id}", Admin, none.clone(), &[("id", "user")], &[]);
    add("get", "/api/admin/invites", Admin, none.clone(), &[], &[]);
    add("post", "/api/admin/invites", Admin, json!({"role": "king"}), &[], &[]);
    add("delete", "/api/admin/invites/{id}", Admin, none.clone(), &[("id", "invite")], &[]);
    add("get", "/api/admin/status", Admin, none.clone(), &[], &[]);
    add("get", "/api/admin/models", Admin, none.clone(), &[], &[]);
    add("post", "/api/admin/model", Admin, json!({"name": "../x"}), &[], &[]);
    for (method, path, body) in routes_for_programs() {
        add(method, path, Caller, body, &[], &[]);
    }
    for path in ["/health", "/health/live", "/health/ready", "/metrics", "/api/openapi.json"] {
        add("get", path, Anybody, none.clone(), &[], &[]);
    }
    all
}

/// OpenAI's and Ollama's shapes, which an API key opens.
fn routes_for_programs() -> Vec<(&'static str, &'static str, Value)> {
    let turns = json!([{"role": "user", "content": "hello"}]);
    vec![
        ("get", "/v1/models", Value::Null),
        ("post", "/v1/chat/completions", json!({"messages": turns, "max_tokens": 3})),
        ("post", "/v1/completions", json!({"prompt": "hello", "max_tokens": 3})),
        ("post", "/v1/embeddings", json!({"input": "hello"})),
        ("post", "/api/chat", json!({"model": "x", "messages": turns})),
        ("post", "/api/generate", json!({"model": "x", "prompt": "hello"})),
        ("get", "/api/tags", Value::Null),
        ("post", "/api/show", json!({"model": "x"})),
        ("get", "/api/version", Value::Null),
    ]
}

/// Everything that has an id and belongs to the victim.
struct Victim {
    ids: BTreeMap<&'static str, String>,
    person: Person,
}

impl Victim {
    fn new(app: &TestApp, admin: &Person) -> Self {
        let person = app.sign_up("victim");
        let chat = app.new_chat(&person);
        let said = app.exchange(&person, &chat, "a secret");
        let id = |v: &Value| v["id"].as_str().unwrap().to_owned();
        let memory =
            app.call(&person, "POST", "/api/memories", &json!({"content": "Hides a diary."})).expect(201);
        let key = app.call(&person, "POST", "/api/me/keys", &json!({"name": "k"})).expect(201);
        let sessions = app.get(&person, "/api/me/sessions").expect(200).json();
        let invite = app.call(admin, "POST", "/api/admin/invites", &json!({})).expect(201);
        let ids = BTreeMap::from([
            ("user", person.id.clone()),
            ("chat", chat),
            ("message", id(&said["message"])),
            ("memory", id(&memory.json())),
            ("key", id(&key.json())),
            ("session", id(&sessions["sessions"][0])),
            ("invite", id(&invite.json())),
        ]);
        Self { ids, person }
    }
}

/// Everything of the answer but what differs from request to request anyway.
fn comparable(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let varies = ["x-request-id", "date"];
    let headers = answer.headers.iter().filter(|(name, _)| !varies.contains(&name.as_str())).cloned();
    (answer.status, headers.collect(), String::from_utf8_lossy(&answer.body).into_owned())
}

fn request(method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Ask {
    let mut request = ask(&method.to_uppercase(), path);
    if let Some(token) = token {
        request = request.bearer(token);
    }
    body.map_or(request.clone(), |body| request.json(body))
}

fn filled(template: &str, names: &[(&str, &str)], id: impl Fn(&str) -> String) -> String {
    names
        .iter()
        .fold(template.to_owned(), |path, (name, kind)| path.replace(&format!("{{{name}}}"), &id(kind)))
}

/// A house that answers every route.
fn house() -> TestApp {
    TestApp::with(Setting { web: WebOptions { ollama: true, ..WebOptions::default() }, ..Setting::default() })
}

#[test]
fn every_route_is_described_here_and_in_the_document() {
    let app = house();
    let document = ask("GET", "/api/openapi.json").send(app.addr).expect(200).json();
    let mut described = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            described.push((path.clone(), method.clone()));
            // A path parameter that this file does not know would go unchecked.
            let known = routes();
            let route = known.get(&(path.as_str(), method.as_str()));
            let route = route.unwrap_or_else(|| panic!("{method} {path} has no entry here"));
            let in_path =
                operation["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == "path");
            let mut names: Vec<&str> = in_path.map(|p| p["name"].as_str().unwrap()).collect();
            let mut here: Vec<&str> = route.path.iter().map(|(name, _)| *name).collect();
            names.sort_unstable();
            here.sort_unstable();
            assert_eq!(names, here, "{method} {path}");
            assert_eq!(
                id_fields(&document, operation),
                route.fields.iter().map(|f| f.0).collect::<Vec<_>>(),
                "{path}"
            );
        }
    }
    assert_eq!(described.len(), routes().len(), "an entry here has no route");
}

/// Names of the body's fields that hold an id, from the schema.
fn id_fields(document: &Value, operation: &Value) -> Vec<String> {
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
    let Some(name) = schema.as_str().and_then(|r| r.rsplit('/').next()) else { return Vec::new() };
    let properties = document["components"]["schemas"][name]["properties"].as_object();
    let properties = properties.unwrap_or_else(|| panic!("{name} has no schema"));
    properties.iter().filter(|(_, p)| p["format"] == "uuid").map(|(name, _)| name.clone()).collect()
}

#[test]
fn nobody_reaches_what_is_not_theirs_nor_learns_that_it_is_there() {
    let app = house();
    let admin = app.sign_up("admin");
    let victim = Victim::new(&app, &admin);
    let other = app.sign_up("other");
    let key = app.call(&other, "POST", "/api/me/keys", &json!({"name": "k"})).expect(201).json();
    let dead = app.sign_in(&other);
    ask("POST", "/api/auth/signout").bearer(&dead.token).send(app.addr).expect(204);
    let disabled = app.sign_up("disabled");
    app.call(&admin, "PATCH", &format!("/api/admin/users/{}", disabled.id), &json!({"disabled": true}))
        .expect(200);
    let before = app.get(&victim.person, "/api/export").expect(200).json();
    let callers: [(&str, Option<&str>); 6] = [
        ("nobody", None),
        ("other", Some(&other.token)),
        ("key", key["key"].as_str()),
        ("dead", Some(&dead.token)),
        ("disabled", Some(&disabled.token)),
        ("admin", Some(&admin.token)),
    ];
    for ((path, method), route) in routes() {
        for (caller, token) in callers {
            let may = matches!(
                (route.who, caller),
                (Who::Anybody, _) | (_, "admin" | "other") | (Who::Caller, "key")
            ) && (route.who, caller) != (Who::Admin, "other");
            let refused = if matches!(caller, "nobody" | "dead" | "disabled") { 401 } else { 403 };
            if !may || !route.path.is_empty() {
                // The admin manages accounts and invitations; chats stay closed to them as to anybody.
                let manages = caller == "admin" && route.who == Who::Admin;
                let real = filled(path, route.path, |kind| victim.ids[kind].clone());
                let made_up = filled(path, route.path, |_| new_id());
                let at = |path: &str| request(method, path, token, route.body.as_ref()).send(app.addr);
                let what = format!("{caller}: {method} {path}");
                let absent = at(&made_up);
                assert_eq!(absent.status, if may { 404 } else { refused }, "{what}: {}", absent.text());
                if !manages {
                    assert_eq!(comparable(&at(&real)), comparable(&absent), "{what}");
                    let malformed = at(&filled(path, route.path, |_| "7".to_owned()));
                    assert_eq!(comparable(&malformed), comparable(&absent), "{what}");
                }
            }
            if may && caller == "other" {
                ids_in_bodies(&app, &victim, &other, (path, method), &route);
            }
        }
    }
    let mut after = app.get(&victim.person, "/api/export").expect(200).json();
    after["exported_at"].clone_from(&before["exported_at"]);
    assert_eq!(after, before, "nothing of the victim's has changed");
}

/// A body that names somebody else's row gets what it would get for a row that is not there.
fn ids_in_bodies(app: &TestApp, victim: &Victim, me: &Person, (path, method): (&str, &str), route: &Route) {
    let token = Some(me.token.as_str());
    for (field, kind) in route.fields {
        // A chat for each, because an id that is accepted once is one's own from then on.
        let path = filled(path, route.path, |_| app.new_chat(me));
        let with = |id: &str| {
            let mut body = route.body.clone().unwrap();
            body[*field] = json!(id);
            request(method, &path, token, Some(&body)).send(app.addr)
        };
        let (theirs, absent) = (with(&victim.ids[kind]), with(&new_id()));
        assert_eq!(theirs.status, absent.status, "{method} {path} {field}: {}", theirs.text());
        if theirs.status >= 400 {
            assert_eq!(comparable(&theirs), comparable(&absent), "{method} {path} {field}");
        } else {
            // An id of one's own making that happens to be taken by somebody else is free for oneself.
            assert!(!theirs.text().contains(&victim.person.id) && !theirs.text().contains("secret"));
            if path == "/api/chats" {
                let mine = format!("{path}/{}", victim.ids[kind]);
                request("delete", &mine, token, None).send(app.addr).expect(204);
            }
        }
    }
}
