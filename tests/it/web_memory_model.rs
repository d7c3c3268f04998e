//! What an instruction model finds in a message is kept, with the message it came from, and only if the message says it.

use serde_json::{Value, json};

use crate::app::{Person, Setting, TestApp, until};

/// A template of no model that was trained here, so that its model gets instructions.
const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:";
/// Nothing that the rules would note.
const MESSAGE: &str = "ugh, our beagle Olaf chewed through the hose again";
/// The scripted model says this to everything: as an answer, and where it is asked for facts.
const ANSWER: &str = "{\"facts\":[\"beagle Olaf\",\"lives in Paris\"]}";

fn app(reply: &'static str) -> TestApp {
    TestApp::with(Setting { template: Some(TEMPLATE), reply, ..Setting::default() })
}

fn memories(app: &TestApp, who: &Person) -> Vec<Value> {
    app.get(who, "/api/memories").expect(200).json()["memories"].as_array().unwrap().clone()
}

#[test]
fn a_fact_is_noted_behind_the_answer_and_can_be_changed_and_deleted() {
    let app = app(ANSWER);
    let ada = app.sign_up("ada");
    let bob = app.sign_up("bob");
    let chat = app.new_chat(&ada);
    let said = app.exchange(&ada, &chat, MESSAGE);
    until("it is noted", || !memories(&app, &ada).is_empty());
    let noted = memories(&app, &ada);
    let contents: Vec<&Value> = noted.iter().map(|m| &m["content"]).collect();
    assert_eq!(contents, [&json!("beagle Olaf")], "nobody spoke of Paris");
    assert!(noted[0].to_string().contains(said["message"]["id"].as_str().unwrap()), "{noted:?}");
    assert!(memories(&app, &bob).is_empty());
    let path = format!("/api/memories/{}", noted[0]["id"].as_str().unwrap());
    app.call(&ada, "PATCH", &path, &json!({"content": "beagle Olav"})).expect(200);
    assert_eq!(memories(&app, &ada)[0]["content"], "beagle Olav");
    app.delete(&ada, &path).expect(204);
    assert!(memories(&app, &ada).is_empty());
}

#[test]
fn who_wants_nothing_remembered_is_not_read_and_what_makes_no_sense_is_dropped() {
    let app = app(ANSWER);
    let ada = app.sign_up("ada");
    let bob = app.sign_up("bob");
    let chat = app.new_chat(&ada);
    app.exchange(&ada, &chat, "please never remember anything about me");
    app.exchange(&ada, &chat, MESSAGE);
    app.script.says("I would rather sing than fill in forms");
    let of_bob = app.new_chat(&bob);
    app.exchange(&bob, &of_bob, MESSAGE);
    app.script.says(ANSWER);
    app.exchange(&bob, &of_bob, "well, Olaf is a good beagle all the same");
    until("a fact of bob's is noted", || !memories(&app, &bob).is_empty());
    // What waited before his message has had its turn by now.
    assert_eq!(memories(&app, &bob).len(), 1);
    let of_ada: Vec<Value> = memories(&app, &ada).iter().map(|m| m["content"].clone()).collect();
    assert_eq!(of_ada, [json!("wants nothing remembered")]);
}
