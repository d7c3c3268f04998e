//! Finding words in one's own chats: decrypt and compare, because an index of words would give them away.

use super::StoreError;
use super::chats::UserStore;
use super::codec::id16;
use super::tables::{Prefix, key2};
use crate::domain::{ChatId, Invalid, MessageId, Timestamp, Title};

/// A place where the words were found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SearchHit {
    /// In which chat.
    pub chat_id: ChatId,
    /// In which message; `None` = in the title.
    pub message_id: Option<MessageId>,
    /// The chat's title.
    pub title: Title,
    /// Some words around the place.
    pub snippet: String,
    /// When it was said.
    pub created_at: Timestamp,
}

/// Most hits of one search: more than anybody reads.
pub const MAX_HITS: usize = 100;
/// Longest search in characters.
pub const MAX_QUERY_CHARS: usize = 200;
/// Messages looked at in one search: decrypting so many takes about a second, and nobody waits longer.
const MAX_SCANNED: usize = 500_000;
/// Characters shown before the place found, and after it.
const SNIPPET_CHARS: usize = 60;

impl UserStore {
    /// Titles and messages that contain `query`, whatever the case; newest chats first, and in a chat the title, then
    /// the newest messages.
    pub fn search(&self, query: &str, limit: usize) -> Result<Vec<SearchHit>, StoreError> {
        let query = query.trim();
        if query.chars().count() > MAX_QUERY_CHARS {
            return Err(Invalid::new("q", format!("must be at most {MAX_QUERY_CHARS} characters")).into());
        }
        let needle = fold(query);
        if needle.is_empty() {
            return Err(Invalid::new("q", "must not be empty").into());
        }
        let limit = limit.clamp(1, MAX_HITS);
        self.read(|s| {
            let (chats, list, rows) = (s.chats()?, s.chats_by_updated()?, s.messages()?);
            let (mut hits, mut n_scanned) = (Vec::new(), 0);
            for place in list.range::<&[u8]>(Prefix::of(self.user.as_bytes()).all())? {
                let place = place?.0;
                let id = ChatId::from_bytes(id16(
                    "chats_by_updated",
                    place.value().get(24..).unwrap_or_default(),
                )?);
                let chat = self.shown(id, &self.get_chat(&chats, id)?)?;
                if let Some(snippet) = found(chat.title.as_str(), &needle) {
                    let (title, created_at) = (chat.title.clone(), chat.created_at);
                    hits.push(SearchHit { chat_id: id, message_id: None, title, snippet, created_at });
                }
                for row in rows.range::<&[u8]>(Prefix::of(&key2(self.user, id.as_bytes())).all())?.rev() {
                    if hits.len() >= limit || n_scanned == MAX_SCANNED {
                        hits.truncate(limit);
                        return Ok(hits);
                    }
                    n_scanned += 1;
                    let (key, row) = row?;
                    let message = self.message_of(id, key.value(), row.value())?;
                    if let Some(snippet) = found(&message.content, &needle) {
                        let (title, created_at) = (chat.title.clone(), message.created_at);
                        hits.push(SearchHit {
                            chat_id: id,
                            message_id: Some(message.id),
                            title,
                            snippet,
                            created_at,
                        });
                    }
                }
            }
            hits.truncate(limit);
            Ok(hits)
        })
    }
}

/// Text as it is compared: lower case by way of upper case, so that ß finds SS and every sigma the others.
fn fold(text: &str) -> String {
    text.chars().flat_map(folded).collect()
}

fn folded(c: char) -> impl Iterator<Item = char> {
    c.to_uppercase().flat_map(char::to_lowercase)
}

/// Some words around the first place where `text` contains `needle`.
fn found(text: &str, needle: &str) -> Option<String> {
    let at = fold(text).find(needle)?;
    // Folding changes lengths, so the place is found again by counting folded bytes.
    let (mut n_folded, mut start) = (0, text.len());
    for (i, c) in text.char_indices() {
        if n_folded >= at {
            start = i;
            break;
        }
        n_folded += folded(c).map(char::len_utf8).sum::<usize>();
    }
    let before = text[..start].char_indices().rev().nth(SNIPPET_CHARS - 1).map_or(0, |(i, _)| i);
    let n_after = needle.chars().count() + SNIPPET_CHARS;
    let end = text[start..].char_indices().nth(n_after).map_or(text.len(), |(i, _)| start + i);
    let words: Vec<&str> = text[before..end].split_whitespace().collect();
    let (head, tail) = (if before > 0 { "…" } else { "" }, if end < text.len() { "…" } else { "" });
    Some(format!("{head}{}{tail}", words.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, query: &str, expected: Option<&str>) {
        assert_eq!(found(text, &fold(query)).as_deref(), expected, "{query:?} in {text:?}");
    }

    #[test]
    fn words_are_found_whatever_the_case_and_shown_with_their_neighbours() {
        check("I had a BAD day", "bad D", Some("I had a BAD day"));
        check("I had a bad day", "good", None);
        check("ÜBER  uns\nbeide", "über", Some("ÜBER uns beide"));
        check("İİİ then x", "X", Some("İİİ then x"));
        check("die Größe", "GRÖSSE", Some("die Größe"));
        check("日本語のテキスト", "テキ", Some("日本語のテキスト"));
        let long = format!("{}needle{}", "ä".repeat(500), "ö".repeat(500));
        let snippet = found(&long, "needle").unwrap();
        assert_eq!(snippet, format!("…{}needle{}…", "ä".repeat(60), "ö".repeat(60)));
    }
}
