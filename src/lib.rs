//! MommyGPT: a family's chat engine in one binary.
//!
//! It keeps accounts, chats and messages in an embedded store, runs a quantized language model on this machine as a
//! caring parent, and serves a small web page and an HTTP API. Nothing a person types leaves the box.
//!
//! # The map
//!
//! Imports point down only; `tests/it/tidy.rs` enforces the table.
//!
//! | layer | room | what it does | what it must not know |
//! |---|---|---|---|
//! | 6 | `main`, `commands` | what each verb does and prints; in the binary, not in this library | - |
//! | 5 | `config`, `cli` | flags, environment and file into one validated `Config` | - |
//! | 4 | `web` | the only code that speaks HTTP and JSON | redb, candle |
//! | 4 | `hub` | model files: pull, import, verify, list; what tries a new one first | HTTP handlers |
//! | 4 | `terminal` | a conversation in the terminal, of which nothing is stored | the store, HTTP |
//! | 3 | `bench` | measures engine, machine and servers; for the command `bench` and for `doctor` | users, the store |
//! | 3 | `chat` | the product: what happens when somebody writes to their parent | HTTP, JSON |
//! | 3 | `auth` | sign-up, sign-in, limits on guessing | chats |
//! | 2 | `store` | the only code that knows redb and encryption at rest | HTTP, the engine |
//! | 2 | `engine` | makes a model generate, fairly, for several people | HTTP, users, the store |
//! | 2 | `text` | strings to token ids and back | forward passes |
//! | 1 | `model` | token ids in, logits out | text, sampling, users |
//! | 0 | `domain` | ids, titles, roles, people, chats, messages: parse, no I/O | everything above |
//! | 0 | `kernels` | plain functions on slices: the arithmetic, chosen for the CPU at hand | models, tokens, tensors |
//!
//! Three departures from the first drawing. `text` has a BPE of its own, made to stay nearly linear in the text, because a
//! person may paste one unbroken run, on which general tokenizers are reported to slow down.
//! `hub` speaks HTTP by itself, over the blocking `ureq`: hf-hub 1.0 neither resumes nor checks a
//! SHA-256 over plain HTTP, and brings 115 crates, a second redb and a C crypto library. Keys and values are kept as 16-bit
//! integers with a scale per head and position, not as f16: as near to exact logits, and attention over many rows is 1.6 times
//! as fast (`kernels::words`); `--kv f16` is still there.
//!
//! # A message's way through the house
//!
//! `web` parses the request; `chat` appends the person's message to the `store`, durable before any byte of the
//! answer; `chat::prompt` takes persona, memories and the newest whole exchanges that fit; `text` renders the model's
//! own chat template to token ids, with control tokens coming only from the template; `engine` queues it fairly by
//! person, and its one inference thread prefills in chunks and decodes; each token becomes text through the
//! detokenizer, deltas go to the generation's log and from there to every device that listens. The generation belongs
//! to the server, not to a socket. When it ends, the reply and its reason are written in the same transaction as the
//! chat's `updated_at`.

pub mod auth;
pub mod bench;
pub mod chat;
pub mod cli;
pub mod config;
pub mod domain;
pub mod engine;
pub mod hub;
pub mod kernels;
pub mod model;
pub mod store;
pub mod terminal;
pub mod text;
pub mod web;
