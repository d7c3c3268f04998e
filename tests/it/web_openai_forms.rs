//! `/v1` beyond plain text: probabilities, biases, JSON by grammar, functions, thoughts.

use serde_json::{Value, json};

use crate::app::{Person, TestApp};
use crate::client::{Answer, ask};

fn complete(app: &TestApp, who: &Person, body: &Value) -> Answer {
    ask("POST", "/v1/chat/completions").bearer(&who.token).json(body).send(app.addr)
}

fn with(fields: &Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "hello"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

fn person() -> Value {
    let schema = json!({
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": false,
    });
    json!({"response_format": {"type": "json_schema", "json_schema": {"name": "person", "strict": true, "schema": schema}}})
}

#[test]
fn tokens_are_told_with_their_probabilities() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let answer =
        complete(&app, &ada, &with(&json!({"logprobs": true, "top_logprobs": 3}))).expect(200).json();
    let choice = &answer["choices"][0];
    let told = choice["logprobs"]["content"].as_array().unwrap();
    let text: Vec<u8> = told
        .iter()
        .flat_map(|t| t["bytes"].as_array().unwrap().iter().map(|b| b.as_u64().unwrap() as u8))
        .collect();
    assert_eq!(String::from_utf8(text).unwrap().trim_start(), choice["message"]["content"].as_str().unwrap());
    assert_eq!(told.len() as u64, answer["usage"]["completion_tokens"].as_u64().unwrap());
    for token in told {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        assert_eq!(top[0]["token"], token["token"], "the scripted model is sure of itself");
        assert!(token["logprob"].as_f64().unwrap() > -1e-3 && top[1]["logprob"].as_f64().unwrap() < -1.0);
    }
    let body = json!({"prompt": "Once", "logprobs": 2});
    let text =
        ask("POST", "/v1/completions").bearer(&ada.token).json(&body).send(app.addr).expect(200).json();
    let told = &text["choices"][0]["logprobs"];
    let n = told["tokens"].as_array().unwrap().len();
    assert!(n > 3 && told["text_offset"][1].as_u64().unwrap() > 0, "{told}");
    assert_eq!(told["top_logprobs"][n - 1].as_object().unwrap().len(), 2);
    // Streamed, each token once.
    let body = with(&json!({"logprobs": true, "stream": true}));
    let events = ask("POST", "/v1/chat/completions").bearer(&ada.token).json(&body).stream(app.addr).rest();
    let n_streamed: usize = events
        .iter()
        .filter_map(|e| e.data["choices"][0]["logprobs"]["content"].as_array())
        .map(Vec::len)
        .sum();
    assert_eq!(n_streamed, n);
}

#[test]
fn an_answer_goes_on_behind_the_models_end_where_that_is_asked_for() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let plain = complete(&app, &ada, &with(&json!({"temperature": 0}))).expect(200).json();
    let n_plain = plain["usage"]["completion_tokens"].as_u64().unwrap();
    assert_eq!(plain["choices"][0]["finish_reason"], "stop");
    let longer = n_plain + 10;
    for (fields, stops) in [
        (json!({"ignore_eos": true, "max_tokens": longer}), false),
        (json!({"ignore_eos": false, "max_tokens": longer}), true),
    ] {
        let mut body = with(&json!({"temperature": 0}));
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = complete(&app, &ada, &body).expect(200).json();
        let (n, why) = if stops { (n_plain, "stop") } else { (longer, "length") };
        assert_eq!(answer["usage"]["completion_tokens"], n, "{answer}");
        assert_eq!(answer["choices"][0]["finish_reason"], why, "{answer}");
    }
    // A text of a given form has an end of its own.
    let body = with(&json!({"ignore_eos": true, "response_format": {"type": "json_object"}}));
    let refused = complete(&app, &ada, &body).expect(400).json();
    assert!(refused["error"]["message"].as_str().unwrap().contains("ignore_eos"), "{refused}");
}

#[test]
fn a_bias_rules_a_token_out() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let body = with(&json!({"return_token_ids": true}));
    let plain = complete(&app, &ada, &body).expect(200).json();
    let first = plain["choices"][0]["token_ids"][0].as_u64().unwrap();
    assert!(
        plain["prompt_token_ids"].as_array().unwrap().len() > 1 && plain["sampling"]["top_k"].is_number()
    );
    let body =
        with(&json!({"return_token_ids": true, "logit_bias": {first.to_string(): -100}, "max_tokens": 1}));
    let biased = complete(&app, &ada, &body).expect(200).json();
    assert_ne!(biased["choices"][0]["token_ids"][0].as_u64().unwrap(), first);
}

#[test]
fn json_follows_the_grammar_whatever_the_model_wants() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    for seed in 0..4 {
        let mut body = with(&person());
        body["seed"] = json!(seed);
        body["max_tokens"] = json!(100);
        // Hot, so that the scripted model's certainty counts for little.
        body["temperature"] = json!(5);
        body["top_k"] = json!(0);
        body["top_p"] = json!(1);
        body["min_p"] = json!(0);
        let answer = complete(&app, &ada, &body).expect(200).json();
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        if answer["choices"][0]["finish_reason"] == "stop" {
            let made: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
            assert!(made["name"].is_string() && made["age"].as_u64().unwrap() <= 99, "{text}");
        }
    }
    let any =
        complete(&app, &ada, &with(&json!({"response_format": {"type": "json_object"}, "max_tokens": 8})));
    let any = any.expect(200).json();
    assert!(any["choices"][0]["message"]["content"].as_str().unwrap().starts_with('{'), "{any}");
    // What the model says anyway is let through.
    app.script.says("{\"name\": \"Ada\", \"age\": 36}");
    let answer = complete(&app, &ada, &with(&person())).expect(200).json();
    assert_eq!(answer["choices"][0]["message"]["content"], "{\"name\": \"Ada\", \"age\": 36}");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[test]
fn functions_are_refused_where_the_template_knows_none() {
    let app = TestApp::start();
    let ada = app.sign_up("ada");
    let tools = json!({"tools": [{"type": "function", "function": {"name": "dim", "parameters": {"type": "object"}}}]});
    let answer = complete(&app, &ada, &with(&tools));
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("no place for functions"), "{}", answer.text());
    let mut none = with(&tools);
    none["tool_choice"] = json!("none");
    complete(&app, &ada, &none).expect(200);
}

#[test]
fn cached_tokens_are_told_and_never_cross_people() {
    let app = TestApp::start();
    let (ada, bob) = (app.sign_up("ada"), app.sign_up("bob"));
    let said = "a canary nobody else can know of: xylophone 7731";
    let body = json!({"messages": [{"role": "user", "content": said}]});
    let cached = |who: &Person| {
        let usage = complete(&app, who, &body).expect(200).json()["usage"].clone();
        let n = |v: &Value| v.as_u64().unwrap();
        (n(&usage["prompt_tokens_details"]["cached_tokens"]), n(&usage["prompt_tokens"]))
    };
    assert_eq!(cached(&ada).0, 0);
    let (n_cached, n_prompt) = cached(&ada);
    assert_eq!(n_cached, n_prompt - 1, "all but the token whose logits are wanted");
    assert_eq!(cached(&bob).0, 0, "the same words of somebody else tell nothing");
    let metrics = ask("GET", "/metrics").send(app.addr);
    let total = format!("mommygpt_cached_tokens_total {n_cached}");
    assert!(metrics.text().lines().any(|l| l == total), "{total}");
}
