//! Server-sent events in OpenAI's chat shape, taken apart as they come.

use serde_json::Value;

use super::ServerTimings;

/// Longest line of a stream: a chunk is a few hundred bytes, and a server that sends no line end must not fill memory.
const MAX_LINE: usize = 1 << 20;

/// What a stream has said.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// Text of the answer, or of the thinking before it.
    Text(String),
    /// How many tokens prompt and answer have.
    Usage { n_input: usize, n_output: usize },
    /// The server's own figures.
    Timings(ServerTimings),
    /// The answer is over.
    End,
    /// The server gave up, in its words.
    Error(String),
}

/// Bytes of a stream, cut into events.
#[derive(Default)]
pub(super) struct Stream {
    rest: Vec<u8>,
}

impl Stream {
    /// Takes the next bytes and returns what they say.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Said> {
        let mut said = Vec::new();
        self.rest.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(end) = self.rest[start..].iter().position(|b| *b == b'\n') {
            line(&self.rest[start..start + end], &mut said);
            start += end + 1;
        }
        self.rest.drain(..start);
        if self.rest.len() > MAX_LINE {
            said.push(Said::Error(format!("a line of more than {MAX_LINE} bytes")));
        }
        said
    }
}

fn line(line: &[u8], said: &mut Vec<Said>) {
    let line = String::from_utf8_lossy(line);
    // Comments, event names and blank lines carry nothing here.
    let Some(data) = line.trim_end_matches('\r').strip_prefix("data:") else { return };
    let data = data.trim();
    if data == "[DONE]" {
        said.push(Said::End);
        return;
    }
    match serde_json::from_str(data) {
        Ok(value) => event(&value, said),
        Err(_) => said.push(Said::Error(format!("no JSON in the stream: {}", shortened(data)))),
    }
}

fn event(value: &Value, said: &mut Vec<Said>) {
    if let Some(message) = error_of(value) {
        said.push(Said::Error(message));
        return;
    }
    for choice in value["choices"].as_array().into_iter().flatten() {
        let delta = &choice["delta"];
        for text in [&delta["reasoning_content"], &delta["content"], &choice["text"]] {
            if let Some(text) = text.as_str().filter(|text| !text.is_empty()) {
                said.push(Said::Text(text.to_owned()));
            }
        }
    }
    let count = |value: &Value| value.as_u64().map(|n| n as usize);
    let usage = &value["usage"];
    if let (Some(n_input), Some(n_output)) =
        (count(&usage["prompt_tokens"]), count(&usage["completion_tokens"]))
    {
        said.push(Said::Usage { n_input, n_output });
    }
    if let Some(timings) = value.get("timings").filter(|t| t.is_object()) {
        let of = |key: &str| timings[key].as_f64().unwrap_or(0.0);
        said.push(Said::Timings(ServerTimings {
            cache_n: of("cache_n"),
            prompt_n: of("prompt_n"),
            prompt_ms: of("prompt_ms"),
            predicted_n: of("predicted_n"),
            predicted_ms: of("predicted_ms"),
        }));
    }
}

/// The message of an error object, in OpenAI's form or Ollama's.
pub(super) fn error_of(value: &Value) -> Option<String> {
    let error = value.get("error").filter(|error| !error.is_null())?;
    let message = error["message"].as_str().or(error.as_str());
    Some(message.map_or_else(|| shortened(&error.to_string()), shortened))
}

/// Text from a server, fit for one line.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 200;
    let mut out: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let text = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n: ping\r\n\
                    data: {\"choices\":[{\"delta\":{\"content\":\"Hé\"}}]}\r\n\r\n\
                    data:{\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2},\
                    \"timings\":{\"prompt_ms\":1.5,\"prompt_n\":3}}\n\ndata: [DONE]\n\n";
        let timings = ServerTimings { prompt_n: 3.0, prompt_ms: 1.5, ..ServerTimings::default() };
        let expected = [
            Said::Text("Hé".into()),
            Said::Usage { n_input: 3, n_output: 2 },
            Said::Timings(timings),
            Said::End,
        ];
        for size in 1..=text.len() {
            let mut stream = Stream::default();
            let said: Vec<Said> = text.as_bytes().chunks(size).flat_map(|piece| stream.push(piece)).collect();
            assert_eq!(said, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn errors_in_a_stream_are_heard() {
        let mut stream = Stream::default();
        let said = stream
            .push(b"data: {\"error\":{\"message\":\"out of memory\",\"code\":500}}\n\ndata: nonsense\n");
        assert_eq!(said[0], Said::Error("out of memory".into()));
        assert!(matches!(&said[1], Said::Error(text) if text.contains("nonsense")));
        assert_eq!(error_of(&serde_json::json!({"error": "busy"})), Some("busy".into()));
        assert!(matches!(stream.push(&vec![b'x'; MAX_LINE + 1])[..], [Said::Error(_)]));
    }
}
