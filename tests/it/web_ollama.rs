//! Ollama's shapes, only where they were asked for.

use mommygpt::web::WebOptions;
use serde_json::{Value, json};

use crate::app::{Setting, TestApp};
use crate::client::ask;

fn start() -> TestApp {
    TestApp::with(Setting { web: WebOptions { ollama: true, ..WebOptions::default() }, ..Setting::default() })
}

#[test]
fn a_phone_app_finds_the_model_and_talks_to_it() {
    let app = start();
    let ada = app.sign_up("ada");
    assert_eq!(ask("GET", "/").send(app.addr).expect(200).text(), "Ollama is running");
    let page = ask("GET", "/").header("Accept", "text/html,*/*").send(app.addr).expect(200);
    assert!(page.text().contains("<html"), "browsers get the page");
    let tags = app.get(&ada, "/api/tags").expect(200).json();
    let model = tags["models"][0]["model"].as_str().unwrap().to_owned();
    let turns = json!([{"role": "user", "content": "hello"}]);
    let whole = json!({"model": model, "messages": turns, "stream": false});
    let answer = app.call(&ada, "POST", "/api/chat", &whole).expect(200).json();
    assert_eq!(answer["message"], json!({"role": "assistant", "content": "There, there. Tell me more."}));
    assert_eq!((&answer["done"], &answer["done_reason"]), (&json!(true), &json!("stop")));
    assert!(answer["eval_count"].as_u64().unwrap() > 3 && answer["eval_duration"].as_u64().unwrap() > 0);
    // Lines, each an object.
    let streamed = json!({"model": format!("{model}:latest"), "prompt": "hello", "system": "Be kind"});
    let answer = app.call(&ada, "POST", "/api/generate", &streamed).expect(200);
    let lines: Vec<Value> = answer.text().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let text: String = lines.iter().map(|l| l["response"].as_str().unwrap()).collect();
    assert_eq!(text, "There, there. Tell me more.");
    assert!(lines.len() > 3 && lines.iter().rev().skip(1).all(|l| l["done"] == false));
    assert_eq!(lines.last().unwrap()["done"], true);
    let loads = app.call(&ada, "POST", "/api/generate", &json!({"model": model})).expect(200).json();
    assert_eq!(loads["done_reason"], "load");
    let shown = app.call(&ada, "POST", "/api/show", &json!({"model": model})).expect(200).json();
    assert_eq!(shown["capabilities"], json!(["completion"]));
}

#[test]
fn fields_are_honoured_or_refused_by_name() {
    let app = start();
    let ada = app.sign_up("ada");
    let model = app.get(&ada, "/api/tags").expect(200).json()["models"][0]["model"].clone();
    let send = |field: &str, value: Value| {
        let mut body =
            json!({"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": false});
        body[field] = value;
        app.call(&ada, "POST", "/api/chat", &body)
    };
    let short = send("options", json!({"num_predict": 2, "seed": 1, "temperature": 0, "stop": ["never"]}));
    assert_eq!(short.expect(200).json()["done_reason"], "length");
    let made = send("format", json!("json")).expect(200).json();
    assert!(made["message"]["content"].as_str().unwrap().starts_with('{'), "{made}");
    for (field, value) in [
        ("template", json!("{{ .Prompt }}")),
        ("context", json!([1])),
        ("images", json!(["aGk="])),
        ("raw", json!(true)),
        ("options", json!({"num_gpu": 1})),
        ("options", json!({"num_ctx": 1 << 20})),
        ("options", json!({"temperature": -1})),
        ("format", json!("xml")),
        ("messages", json!([{"role": "robot", "content": "x"}])),
    ] {
        let refused = send(field, value.clone());
        assert_eq!(refused.status, 400, "{field} {value}: {}", refused.text());
        assert!(refused.json()["error"].is_string());
    }
    assert_eq!(send("model", json!("llama3")).status, 404);
}

#[test]
fn nothing_of_it_is_there_unless_asked_for() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    assert_eq!(app.get(&ada, "/api/tags").status, 404);
    assert!(ask("GET", "/").send(app.addr).expect(200).text().contains("<html"));
}
