//! Separates what a thinking model thinks from what it answers, while it streams.

/// What opens and closes a thought, in the spellings of known models.
pub(super) const TAGS: &[(&str, &str)] = &[
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
];

/// A piece of streamed text, told apart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Split {
    /// Newly certain text of the thoughts.
    pub thought: String,
    /// Newly certain text of the answer.
    pub answer: String,
}

/// Splits `<think>...</think>` from the answer; tags may be cut anywhere by the stream.
///
/// A thought stands only at the beginning of an answer: a tag further on is the answer's own text.
#[derive(Debug)]
pub struct ThinkingSplitter {
    state: State,
    /// Text that may yet turn out to be a tag, or blanks that only part tag and text.
    held: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing but blanks so far.
    Start,
    /// Behind an opening tag; newlines before the thought are left out.
    Opened(&'static str),
    /// Inside a thought; the closing tag, or `None` where the prompt opened it.
    Thinking(Option<&'static str>),
    /// Behind a thought; blanks before the answer are left out.
    Between,
    Answering,
}

impl ThinkingSplitter {
    /// `already_thinking`: the prompt itself ended with the opening tag.
    pub fn new(already_thinking: bool) -> Self {
        let state = if already_thinking { State::Thinking(None) } else { State::Start };
        Self { state, held: String::new() }
    }

    /// Whether a prompt ends inside a thought.
    pub fn is_opened_by(prompt: &str) -> bool {
        TAGS.iter().any(|(open, _)| prompt.trim_end().ends_with(open))
    }

    /// Takes the next delta.
    pub fn push(&mut self, delta: &str) -> Split {
        self.held.push_str(delta);
        let mut split = Split::default();
        while self.step(&mut split) {}
        split
    }

    /// What was held back as a possible tag.
    pub fn finish(mut self) -> Split {
        let rest = std::mem::take(&mut self.held);
        match self.state {
            State::Opened(_) | State::Thinking(_) => Split { thought: rest, answer: String::new() },
            State::Between => Split::default(),
            State::Start | State::Answering => Split { thought: String::new(), answer: rest },
        }
    }

    /// One decision; `true` while there may be another.
    fn step(&mut self, split: &mut Split) -> bool {
        match self.state {
            State::Start => {
                let text = self.held.trim_start();
                let begins = |(open, _): &&(&str, &str)| text.starts_with(open);
                if let Some(&(open, close)) = TAGS.iter().find(begins) {
                    self.held = text[open.len()..].to_owned();
                    self.state = State::Opened(close);
                    return true;
                }
                if TAGS.iter().any(|(open, _)| open.starts_with(text)) {
                    return false;
                }
                self.state = State::Answering;
                true
            }
            State::Opened(close) => {
                self.held = self.held.trim_start_matches('\n').to_owned();
                if self.held.is_empty() {
                    return false;
                }
                self.state = State::Thinking(Some(close));
                true
            }
            State::Thinking(close) => {
                let closes = |tag: &&str| close.is_none_or(|close| close == *tag);
                let tags = || TAGS.iter().map(|(_, close)| *close).filter(closes);
                if let Some((at, tag)) = tags().filter_map(|tag| Some((self.held.find(tag)?, tag))).min() {
                    split.thought.push_str(self.held[..at].trim_end_matches('\n'));
                    self.held.drain(..at + tag.len());
                    self.state = State::Between;
                    return true;
                }
                let n_open = tags().map(|tag| n_begun(&self.held, tag)).max().unwrap_or(0);
                // Newlines before the closing tag are no part of the thought.
                let certain = self.held[..self.held.len() - n_open].trim_end_matches('\n').len();
                split.thought.extend(self.held.drain(..certain));
                false
            }
            State::Between => {
                self.held = self.held.trim_start().to_owned();
                if self.held.is_empty() {
                    return false;
                }
                self.state = State::Answering;
                true
            }
            State::Answering => {
                split.answer.push_str(&self.held);
                self.held.clear();
                false
            }
        }
    }
}

/// How many bytes at the end of `text` are the beginning of `tag`.
fn n_begun(text: &str, tag: &str) -> usize {
    (1..tag.len()).rev().find(|&n| text.ends_with(&tag[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way to cut the stream in two gives the same thought and answer.
    fn check(already_thinking: bool, stream: &str, thought: &str, answer: &str) {
        for cut in (0..=stream.len()).filter(|&cut| stream.is_char_boundary(cut)) {
            let mut splitter = ThinkingSplitter::new(already_thinking);
            let mut got = Split::default();
            for part in [&stream[..cut], &stream[cut..]] {
                let split = splitter.push(part);
                got.thought += &split.thought;
                got.answer += &split.answer;
            }
            let rest = splitter.finish();
            assert_eq!(
                (got.thought + &rest.thought, got.answer + &rest.answer),
                (thought.into(), answer.into())
            );
        }
    }

    #[test]
    fn thoughts_are_told_from_the_answer() {
        check(false, "<think>\nhm, é\n</think>\n\nGood night!", "hm, é", "Good night!");
        check(false, "\n<think></think>Hi", "", "Hi");
        check(true, "hm\n</think>\n\nHi", "hm", "Hi");
        check(false, "[THINK]a < b[/THINK]Yes", "a < b", "Yes");
    }

    #[test]
    fn an_answer_without_thoughts_is_left_alone() {
        check(false, "Hi <think>not a thought</think>", "", "Hi <think>not a thought</think>");
        check(false, "  <b>bold</b>", "", "  <b>bold</b>");
        check(false, "<thin", "", "<thin");
    }

    #[test]
    fn a_thought_that_never_ends_is_all_thought() {
        check(false, "<think>on and on </thi", "on and on </thi", "");
    }

    #[test]
    fn a_prompt_may_open_the_thought() {
        assert!(ThinkingSplitter::is_opened_by("<|im_start|>assistant\n<think>\n"));
        assert!(!ThinkingSplitter::is_opened_by("<|im_start|>assistant\n"));
    }
}
