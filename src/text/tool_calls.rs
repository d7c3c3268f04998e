//! Finds the calls of functions in a streamed answer.
//!
//! Models whose template tells them about functions call one with `<tool_call>{"name":...,"arguments":{...}}</tool_call>`
//! in their answer; the tags may be cut anywhere by the stream. What stands between tags and is no such JSON stays text:
//! nothing that a model said is lost.

/// What opens and closes a call.
const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
/// Longest call in bytes: a longer one is no call but a model that went astray, and its text is released.
const MAX_CALL_BYTES: usize = 256 << 10;

/// A call of a function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToolCall {
    /// The function's name.
    pub name: String,
    /// Its arguments, a JSON object as text.
    pub arguments: String,
}

/// A piece of an answer, told apart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WithCalls {
    /// Newly certain text.
    pub text: String,
    /// Calls that became complete.
    pub calls: Vec<ToolCall>,
}

/// Splits calls from text.
#[derive(Debug, Default)]
pub struct ToolCallSplitter {
    /// Text that may yet turn out to be a tag, or the call after an opening tag.
    held: String,
    /// Blanks before the call that is being read: they part it from the text, unless it turns out to be none.
    gap: String,
    in_call: bool,
    n_calls: usize,
}

impl ToolCallSplitter {
    /// Takes the next piece of an answer.
    pub fn push(&mut self, piece: &str) -> WithCalls {
        self.held.push_str(piece);
        let mut out = WithCalls::default();
        while self.step(&mut out) {}
        out
    }

    /// What was held back; a call without its end is one if its JSON is whole.
    pub fn finish(mut self) -> WithCalls {
        let mut out = WithCalls::default();
        if self.in_call && self.take_call(self.held.len(), "", &mut out) {
            return out;
        }
        out.text.push_str(&std::mem::take(&mut self.held));
        out
    }

    /// One decision; `true` while there may be another.
    fn step(&mut self, out: &mut WithCalls) -> bool {
        if self.in_call {
            let Some(end) = self.held.find(CLOSE) else {
                if self.held.len() > MAX_CALL_BYTES {
                    out.text.extend([&self.gap, OPEN, &std::mem::take(&mut self.held)]);
                    self.in_call = false;
                }
                return false;
            };
            self.take_call(end, CLOSE, out);
            return true;
        }
        if let Some(at) = self.held.find(OPEN) {
            let mut before: String = self.held.drain(..at).collect();
            self.held.drain(..OPEN.len());
            self.gap = before.split_off(before.trim_end().len());
            self.release(&before, out);
            self.in_call = true;
            return true;
        }
        // Blanks may part calls from each other, and belong to no text then.
        let n_tag = (1..OPEN.len()).rev().find(|&n| self.held.ends_with(&OPEN[..n])).unwrap_or(0);
        let certain = self.held[..self.held.len() - n_tag].trim_end().len();
        let text: String = self.held.drain(..certain).collect();
        self.release(&text, out);
        false
    }

    fn release(&self, text: &str, out: &mut WithCalls) {
        let parts_calls = text.trim().is_empty();
        if !parts_calls {
            out.text.push_str(if self.n_calls > 0 { text.trim_start() } else { text });
        }
    }

    /// Reads the first `end` held bytes as a call; what is none becomes text again.
    fn take_call(&mut self, end: usize, close: &str, out: &mut WithCalls) -> bool {
        let inside: String = self.held.drain(..end).collect();
        self.held.drain(..close.len());
        self.in_call = false;
        let Some(call) = parse(&inside) else {
            out.text.extend([&self.gap, OPEN, &inside, close]);
            return false;
        };
        self.n_calls += 1;
        out.calls.push(call);
        true
    }
}

fn parse(inside: &str) -> Option<ToolCall> {
    let call: serde_json::Value = serde_json::from_str(inside.trim()).ok()?;
    let name = call.get("name")?.as_str()?.to_owned();
    let arguments = match call.get("arguments").or_else(|| call.get("parameters")) {
        None => "{}".to_owned(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    Some(ToolCall { name, arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way to cut the stream in two gives the same text and calls.
    fn check(stream: &str, text: &str, calls: &[(&str, &str)]) {
        for cut in (0..=stream.len()).filter(|&cut| stream.is_char_boundary(cut)) {
            let mut splitter = ToolCallSplitter::default();
            let mut all = splitter.push(&stream[..cut]);
            for more in [splitter.push(&stream[cut..]), splitter.finish()] {
                all.text += &more.text;
                all.calls.extend(more.calls);
            }
            let found: Vec<(&str, &str)> =
                all.calls.iter().map(|c| (c.name.as_str(), c.arguments.as_str())).collect();
            assert_eq!((all.text.as_str(), found.as_slice()), (text, calls), "cut at {cut}");
        }
    }

    #[test]
    fn calls_are_told_from_text() {
        check("Hello é!", "Hello é!", &[]);
        let call = "<tool_call>\n{\"name\": \"dim\", \"arguments\": {\"room\": \"é\"}}\n</tool_call>";
        let dim = ("dim", "{\"room\":\"é\"}");
        check(call, "", &[dim]);
        check(&format!("One moment.\n{call}\n{call}"), "One moment.", &[dim, dim]);
        check(&call.replace("\n</tool_call>", ""), "", &[dim]);
        check("<tool_call>{\"name\":\"x\"}</tool_call> done", "done", &[("x", "{}")]);
    }

    #[test]
    fn what_is_no_call_stays_text() {
        check("a < b <tool", "a < b <tool", &[]);
        check("I \n<tool_call>soon</tool_call>", "I \n<tool_call>soon</tool_call>", &[]);
        check("end \n", "end \n", &[]);
    }
}
