//! `/v1`: the shapes that programs for OpenAI's API read; every field honoured or refused; nothing stored.

use serde_json::{Value, json};

use crate::app::{Person, TestApp, until};
use crate::client::{Answer, ask};

fn complete(app: &TestApp, token: &str, body: &Value) -> Answer {
    ask("POST", "/v1/chat/completions").bearer(token).json(body).send(app.addr)
}

fn key_of(app: &TestApp, who: &Person) -> String {
    let made = app.call(who, "POST", "/api/me/keys", &json!({"name": "editor"})).expect(201).json();
    made["key"].as_str().unwrap().to_owned()
}

fn hello() -> Value {
    json!({"messages": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "hello"}]})
}

#[test]
fn a_key_generates_text_and_opens_nothing_else() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let key = key_of(&app, &ada);
    let models = ask("GET", "/v1/models").bearer(&key).send(app.addr).expect(200).json();
    let model = models["data"][0]["id"].clone();
    let mut body = hello();
    body["model"] = model.clone();
    let answer = complete(&app, &key, &body).expect(200).json();
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &model));
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"], json!({"role": "assistant", "content": "There, there. Tell me more."}));
    assert_eq!(choice["finish_reason"], "stop");
    let usage = &answer["usage"];
    let n = |name: &str| usage[name].as_u64().unwrap();
    assert_eq!(n("total_tokens"), n("prompt_tokens") + n("completion_tokens"));
    assert!(n("completion_tokens") > 3 && answer["timings"]["predicted_per_second"].is_number());
    assert_eq!(ask("GET", "/api/me").bearer(&key).send(app.addr).expect(200).json()["id"], ada.id);
    for path in
        ["/api/chats", "/api/me/keys", "/api/me/sessions", "/api/export", "/api/memories", "/api/admin/users"]
    {
        assert_eq!(ask("GET", path).bearer(&key).send(app.addr).status, 403, "{path}");
    }
    assert!(app.get(&ada, "/api/export").expect(200).json()["chats"].as_array().unwrap().is_empty());
    // Dead when deleted.
    let keys = || app.get(&ada, "/api/me/keys").expect(200).json();
    // Noted in the background, because reading must not need a write.
    until("its use is noted", || keys()["keys"][0]["last_used_at"].is_string());
    let keys = keys();
    assert!(!keys.to_string().contains(&key));
    app.delete(&ada, &format!("/api/me/keys/{}", keys["keys"][0]["id"].as_str().unwrap())).expect(204);
    let dead = complete(&app, &key, &body);
    assert_eq!((dead.status, &dead.json()["error"]["type"]), (401, &json!("authentication_error")));
}

#[test]
fn a_stream_has_openais_chunks() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let mut body = hello();
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let stream = ask("POST", "/v1/chat/completions").bearer(&ada.token).json(&body).stream(app.addr);
    assert_eq!(stream.head().header("content-type"), Some("text/event-stream"));
    let events = stream.rest();
    assert_eq!(events.last().unwrap().data, json!("[DONE]"));
    let chunks: Vec<&Value> = events[..events.len() - 1].iter().map(|e| &e.data).collect();
    assert!(chunks.iter().all(|c| c["object"] == "chat.completion.chunk" && c["id"] == chunks[0]["id"]));
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "There, there. Tell me more.");
    let (last, usage) = (chunks[chunks.len() - 2], chunks[chunks.len() - 1]);
    assert_eq!(
        (&last["choices"][0]["finish_reason"], &last["choices"][0]["delta"]),
        (&json!("stop"), &json!({}))
    );
    assert_eq!(usage["choices"], json!([]));
    assert!(usage["usage"]["total_tokens"].is_number());
    let text =
        ask("POST", "/v1/completions").bearer(&ada.token).json(&json!({"prompt": "Once"})).send(app.addr);
    assert_eq!(text.expect(200).json()["choices"][0]["text"], "There, there. Tell me more.");
}

#[test]
fn fields_are_honoured() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let with = |field: &str, value: Value| {
        let mut body = hello();
        body[field] = value;
        complete(&app, &ada.token, &body).expect(200).json()
    };
    let short = with("max_tokens", json!(2));
    assert_eq!(
        (&short["choices"][0]["finish_reason"], &short["usage"]["completion_tokens"]),
        (&json!("length"), &json!(2))
    );
    let stopped = with("stop", json!(["Tell"]));
    assert_eq!(stopped["choices"][0]["message"]["content"].as_str().unwrap().trim_end(), "There, there.");
    for (field, value) in [
        ("temperature", json!(0)),
        ("temperature", json!(1.5)),
        ("top_p", json!(0.5)),
        ("top_k", json!(1)),
        ("min_p", json!(0.1)),
        ("seed", json!(42)),
        ("presence_penalty", json!(0.5)),
        ("frequency_penalty", json!(-0.5)),
        ("repeat_penalty", json!(1.2)),
        ("stop", json!("never said")),
        ("n", json!(1)),
        ("stream", json!(false)),
        ("logprobs", json!(false)),
        ("tools", json!([])),
        ("response_format", json!({"type": "text"})),
        ("messages", json!([{"role": "user", "content": [{"type": "text", "text": "hello"}]}])),
    ] {
        with(field, value);
    }
}

#[test]
fn what_is_not_honoured_is_refused_in_openais_form_and_nobody_is_disturbed() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let odd = [
        "-1",
        "0",
        "1.5",
        "2147483648",
        "9007199254740993",
        "9223372036854775808",
        "1e308",
        "\"1\"",
        "[]",
        "{}",
    ];
    let numbers = [
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "n",
        "presence_penalty",
        "repeat_penalty",
    ];
    for field in numbers {
        for value in odd {
            let mut body = hello();
            body["max_completion_tokens"] = json!(1);
            if field == "max_tokens" {
                body = hello();
            }
            let text = body.to_string().replacen('{', &format!("{{\"{field}\":{value},"), 1);
            let answer = ask("POST", "/v1/chat/completions")
                .bearer(&ada.token)
                .body("application/json", text.into_bytes())
                .send(app.addr);
            assert!(
                matches!(answer.status, 200 | 400),
                "{field} {value}: {} {}",
                answer.status,
                answer.text()
            );
        }
    }
    let mut other = hello();
    other["model"] = json!("gpt-4");
    let answer = complete(&app, &ada.token, &other).expect(404).json();
    assert_eq!(answer["error"]["code"], "model_not_found");
    let long = json!({"messages": [{"role": "user", "content": "word ".repeat(5000)}]});
    assert_eq!(complete(&app, &ada.token, &long).status, 400);
    complete(&app, &ada.token, &hello()).expect(200);
}

#[test]
fn fields_beyond_us_are_refused_by_name() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let refused = |field: &str, value: Value| {
        let mut body = hello();
        body[field] = value;
        let answer = complete(&app, &ada.token, &body);
        assert_eq!(answer.status, 400, "{field}: {}", answer.text());
        let error = answer.json()["error"].clone();
        assert!(error["message"].as_str().unwrap().contains(field), "{error}");
        assert_eq!(error["type"], "invalid_request_error");
    };
    refused("n", json!(2));
    refused("temperature", json!(-1));
    refused("top_p", json!(2));
    refused("top_k", json!(1_u64 << 31));
    for n in [0, 1_u64 << 31, (1 << 53) + 1, 1 << 63] {
        refused("max_tokens", json!(n));
        refused("max_completion_tokens", json!(n));
    }
    refused("logprobs", json!(5));
    refused("top_logprobs", json!(2));
    refused("logit_bias", json!({"1": 500}));
    refused("logit_bias", json!({"x": 5}));
    refused("logit_bias", json!({"99999999": 5}));
    refused("logit_bias", Value::Object((0..301).map(|i| (i.to_string(), json!(1))).collect()));
    refused("tools", json!([{"type": "function"}]));
    refused("tool_choice", json!("required"));
    refused("parallel_tool_calls", json!(false));
    refused("best_of", json!(2));
    refused("echo", json!(true));
    refused("store", json!(true));
    refused("response_format", json!({"type": "regex"}));
    refused("response_format", json!({"type": "json_schema"}));
    let schema =
        |schema: Value| json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    refused("response_format", schema(json!(true)));
    refused("response_format", schema(json!({"type": "color"})));
    refused(
        "response_format",
        schema(json!({"type": "object", "properties": {"a": false}, "required": ["a"]})),
    );
    refused("response_format", schema(json!({"$ref": "https://example.org/schema.json"})));
    refused("response_format", schema(json!({"type": "string", "pattern": "(a"})));
    refused("response_format", schema(json!({"enum": ["x".repeat(70_000)]})));
    refused("chat_template", json!("{{ evil }}"));
    refused("chat_template_kwargs", json!({}));
    refused("grammar", json!("root ::= x"));
    refused("prompt", json!("x"));
    refused("messages", json!([]));
    refused("messages", json!([{"role": "tool", "content": "x"}]));
    refused("messages", json!([{"role": "user", "content": "x", "name": "y"}]));
    refused("stream_options", json!({"include_usage": true}));
    refused("stop", json!(vec!["x"; 17]));
    refused("stop", json!("x".repeat(65)));
}

#[test]
fn vectors_come_from_models_that_have_them() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let embed = |body: &Value| app.call(&ada, "POST", "/v1/embeddings", body);
    let made = embed(&json!({"input": ["good night", "sleep well", "good night"]})).expect(200).json();
    let vector = |i: usize| made["data"][i]["embedding"].clone();
    assert_eq!((vector(0), made["data"][1]["index"].clone()), (vector(2), json!(1)));
    assert_ne!(vector(0), vector(1));
    let length: f64 = vector(0).as_array().unwrap().iter().map(|x| x.as_f64().unwrap().powi(2)).sum();
    assert!((length - 1.0).abs() < 1e-5, "{length}");
    assert!(made["usage"]["prompt_tokens"].as_u64().unwrap() >= 6);
    let packed = embed(&json!({"input": "good night", "encoding_format": "base64"})).expect(200).json();
    assert!(packed["data"][0]["embedding"].is_string());
    for (field, value) in [
        ("input", json!([])),
        ("input", json!("")),
        ("input", json!([1, 2])),
        ("input", json!("word ".repeat(5000))),
        ("dimensions", json!(7)),
        ("encoding_format", json!("hex")),
    ] {
        let mut body = json!({"input": "x"});
        body[field] = value;
        let refused = embed(&body);
        assert_eq!(refused.status, 400, "{field}: {}", refused.text());
        assert!(refused.text().contains(field), "{}", refused.text());
    }
}

#[test]
fn a_client_that_hangs_up_frees_the_model() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let reply = crate::script::count_to(400);
    app.script.says(&reply);
    app.script.allow(3);
    let mut body = hello();
    body["stream"] = json!(true);
    let mut stream = ask("POST", "/v1/chat/completions").bearer(&ada.token).json(&body).stream(app.addr);
    stream.next().unwrap();
    stream.next().unwrap();
    drop(stream);
    let running = || {
        let text = ask("GET", "/metrics").send(app.addr);
        text.text().lines().any(|l| l == "mommygpt_requests_processing 0")
    };
    until("nothing runs", running);
    let cancelled = ask("GET", "/metrics").send(app.addr);
    assert!(cancelled.text().contains("mommygpt_generations_total{finish_reason=\"cancelled\"} 1"));
}

#[test]
fn a_child_does_not_get_around_the_parent() {
    let app = TestApp::start();
    let admin = app.sign_up("ada");
    let kid = app.sign_up("kid");
    app.call(&admin, "PATCH", &format!("/api/admin/users/{}", kid.id), &json!({"role": "child"})).expect(200);
    let kid = app.sign_in(&kid);
    assert_eq!(complete(&app, &kid.token, &hello()).status, 403);
    assert_eq!(ask("GET", "/v1/models").bearer(&kid.token).send(app.addr).status, 403);
}
