//! Functions that a program offers to the model: their definitions, which of them it must call, and turns that called
//! them.

use serde_json::{Value, json};

use super::error::ApiError;
use super::openai_request::ChatTurn;
use crate::chat::plain::{Given, ToolChat};
use crate::engine::grammar::Form;

/// Most functions of a request: each stands in the prompt with its whole description.
const MAX_TOOLS: usize = 128;
/// Longest name, as OpenAI has it.
const MAX_NAME_BYTES: usize = 64;

/// The functions offered, and what the model is to do with them.
pub(super) struct ToolChoice {
    tools: Vec<Value>,
    /// Those of which one must be called; empty leaves it to the model.
    must: Vec<(String, Value)>,
}

impl ToolChoice {
    pub(super) fn parse(tools: Option<Vec<Value>>, choice: Option<&Value>) -> Result<Self, ApiError> {
        let tools = tools.unwrap_or_default();
        if tools.len() > MAX_TOOLS {
            return Err(ApiError::invalid("tools", &format!("must be at most {MAX_TOOLS}")));
        }
        let named: Vec<(String, Value)> =
            tools.iter().enumerate().map(|(i, tool)| definition(i, tool)).collect::<Result<_, _>>()?;
        let refused = |why: &str| Err(ApiError::invalid("tool_choice", why));
        let must = match choice {
            None => Vec::new(),
            Some(Value::String(word)) => match word.as_str() {
                "auto" => Vec::new(),
                // Functions that may not be called need not be shown.
                "none" => return Ok(Self { tools: Vec::new(), must: Vec::new() }),
                "required" => named,
                _ => return refused("must be auto, none, required or a function"),
            },
            Some(Value::Object(one)) => {
                let name = one.get("function").and_then(|f| f.get("name")).and_then(Value::as_str);
                match name.and_then(|name| named.into_iter().find(|(n, _)| n == name)) {
                    Some(tool) => vec![tool],
                    None => return refused("names no function of tools"),
                }
            }
            Some(_) => return refused("must be auto, none, required or a function"),
        };
        if tools.is_empty() && choice.is_some() {
            return refused("has a meaning only with tools");
        }
        Ok(Self { tools, must })
    }

    /// Whether the model is told of functions.
    pub(super) fn is_shown(&self) -> bool {
        !self.tools.is_empty()
    }

    /// The form of an answer that must be a call.
    pub(super) fn forced(&self) -> Option<Form> {
        (!self.must.is_empty()).then(|| Form::ToolCall(self.must.clone()))
    }
}

/// Name and schema of the arguments.
fn definition(i: usize, tool: &Value) -> Result<(String, Value), ApiError> {
    let refused = |why: &str| Err(ApiError::invalid(&format!("tools[{i}]"), why));
    if tool.get("type").and_then(Value::as_str) != Some("function") {
        return refused("must have the type function");
    }
    let Some(function) = tool.get("function").and_then(Value::as_object) else {
        return refused("must have a function with a name");
    };
    let Some(name) = function.get("name").and_then(Value::as_str) else {
        return refused("must have a function with a name");
    };
    let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_word) {
        return refused("must have a name of 1 to 64 letters, digits, - _ and .");
    }
    match function.get("parameters") {
        None | Some(Value::Null) => Ok((name.to_owned(), json!({"type": "object"}))),
        Some(schema @ Value::Object(_)) => Ok((name.to_owned(), schema.clone())),
        Some(_) => refused("must have a JSON schema as parameters"),
    }
}

/// A chat in which functions are offered or were called.
pub(super) fn given(turns: &[ChatTurn], choice: ToolChoice) -> Result<Given, ApiError> {
    let messages =
        turns.iter().enumerate().map(|(i, turn)| message(i, turn)).collect::<Result<Vec<_>, _>>()?;
    Ok(Given::Tools(ToolChat { messages, tools: choice.tools }))
}

fn message(i: usize, turn: &ChatTurn) -> Result<Value, ApiError> {
    let refused = |field: &str, why: &str| Err(ApiError::invalid(&format!("messages[{i}].{field}"), why));
    let role = match turn.role.as_str() {
        "developer" => "system",
        role @ ("system" | "user" | "assistant" | "tool") => role,
        _ => return refused("role", "must be system, developer, user, assistant or tool"),
    };
    let is_model = role == "assistant";
    if !is_model && turn.tool_calls.is_some() {
        return refused("tool_calls", "belong to the role assistant");
    }
    if !is_model && turn.reasoning_content.is_some() {
        return refused("reasoning_content", "belongs to the role assistant");
    }
    if role != "tool" && turn.tool_call_id.is_some() {
        return refused("tool_call_id", "belongs to the role tool");
    }
    let text = turn.text();
    if text.is_none() && turn.tool_calls.is_none() {
        return refused("content", "must be a text or a list of texts");
    }
    let mut message = json!({"role": role, "content": text.unwrap_or_default()});
    if let Some(id) = &turn.tool_call_id {
        message["tool_call_id"] = json!(id);
    }
    if let Some(thought) = &turn.reasoning_content {
        message["reasoning_content"] = json!(thought);
    }
    if let Some(calls) = &turn.tool_calls {
        let calls = calls.iter().map(call).collect::<Option<Vec<_>>>();
        let Some(calls) = calls else {
            return refused("tool_calls", "must be functions with name and arguments, as they were answered");
        };
        message["tool_calls"] = json!(calls);
    }
    Ok(message)
}

/// A call as templates read it: the arguments as an object, which OpenAI's clients send as text.
fn call(call: &Value) -> Option<Value> {
    let function = call.get("function")?;
    let name = function.get("name")?.as_str()?;
    let arguments = match function.get("arguments")? {
        Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        other => other.clone(),
    };
    Some(
        json!({"type": "function", "id": call.get("id"), "function": {"name": name, "arguments": arguments}}),
    )
}
