//! Chats in which a model may call functions: messages and functions go to the template as JSON.

use minijinja::Value;
use serde_json::Value as Json;

use super::guard::Guard;
use super::{ChatTemplate, Rendered, Speaker, TextError, Turn, civil, json, template, variables};

/// What a template must know to tell a model about functions, and the model to call them.
const MARKS: [&str; 2] = ["tools", "<tool_call>"];

/// A chat with functions, in the form that templates read.
#[derive(Clone, PartialEq, Debug)]
pub struct ToolChat {
    /// Objects with `role`, `content` and, where they belong, `tool_calls` and `reasoning_content`.
    pub messages: Vec<Json>,
    /// Functions as `{"type":"function","function":{"name":...,"parameters":{...}}}`.
    pub tools: Vec<Json>,
}

impl ChatTemplate {
    /// Whether the template tells the model about functions, in the one form whose calls are understood here.
    pub fn calls_tools(&self) -> bool {
        MARKS.iter().all(|mark| self.program.source().contains(mark))
    }

    /// The prompt of a chat with functions. Every string in it is somebody's words: none becomes a control token.
    ///
    /// # Errors
    /// [`TextError::Template`] when the template knows no functions, refuses the messages or breaks a limit.
    pub fn render_tools(&self, chat: &ToolChat) -> Result<Rendered, TextError> {
        if !self.calls_tools() {
            return Err(template("the model's template has no place for functions"));
        }
        let mut words = Vec::new();
        chat.messages.iter().chain(&chat.tools).for_each(|value| strings(value, &mut words));
        let mark = if self.guard.is_empty() {
            None
        } else {
            let own = [self.program.source(), self.bos.as_str(), self.eos.as_str()];
            Some(Guard::mark_for(words.into_iter().chain(own))?)
        };
        let to_values = |values: &[Json]| -> Value {
            let marked = |value: &Json| {
                let speaker = match value.get("role").and_then(Json::as_str) {
                    Some("assistant") => Speaker::Assistant,
                    _ => Speaker::User,
                };
                json::to_value(&mark.map_or_else(|| value.clone(), |mark| self.marked(value, speaker, mark)))
            };
            values.iter().map(marked).collect()
        };
        let messages = to_values(&chat.messages);
        let all = variables(messages, true, &self.bos, &self.eos);
        let tools = if chat.tools.is_empty() { Value::from(()) } else { to_values(&chat.tools) };
        let all = Value::from_pairs(
            all.try_iter()
                .map_err(|e| template(e.to_string()))?
                .filter_map(|key| Some((key.as_str()?.to_owned(), all.get_item(&key).ok()?)))
                .chain([("tools".to_owned(), tools)]),
        );
        Ok(Rendered { marked: self.program.run(all, civil(None)?)?, mark })
    }

    /// The value with all its strings marked; templates compare roles, so these stay as they are.
    fn marked(&self, value: &Json, speaker: Speaker, mark: char) -> Json {
        let words = |text: &str| self.guard.marked(&Turn::new(speaker, text), mark).into_owned();
        match value {
            Json::String(text) => Json::String(words(text)),
            Json::Array(items) => items.iter().map(|v| self.marked(v, speaker, mark)).collect(),
            Json::Object(entries) => {
                let entry = |(key, v): (&String, &Json)| match key.as_str() {
                    "role" => (key.clone(), v.clone()),
                    _ => (words(key), self.marked(v, speaker, mark)),
                };
                Json::Object(entries.iter().map(entry).collect())
            }
            other => other.clone(),
        }
    }
}

fn strings<'v>(value: &'v Json, out: &mut Vec<&'v str>) {
    match value {
        Json::String(text) => out.push(text),
        Json::Array(items) => items.iter().for_each(|v| strings(v, out)),
        Json::Object(entries) => entries.iter().for_each(|(key, v)| {
            out.push(key);
            strings(v, out);
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SOURCE: &str = "{% if tools %}{% for t in tools %}{{ t | tojson }}\n{% endfor %}call with <tool_call>\n{% endif %}\
        {% for m in messages %}{{ m.role }}: {{ m.content }}{% for c in m.tool_calls or [] %}\
        [{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}{{ '\n' }}{% endfor %}";

    #[test]
    fn templates_see_functions_calls_and_results() {
        let template = ChatTemplate::from_source(SOURCE, "", "").unwrap();
        assert!(template.calls_tools());
        let call = json!({"function": {"name": "dim", "arguments": {"room": "hall"}}});
        let chat = ToolChat {
            messages: vec![
                json!({"role": "user", "content": "dim it"}),
                json!({"role": "assistant", "content": "", "tool_calls": [call]}),
                json!({"role": "tool", "content": "done"}),
            ],
            tools: vec![json!({"type": "function", "function": {"name": "dim"}})],
        };
        let text = template.render_tools(&chat).unwrap().text();
        let function = "{\"type\": \"function\", \"function\": {\"name\": \"dim\"}}";
        assert_eq!(
            text,
            format!(
                "{function}\ncall with <tool_call>\nuser: dim it\nassistant: [dim {{\"room\": \"hall\"}}]\ntool: done\n"
            )
        );
    }

    #[test]
    fn a_template_without_functions_refuses_them() {
        let template = ChatTemplate::from_source("{{ messages[0].content }}", "", "").unwrap();
        let chat = ToolChat { messages: vec![json!({"role": "user", "content": "x"})], tools: vec![] };
        assert!(template.render_tools(&chat).unwrap_err().to_string().contains("no place for functions"));
    }
}
