//! Writing to the parent over HTTP: streams, resuming, stopping, siblings, retries, devices, and what comes of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::app::{Person, TestApp, new_id, until};
use crate::client::{SseEvent, ask};

/// A reply long enough that a test can look around in the middle of it, and without circles.
fn long_reply() -> String {
    crate::script::count_to(200)
}

fn deltas(events: &[SseEvent]) -> String {
    events.iter().filter(|e| e.event == "delta").map(|e| e.data["text"].as_str().unwrap()).collect()
}

#[test]
fn a_message_is_stored_answered_and_found_again() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let chat = app.new_chat(&ada);
    let id = new_id();
    let events = app.send(&ada, &chat, &json!({"id": id, "content": "I had a bad day"})).rest();
    let kinds: Vec<&str> = events.iter().map(|e| e.event.as_str()).collect();
    assert_eq!((kinds[0], *kinds.last().unwrap()), ("message", "done"), "{kinds:?}");
    let order = ["message", "progress", "delta", "done"];
    let places: Vec<usize> = kinds.iter().map(|k| order.iter().position(|o| o == k).unwrap()).collect();
    assert!(places.is_sorted(), "{kinds:?}");
    let ids: Vec<u64> = events.iter().map(|e| e.id.parse().unwrap()).collect();
    assert!(ids.windows(2).all(|w| w[0] + 1 == w[1]), "{ids:?}");
    assert_eq!(events[0].data["id"], id);
    let done = &events.last().unwrap().data;
    assert_eq!(done["content"], "There, there. Tell me more.");
    assert_eq!(deltas(&events), "There, there. Tell me more.");
    assert_eq!((&done["finish_reason"], &done["parent_id"]), (&json!("stop"), &json!(id)));
    for name in
        ["cache_n", "prompt_n", "prompt_ms", "prompt_per_second", "predicted_n", "predicted_per_token_ms"]
    {
        assert!(done["timings"][name].is_number(), "{name} in {done}");
    }
    let app = app.restart();
    let stored = app.messages(&ada, &chat);
    assert_eq!(stored.len(), 2);
    assert_eq!((&stored[0]["content"], &stored[0]["is_user"]), (&json!("I had a bad day"), &json!(true)));
    assert_eq!(&stored[1], done);
    let list = app.get(&ada, "/api/chats?include=messages").expect(200).json();
    assert_eq!(list["chats"][0]["title"], "I had a bad day");
    assert_eq!(list["chats"][0]["messages"], json!(stored));
    let hits = app.get(&ada, "/api/search?q=BAD%20day").expect(200).json();
    assert!(hits["hits"].as_array().unwrap().iter().any(|hit| hit["message_id"] == id));
}

#[test]
fn whoever_asks_for_json_waits_for_the_whole() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let chat = app.new_chat(&ada);
    let whole = app.exchange(&ada, &chat, "hello");
    assert_eq!(whole["message"]["content"], "hello");
    assert_eq!(whole["reply"]["parent_id"], whole["message"]["id"]);
    assert_eq!(app.messages(&ada, &chat), [whole["message"].clone(), whole["reply"].clone()]);
    app.call(&ada, "POST", &format!("/api/chats/{}/messages", new_id()), &json!({"content": "x"}))
        .expect(404);
}

#[test]
fn a_reader_that_comes_back_reads_the_same_events() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let chat = app.new_chat(&ada);
    app.script.says(&long_reply());
    app.script.allow(20);
    let mut first = app.send(&ada, &chat, &json!({"content": "count"}));
    let mut seen = first.until("delta");
    let path = format!("/api/chats/{chat}/stream");
    let resume = |path: &str, last: Option<&str>| {
        let request = ask("GET", path).bearer(&ada.token);
        last.map_or(request.clone(), |id| request.header("last-event-id", id)).stream(app.addr)
    };
    let from_start = resume(&format!("{path}?from=0"), None);
    let after_last = resume(&path, Some(&seen.last().unwrap().id));
    let from_middle = resume(&format!("{path}?from=2"), None);
    app.script.release();
    seen.extend(first.rest());
    let n_first = seen.iter().position(|e| e.event == "delta").unwrap() + 1;
    assert_eq!(deltas(&seen).trim_end(), long_reply().trim_end());
    assert_eq!(from_start.rest(), seen);
    assert_eq!(from_middle.rest(), seen[2..]);
    assert_eq!(after_last.rest(), seen[n_first..]);
    // Nothing runs any more.
    let after = ask("GET", &path).bearer(&ada.token).send(app.addr);
    assert_eq!((after.status, after.body.len()), (204, 0));
    ask("GET", &format!("/api/chats/{}/stream", new_id())).bearer(&ada.token).send(app.addr).expect(404);
}

#[test]
fn stop_keeps_what_there_is() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let chat = app.new_chat(&ada);
    app.script.says(&long_reply());
    app.script.allow(30);
    let mut stream = app.send(&ada, &chat, &json!({"content": "count"}));
    stream.until("delta");
    until("thirty tokens", || app.script.n_generated() >= 30);
    let stopped = ask("POST", &format!("/api/chats/{chat}/stop")).bearer(&ada.token).send(app.addr);
    assert_eq!(stopped.status, 204);
    // The partial reply is stored when Stop is answered.
    let reply = app.messages(&ada, &chat).pop().unwrap();
    assert_eq!(reply["finish_reason"], "cancelled");
    let text = reply["content"].as_str().unwrap();
    assert!(!text.is_empty() && long_reply().starts_with(text), "{text}");
    assert_eq!(stream.rest().last().unwrap().data, reply);
    // Nothing to stop is fine; the chat goes on.
    ask("POST", &format!("/api/chats/{chat}/stop"))
        .bearer(&ada.token)
        .json(&json!({}))
        .send(app.addr)
        .expect(204);
    app.script.release();
    app.script.says("Go on.");
    assert_eq!(app.exchange(&ada, &chat, "more")["reply"]["finish_reason"], "stop");
}

#[test]
fn a_closed_reader_changes_nothing() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let chat = app.new_chat(&ada);
    app.script.says(&long_reply());
    app.script.allow(5);
    let mut stream = app.send(&ada, &chat, &json!({"content": "count"}));
    stream.until("delta");
    drop(stream);
    app.script.release();
    until("the reply is stored whole", || {
        let reply = app.messages(&ada, &chat).pop().unwrap();
        let whole = reply["content"].as_str().unwrap().trim_end() == long_reply().trim_end();
        reply["finish_reason"] == "stop" && whole
    });
}

#[test]
fn a_retry_with_the_same_id_is_the_same_message() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let (chat_id, id) = (new_id(), new_id());
    let chats = |body: &Value| app.call(&ada, "POST", "/api/chats", body);
    let made = chats(&json!({"id": chat_id, "title": "A"})).expect(201).json();
    assert_eq!(chats(&json!({"id": chat_id, "title": "A"})).expect(200).json(), made);
    let path = format!("/api/chats/{chat_id}/messages");
    let send = |content: &str| app.call(&ada, "POST", &path, &json!({"id": id, "content": content}));
    let first = send("hello").expect(200).json();
    assert_eq!(send("hello").expect(200).json(), first);
    assert_eq!(send("something else").expect(409).code(), "id_taken");
    assert_eq!(app.messages(&ada, &chat_id).len(), 2);
    // While the answer is being written, a retry joins it.
    let running = new_id();
    app.script.says(&long_reply());
    app.script.allow(3);
    let mut one = app.send(&ada, &chat_id, &json!({"id": running, "content": "count"}));
    let mut seen = one.until("delta");
    let other = app.send(&ada, &chat_id, &json!({"id": running, "content": "count"}));
    let busy = app.call(&ada, "POST", &path, &json!({"content": "another"}));
    assert_eq!((busy.status, busy.code().as_str()), (409, "generation_running"));
    app.script.release();
    seen.extend(one.rest());
    assert_eq!(other.rest(), seen);
    assert_eq!(app.messages(&ada, &chat_id).len(), 4);
}

#[test]
fn other_answers_and_other_words_are_siblings() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let chat = app.new_chat(&ada);
    let first = app.exchange(&ada, &chat, "I am sad");
    let (question, reply) =
        (first["message"]["id"].as_str().unwrap(), first["reply"]["id"].as_str().unwrap());
    app.script.says("Another answer.");
    let again = format!("/api/chats/{chat}/messages/{reply}/regenerate");
    let again = ask("POST", &again).bearer(&ada.token).send(app.addr).expect(200).json();
    assert_eq!(again["message"], first["message"]);
    assert_eq!(again["reply"]["parent_id"], question);
    assert_eq!(again["reply"]["content"], "Another answer.");
    assert_ne!(again["reply"]["id"], reply);
    let edit = format!("/api/chats/{chat}/messages/{question}");
    let edited = app.call(&ada, "PUT", &edit, &json!({"content": "I am happy"})).expect(200).json();
    assert_eq!(edited["message"]["parent_id"], first["message"]["parent_id"]);
    assert_ne!(edited["message"]["id"], question);
    assert_eq!(edited["reply"]["parent_id"], edited["message"]["id"]);
    let of_reply = format!("/api/chats/{chat}/messages/{reply}");
    app.call(&ada, "PUT", &of_reply, &json!({"content": "words in its mouth"})).expect(422);
    assert_eq!(app.messages(&ada, &chat).len(), 5);
}

#[test]
fn nobody_writes_what_only_the_server_may() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let chat = app.new_chat(&ada);
    let first = app.exchange(&ada, &chat, "hello");
    let question = first["message"]["id"].as_str().unwrap();
    let before = app.get(&ada, "/api/export").expect(200).json();
    // Every field that is stored anywhere, added to every body that is read.
    let stored = [
        "user_id",
        "chat_id",
        "is_user",
        "role",
        "created_at",
        "updated_at",
        "finish_reason",
        "timings",
        "safety",
        "source",
        "truncated",
        "disabled",
        "is_admin",
        "n_ctx",
        "system",
        "password",
        "email",
        "messages",
        "data_key",
        "session_token",
        "recovery_code",
        "seq",
        "verifier",
        "__proto__",
    ];
    let bodies = [
        ("POST", "/api/chats".to_owned(), json!({"title": "x"})),
        ("PATCH", format!("/api/chats/{chat}"), json!({"title": "x"})),
        ("POST", format!("/api/chats/{chat}/messages"), json!({"content": "x"})),
        ("PUT", format!("/api/chats/{chat}/messages/{question}"), json!({"content": "x"})),
        ("PATCH", "/api/me".to_owned(), json!({"full_name": "x"})),
        ("POST", "/api/memories".to_owned(), json!({"content": "x"})),
        ("POST", "/api/me/keys".to_owned(), json!({"name": "x"})),
        ("POST", "/api/auth/signout".to_owned(), json!({})),
        ("POST", format!("/api/chats/{chat}/stop"), json!({})),
    ];
    for (method, path, body) in &bodies {
        for field in stored {
            let mut body = body.clone();
            body[field] = json!("admin");
            let answer = app.call(&ada, method, path, &body);
            assert_eq!(answer.status, 422, "{method} {path} {field}: {}", answer.text());
        }
    }
    let signup = json!({"email": "eve@example.org", "password": "long enough password", "role": "admin"});
    ask("POST", "/api/auth/signup").json(&signup).send(app.addr).expect(422);
    let mut after = app.get(&ada, "/api/export").expect(200).json();
    after["exported_at"].clone_from(&before["exported_at"]);
    assert_eq!(after, before);
}

#[test]
fn every_device_hears_everything_and_strangers_nothing() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let phone = app.sign_in(&ada);
    let ben = app.sign_up("ben");
    let listen = |who: &Person, last: Option<&str>| {
        let request = ask("GET", "/api/events").bearer(&who.token);
        last.map_or(request.clone(), |id| request.header("last-event-id", id)).stream(app.addr)
    };
    let mut on_phone = listen(&phone, None);
    let mut stranger = listen(&ben, None);
    let chat = app.new_chat(&ada);
    let whole = app.exchange(&ada, &chat, "hello");
    let heard = on_phone.until("done");
    assert_eq!(heard[0].event, "chat");
    assert_eq!(heard.last().unwrap().data, whole["reply"]);
    assert_eq!(deltas(&heard), whole["reply"]["content"].as_str().unwrap());
    assert!(heard.iter().any(|e| e.event == "message" && e.data == whole["message"]));
    // A device that was away asks for what it missed.
    let missed = listen(&phone, Some(&heard[0].id)).until("done");
    assert_eq!(missed, heard[1..]);
    app.call(&ada, "PATCH", &format!("/api/chats/{chat}"), &json!({"pinned": true})).expect(200);
    on_phone.until("chat");
    app.call(&ada, "POST", "/api/memories", &json!({"content": "Has a cat."})).expect(201);
    on_phone.until("memory");
    app.delete(&ada, &format!("/api/chats/{chat}")).expect(204);
    let gone = on_phone.until("chat_deleted");
    assert_eq!(gone.last().unwrap().data["id"], chat);
    app.new_chat(&ben);
    let first = stranger.next().unwrap();
    assert_eq!((first.event.as_str(), &first.data["user_id"]), ("chat", &json!(ben.id)));
}

#[test]
fn open_streams_end_with_their_session() {
    let app = TestApp::start();
    let admin = app.sign_up("ada");
    let ben = app.sign_up("ben");
    let events = |who: &Person| ask("GET", "/api/events").bearer(&who.token).stream(app.addr);
    let dead = |who: &Person| app.get(who, "/api/me").status == 401;
    // Signed out on this device; the other one stays.
    let (one, two) = (app.sign_in(&ben), app.sign_in(&ben));
    let (stream, other) = (events(&one), events(&two));
    ask("POST", "/api/auth/signout").bearer(&one.token).send(app.addr).expect(204);
    assert!(stream.rest().is_empty() && dead(&one) && !dead(&two));
    // Signed out from afar.
    let sessions = app.get(&ben, "/api/me/sessions").expect(200).json();
    let list = sessions["sessions"].as_array().unwrap();
    assert_eq!(list.len(), 2);
    let far = list.iter().find(|s| s["current"] == false).unwrap()["id"].as_str().unwrap();
    app.delete(&ben, &format!("/api/me/sessions/{far}")).expect(204);
    assert!(other.rest().is_empty() && dead(&two) && !dead(&ben));
    // A new password ends all others, in the middle of an answer too.
    let three = app.sign_in(&ben);
    let chat = app.new_chat(&three);
    app.script.says(&long_reply());
    app.script.allow(3);
    let mut answer = app.send(&three, &chat, &json!({"content": "count"}));
    answer.until("delta");
    let form = json!({"current_password": crate::app::PASSWORD, "new_password": "another long password"});
    app.call(&ben, "POST", "/api/me/password", &form).expect(204);
    answer.rest();
    assert!(dead(&three) && !dead(&ben));
    app.script.release();
    // Shut out by the admin.
    let stream = events(&ben);
    app.call(&admin, "PATCH", &format!("/api/admin/users/{}", ben.id), &json!({"disabled": true}))
        .expect(200);
    stream.rest();
    assert!(dead(&ben));
    app.call(&admin, "PATCH", &format!("/api/admin/users/{}", ben.id), &json!({"disabled": false}))
        .expect(200);
    // Deleted.
    let form = json!({"email": ben.email, "password": "another long password"});
    let back = ask("POST", "/api/auth/signin").json(&form).send(app.addr).expect(200).json();
    let back = Person { token: back["session_token"].as_str().unwrap().to_owned(), ..ben.clone() };
    let stream = events(&back);
    app.delete(&admin, &format!("/api/admin/users/{}", ben.id)).expect(204);
    stream.rest();
    assert!(dead(&back));
}

#[test]
fn a_child_has_the_parent_that_was_chosen() {
    let app = TestApp::start();
    let admin = app.sign_up("ada");
    let kid = app.sign_up("kid");
    let account = format!("/api/admin/users/{}", kid.id);
    let changed =
        app.call(&admin, "PATCH", &account, &json!({"role": "child", "persona": "dad"})).expect(200).json();
    assert_eq!((&changed["role"], &changed["persona"]), (&json!("child"), &json!("dad")));
    let kid = app.sign_in(&kid);
    for (method, path, body) in [
        ("PATCH", "/api/me", json!({"persona": "mom"})),
        ("PATCH", "/api/me", json!({"full_name": "Kid", "persona": "mom"})),
        ("POST", "/api/me/keys", json!({"name": "around the parent"})),
    ] {
        assert_eq!(app.call(&kid, method, path, &body).expect(403).code(), "forbidden", "{path}");
    }
    let me = app.call(&kid, "PATCH", "/api/me", &json!({"full_name": "Kid"})).expect(200).json();
    assert_eq!((&me["full_name"], &me["persona"]), (&json!("Kid"), &json!("dad")));
    let chat = app.new_chat(&kid);
    assert_eq!(app.exchange(&kid, &chat, "hello")["reply"]["finish_reason"], "stop");
}

#[test]
fn an_export_comes_back_whole_for_another_person() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let ben = app.sign_up("ben");
    for content in ["one", "zwei ä \u{1f44b}", "three \"quoted\" \\ \u{0} end"] {
        let chat = app.new_chat(&ada);
        app.exchange(&ada, &chat, content);
        app.exchange(&ada, &chat, "and more");
    }
    app.call(&ada, "POST", "/api/memories", &json!({"content": "Has a cat."})).expect(201);
    let answer = app.get(&ada, "/api/export").expect(200);
    assert!(answer.header("content-disposition").unwrap().starts_with("attachment"));
    let export = answer.json();
    assert_eq!(export["user"]["email"], ada.email);
    assert_eq!(export["chats"].as_array().unwrap().len(), 3);
    let report = app.call(&ben, "POST", "/api/import", &export).expect(200).json();
    assert_eq!(report, json!({"n_chats": 3, "n_messages": 12, "n_memories": 1, "n_skipped": 0}));
    let words = |export: &Value| -> BTreeSet<String> {
        let chats = export["chats"].as_array().unwrap();
        let messages = chats.iter().flat_map(|c| c["messages"].as_array().unwrap());
        messages.map(|m| format!("{} {} {}", m["is_user"], m["content"], m["created_at"])).collect()
    };
    let back = app.get(&ben, "/api/export").expect(200).json();
    assert_eq!(words(&back), words(&export));
    // The same again changes nothing for who has it.
    let again = app.call(&ada, "POST", "/api/import", &export).expect(200).json();
    assert_eq!((&again["n_chats"], &again["n_skipped"]), (&json!(0), &json!(3)));
    let refused = app.call(&ben, "POST", "/api/import", &json!({"chats": [{"messages": 7}]})).expect(422);
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("chats[0].messages"));
}

#[test]
fn danger_shows_the_card() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let card = app.get(&ada, "/api/safety?kind=suicide").expect(200).json();
    assert!(!card["lines"].as_array().unwrap().is_empty() && card["title"].is_string());
    app.get(&ada, "/api/safety?kind=boredom").expect(404);
}
