//! What a load generator says: a built-in set, or a file.

/// One conversation, of which each message is sent when the one before was answered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Conversation {
    /// Stands before it.
    pub system: Option<String>,
    /// What the person says, turn by turn; at least one.
    pub user: Vec<String>,
}

/// Longest file of prompts.
pub const MAX_FILE_BYTES: u64 = 64 << 20;
/// Most conversations of a measurement.
pub const MAX_CONVERSATIONS: usize = 1_000_000;
/// Most turns of a conversation.
pub const MAX_TURNS: usize = 64;

/// Openings as a family writes them, of different lengths.
const OPENINGS: &[&str] = &[
    "I had a bad day at school and I don't want to talk about it, but somehow I do.",
    "Can you explain to me why the sky is blue? I told my little brother that it is paint.",
    "I made soup today, all by myself, and nobody noticed.",
    "What should I pack for three days in the mountains in autumn? I always forget something.",
    "My best friend moved to another town last week. We said we would write, and I don't know how to begin.",
    "Tell me a story about a lighthouse keeper who is afraid of the sea.",
    "I have an exam tomorrow and my stomach hurts. I learned everything twice and still cannot remember the third chapter.",
    "How do I get candle wax out of a tablecloth before grandmother comes?",
    "I was not kind to my sister. She took my pencils without asking, and I said something that I knew would hurt her.",
    "What is the difference between weather and climate?",
    "We got a dog! He is called Waffle and he has eaten one shoe already. How do I teach him that shoes are not food?",
    "I cannot sleep. The house makes noises and my thoughts go round in circles, always the same ones.",
    "Help me write a birthday card for my teacher that is not boring.",
    "Why do some numbers divide others and some don't? Is there a trick to see it at once?",
    "I got the part in the play. Now I am scared of it.",
    "What can I cook from rice, two eggs, half an onion and a carrot?",
];

/// What is said after an answer came.
const FOLLOW_UPS: &[&str] = &[
    "And what would you do first?",
    "Hm. Say that again, a bit shorter please.",
    "That helps. What if it does not work?",
    "Why do you think so?",
    "Okay. And tomorrow?",
];

/// `n` conversations of `n_turns` turns from the built-in set, each made `n_words` words long where that is given. No two
/// begin alike, so that a server's prefix cache cannot answer for its arithmetic.
pub fn built_in(n: usize, n_turns: usize, n_words: Option<usize>) -> Vec<Conversation> {
    (0..n)
        .map(|i| {
            let opening = format!("({}) {}", i + 1, OPENINGS[i % OPENINGS.len()]);
            let follow_ups = (1..n_turns).map(|t| FOLLOW_UPS[(i + t) % FOLLOW_UPS.len()].to_owned());
            let user = std::iter::once(opening).chain(follow_ups).map(|text| with_words(&text, n_words, i));
            Conversation { system: None, user: user.collect() }
        })
        .collect()
}

/// Cuts a text to `n_words`, or goes on with other openings until it has as many.
fn with_words(text: &str, n_words: Option<usize>, seed: usize) -> String {
    let Some(n_words) = n_words else { return text.to_owned() };
    let more = (1..).flat_map(|k| OPENINGS[(seed + k) % OPENINGS.len()].split_whitespace());
    let words: Vec<&str> = text.split_whitespace().chain(more).take(n_words).collect();
    words.join(" ")
}

/// Reads prompts from a file's text: one a line, as plain text, as `{"prompt": "..."}`, or as a whole conversation
/// `{"messages": [{"role": "user", "content": "..."}, ...]}`, of which the person's turns are sent. The file is gone
/// through again from the start until there are `n`.
///
/// # Errors
/// The line that is neither, with its number; or that there is none.
pub fn from_text(text: &str, n: usize, n_words: Option<usize>) -> Result<Vec<Conversation>, String> {
    let mut found = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let conversation = parse(line).map_err(|problem| format!("line {}: {problem}", i + 1))?;
        found.push(conversation);
    }
    if found.is_empty() {
        return Err("there is no prompt in it; give one a line".into());
    }
    let cycled = found.iter().cycle().take(n).enumerate();
    Ok(cycled
        .map(|(i, c)| Conversation {
            system: c.system.clone(),
            user: c.user.iter().map(|text| with_words(text, n_words, i)).collect(),
        })
        .collect())
}

fn parse(line: &str) -> Result<Conversation, String> {
    if !line.trim_start().starts_with('{') {
        return Ok(Conversation { system: None, user: vec![line.to_owned()] });
    }
    let value: serde_json::Value = serde_json::from_str(line).map_err(|e| format!("no JSON: {e}"))?;
    if let Some(prompt) = value["prompt"].as_str() {
        return Ok(Conversation { system: None, user: vec![prompt.to_owned()] });
    }
    let Some(messages) = value["messages"].as_array() else {
        return Err("neither \"prompt\" nor \"messages\" in it".into());
    };
    let mut conversation = Conversation::default();
    for message in messages {
        let Some(text) = message["content"].as_str() else { return Err("a message without text".into()) };
        match message["role"].as_str() {
            Some("user") => conversation.user.push(text.to_owned()),
            Some("system" | "developer") => conversation.system = Some(text.to_owned()),
            Some("assistant") => {}
            _ => return Err("a message of an unknown role".into()),
        }
    }
    if conversation.user.is_empty() { Err("no message of role user".into()) } else { Ok(conversation) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_set_has_the_size_that_was_asked_for() {
        let conversations = built_in(40, 3, Some(25));
        assert_eq!(conversations.len(), 40);
        for c in &conversations {
            assert_eq!(c.user.len(), 3);
            assert!(c.user.iter().all(|text| text.split_whitespace().count() == 25));
        }
        let mut firsts: Vec<&str> = conversations.iter().map(|c| c.user[0].as_str()).collect();
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), 40, "no two begin alike");
    }

    #[test]
    fn files_are_read_line_by_line_in_three_forms() {
        let text = "plain\n\n{\"prompt\":\"one\"}\n{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},\
                    {\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"x\"},\
                    {\"role\":\"user\",\"content\":\"b\"}]}\n";
        let read = from_text(text, 4, None).unwrap();
        let users: Vec<String> = read.iter().map(|c| c.user.join("|")).collect();
        assert_eq!(users, ["plain", "one", "a|b", "plain"]);
        assert_eq!(read[2].system.as_deref(), Some("s"));
        for (bad, named) in
            [("", "no prompt"), ("x\n{", "line 2"), ("{}", "neither"), ("{\"messages\":[]}", "role user")]
        {
            let error = from_text(bad, 1, None).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
