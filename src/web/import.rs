//! Reads chat exports: our own, Open WebUI's and llama.cpp's. All three are trees of messages; they differ in names.
//!
//! Pure: JSON in, a tree for the store out, or a refusal that names the place in the file.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::error::ApiError;
use crate::domain::{ChatId, FinishReason, MAX_MESSAGE_BYTES, Timestamp, Title};
use crate::store::{ImportChat, ImportMessage, ImportTree};

/// What one program calls the fields of a message.
struct Names {
    parent: &'static str,
    time: &'static str,
}

const OURS: Names = Names { parent: "parent_id", time: "created_at" };
const OPEN_WEBUI: Names = Names { parent: "parentId", time: "timestamp" };
const LLAMA_CPP: Names = Names { parent: "parent", time: "timestamp" };

/// The chats of an export, whichever program wrote it.
pub(crate) fn tree(file: &Value) -> Result<ImportTree, ApiError> {
    if let Some(chats) = file.get("chats") {
        let chats = array(chats, "chats")?;
        let chats = chats.iter().enumerate().map(|(i, c)| our_chat(c, &format!("chats[{i}]")));
        let memories = match file.get("memories") {
            None => Vec::new(),
            Some(list) => array(list, "memories")?
                .iter()
                .enumerate()
                .map(|(i, m)| text(m, "content", &format!("memories[{i}]")).map(str::to_owned))
                .collect::<Result<_, _>>()?,
        };
        return Ok(ImportTree { chats: chats.collect::<Result<_, _>>()?, memories });
    }
    let one = std::slice::from_ref(file);
    let list = file.as_array().map_or(one, Vec::as_slice);
    let chats = list.iter().enumerate().map(|(i, entry)| {
        let place = format!("[{i}]");
        if entry.get("chat").is_some() {
            open_webui_chat(entry, &place)
        } else if entry.get("conv").is_some() {
            llama_cpp_chat(entry, &place)
        } else {
            Err(refuse(&place, "is no chat of MommyGPT, Open WebUI or llama.cpp"))
        }
    });
    Ok(ImportTree { chats: chats.collect::<Result<_, _>>()?, memories: Vec::new() })
}

fn our_chat(chat: &Value, place: &str) -> Result<ImportChat, ApiError> {
    let none = Vec::new();
    let messages = match chat.get("messages") {
        None => &none,
        Some(list) => array(list, &format!("{place}.messages"))?,
    };
    let nodes =
        messages.iter().enumerate().map(|(i, m)| Node::read(m, &OURS, &format!("{place}.messages[{i}]")));
    let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
    build(chat, chat.get("title"), ("created_at", "updated_at"), &nodes, place)
}

fn open_webui_chat(entry: &Value, place: &str) -> Result<ImportChat, ApiError> {
    let place_of = format!("{place}.chat.history.messages");
    let messages = entry["chat"]["history"]["messages"].as_object();
    let messages = messages.ok_or_else(|| refuse(&place_of, "must be an object of messages"))?;
    let nodes = messages.iter().map(|(id, m)| {
        let mut node = Node::read(m, &OPEN_WEBUI, &format!("{place_of}.{id}"))?;
        node.key.clone_from(id);
        Ok(node)
    });
    let nodes = nodes.collect::<Result<Vec<_>, ApiError>>()?;
    let title = entry.get("title").or_else(|| entry["chat"].get("title"));
    build(entry, title, ("created_at", "updated_at"), &nodes, place)
}

fn llama_cpp_chat(entry: &Value, place: &str) -> Result<ImportChat, ApiError> {
    let place_of = format!("{place}.messages");
    let messages = array(entry.get("messages").unwrap_or(&Value::Null), &place_of)?;
    let nodes =
        messages.iter().enumerate().map(|(i, m)| Node::read(m, &LLAMA_CPP, &format!("{place_of}[{i}]")));
    let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
    let chat = &entry["conv"];
    build(chat, chat.get("name"), ("lastModified", "lastModified"), &nodes, place)
}

/// A message as it stands in a file, before it has its place.
struct Node {
    key: String,
    parent: Option<String>,
    /// `None` for what is neither the person's nor the parent's (a system prompt, a root): its children move up.
    is_user: Option<bool>,
    content: String,
    time: Option<Timestamp>,
    finish_reason: Option<FinishReason>,
}

impl Node {
    fn read(message: &Value, names: &Names, place: &str) -> Result<Self, ApiError> {
        let message = message.as_object().ok_or_else(|| refuse(place, "must be a message"))?;
        let content = content(message, place)?;
        let is_user = match (message.get("is_user"), message.get("role").and_then(Value::as_str)) {
            (Some(flag), _) => Some(
                flag.as_bool().ok_or_else(|| refuse(&format!("{place}.is_user"), "must be true or false"))?,
            ),
            (None, Some("user")) => Some(true),
            (None, Some("assistant")) => Some(false),
            (None, _) => None,
        };
        Ok(Self {
            key: key(message.get("id")).unwrap_or_else(|| place.to_owned()),
            parent: key(message.get(names.parent)),
            // An export of ours may hold an answer that was stopped before its first word.
            is_user: is_user
                .filter(|user| !content.trim().is_empty() || (!user && message.contains_key("is_user"))),
            content,
            time: time(message.get(names.time)),
            finish_reason: message.get("finish_reason").and_then(Value::as_str).and_then(|s| s.parse().ok()),
        })
    }
}

/// Ids are text in most files and numbers in old ones.
fn key(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

/// Text, or the text parts of a list of parts.
fn content(message: &Map<String, Value>, place: &str) -> Result<String, ApiError> {
    let bad = |why: &str| refuse(&format!("{place}.content"), why);
    let text = match message.get("content") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(s)) => s.clone(),
        Some(Value::Array(parts)) => {
            parts.iter().filter_map(|p| p.get("text").and_then(Value::as_str)).collect::<Vec<_>>().join("\n")
        }
        Some(_) => return Err(bad("must be text")),
    };
    if text.len() > MAX_MESSAGE_BYTES {
        return Err(bad(&format!("is {} bytes long; the limit is {MAX_MESSAGE_BYTES}", text.len())));
    }
    Ok(text)
}

/// RFC 3339, or a number since 1970 in seconds, milliseconds, microseconds or nanoseconds, told by its size.
fn time(value: Option<&Value>) -> Option<Timestamp> {
    match value? {
        Value::String(s) => s.parse().ok(),
        number => {
            let n = number.as_f64()?;
            let micros = match n.abs() {
                a if a < 1e11 => n * 1e6,
                a if a < 1e14 => n * 1e3,
                a if a < 1e17 => n,
                _ => n / 1e3,
            };
            Some(Timestamp::from_micros(micros as i64))
        }
    }
}

/// Puts parents before children and drops what is not a message, handing its children to its parent.
fn build(
    chat: &Value,
    title: Option<&Value>,
    times: (&str, &str),
    nodes: &[Node],
    place: &str,
) -> Result<ImportChat, ApiError> {
    let created_at = time(chat.get(times.0));
    let fallback = created_at.or_else(|| time(chat.get(times.1))).unwrap_or_else(Timestamp::now);
    let index: HashMap<&str, usize> = nodes.iter().enumerate().map(|(i, n)| (n.key.as_str(), i)).collect();
    if index.len() < nodes.len() {
        return Err(refuse(place, "has two messages of one id"));
    }
    let parent_of = |i: usize| nodes[i].parent.as_deref().and_then(|key| index.get(key).copied());
    // Where each node ended up among the messages: not yet, dropped with this heir, or at this index.
    let mut at: Vec<Option<Option<usize>>> = vec![None; nodes.len()];
    let mut messages = Vec::with_capacity(nodes.len());
    for start in 0..nodes.len() {
        let mut chain = Vec::new();
        let mut here = Some(start);
        while let Some(i) = here.filter(|&i| at[i].is_none()) {
            if chain.len() > nodes.len() {
                return Err(refuse(place, "has a message that is its own ancestor"));
            }
            chain.push(i);
            here = parent_of(i);
        }
        for i in chain.into_iter().rev() {
            let node = &nodes[i];
            let parent = parent_of(i).and_then(|p| at[p].flatten());
            let Some(is_user) = node.is_user else {
                at[i] = Some(parent);
                continue;
            };
            at[i] = Some(Some(messages.len()));
            messages.push(ImportMessage {
                id: node.key.parse().ok(),
                parent,
                content: node.content.clone(),
                is_user,
                created_at: node.time.unwrap_or(fallback),
                finish_reason: node.finish_reason.filter(|_| !is_user),
            });
        }
    }
    let newest = messages.iter().map(|m| m.created_at).max();
    Ok(ImportChat {
        id: chat.get("id").and_then(Value::as_str).and_then(|s| s.parse::<ChatId>().ok()),
        title: title.and_then(Value::as_str).map_or_else(Title::untitled, Title::cut),
        created_at: fallback,
        updated_at: time(chat.get(times.1)).or(newest).unwrap_or(fallback),
        pinned: chat.get("pinned").and_then(Value::as_bool).unwrap_or(false),
        archived: chat.get("archived").and_then(Value::as_bool).unwrap_or(false),
        messages,
    })
}

fn array<'a>(value: &'a Value, place: &str) -> Result<&'a Vec<Value>, ApiError> {
    value.as_array().ok_or_else(|| refuse(place, "must be a list"))
}

fn text<'a>(value: &'a Value, field: &str, place: &str) -> Result<&'a str, ApiError> {
    value
        .get(field)
        .and_then(Value::as_str)
        .ok_or_else(|| refuse(&format!("{place}.{field}"), "must be text"))
}

fn refuse(place: &str, problem: &str) -> ApiError {
    ApiError::invalid(place, problem)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(tree: &ImportTree) -> Vec<(String, Option<usize>, bool)> {
        tree.chats[0].messages.iter().map(|m| (m.content.clone(), m.parent, m.is_user)).collect()
    }

    #[test]
    fn an_open_webui_tree_keeps_its_branches() {
        let file = json!([{ "id": "x", "title": "Bad day", "updated_at": 1_700_000_001, "chat": { "history": {
        "currentId": "c", "messages": {
            "c": {"id":"c","parentId":"a","childrenIds":[],"role":"assistant","content":"Oh dear","timestamp":1_700_000_000},
            "b": {"id":"b","parentId":"a","childrenIds":[],"role":"assistant","content":"Tell me","timestamp":1_700_000_000},
            "a": {"id":"a","parentId":null,"childrenIds":["b","c"],"role":"user","content":"I had a bad day","timestamp":1_700_000_000}
        }}}}]);
        let tree = tree(&file).unwrap();
        let expected =
            [("I had a bad day", None, true), ("Oh dear", Some(0), false), ("Tell me", Some(0), false)];
        assert_eq!(said(&tree), expected.map(|(s, p, u)| (s.to_owned(), p, u)));
        assert_eq!(tree.chats[0].title.as_str(), "Bad day");
        assert_eq!(tree.chats[0].updated_at.as_micros(), 1_700_000_001_000_000);
    }

    #[test]
    fn a_llama_cpp_tree_loses_its_root_and_system_prompt() {
        let file = json!({"conv": {"id":"k","name":"Hi","lastModified":1_700_000_000_000_u64,"currNode":3}, "messages": [
            {"id":0,"parent":-1,"children":[1],"type":"root","role":"system","content":"","timestamp":1_700_000_000_000_u64},
            {"id":1,"parent":0,"role":"system","content":"Be kind","timestamp":1_700_000_000_000_u64},
            {"id":2,"parent":1,"role":"user","content":[{"type":"text","text":"Hello"}],"timestamp":1_700_000_000_000_u64},
            {"id":3,"parent":2,"role":"assistant","content":"Hello you","timestamp":1_700_000_000_500_u64}]});
        let tree = tree(&file).unwrap();
        assert_eq!(said(&tree), [("Hello".to_owned(), None, true), ("Hello you".to_owned(), Some(0), false)]);
        assert_eq!(tree.chats[0].messages[1].created_at.as_micros(), 1_700_000_000_500_000);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let cycle = json!({"chats":[{"title":"x","messages":[
            {"id":"a","parent_id":"b","is_user":true,"content":"1"},{"id":"b","parent_id":"a","is_user":true,"content":"2"}]}]});
        for (file, place) in [
            (json!({"chats": 1}), "chats"),
            (json!([{"hello": 1}]), "[0]"),
            (json!(7), "[0]"),
            (json!({"chats":[{"messages":[{"id":"a","content":7}]}]}), "chats[0].messages[0].content"),
            (json!({"chats":[],"memories":[{"content":null}]}), "memories[0].content"),
            (cycle, "chats[0]"),
        ] {
            let refusal = tree(&file).unwrap_err();
            assert!(refusal.message.starts_with(place), "{}", refusal.message);
            assert_eq!(refusal.status.as_u16(), 422);
        }
    }
}
