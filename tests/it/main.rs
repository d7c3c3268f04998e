//! The one integration binary; this file is its table of contents.

#![allow(clippy::unwrap_used, reason = "what a test calls may panic as the test itself may")]

mod app; // the real server in this process, on a port of its own
mod architectures; // what architectures add to a plain llama
mod auth; // accounts through `Auth` on a real store: who gets in, what it costs, what ends when
mod authz_matrix; // every route, every id, every kind of caller
mod bench; // the command bench: names and numbers of llama-bench, bad input, partial results
mod bench_serve; // bench serve and bench compare: the own server, and one that misbehaves
mod browser; // the page in a real Chromium: its own suite in tests/browser
mod chat; // the chat service: durable first, stop, resume, retries, siblings, devices, memory, danger
mod chat_house; // a chat service with everything under it, for tests of what happens in it
mod cli; // what the real binary prints, refuses and exits with
mod cli_text; // tokenize, prompt, safety, run and the model verbs
mod client; // a plain-socket HTTP client
mod engine; // the engine on a scripted model: fairness, bounds, cancelling, warm sequences
mod engine_builtin; // the engine on the built-in model: texts depend on prompts alone
mod engine_faults; // the engine when a step, the model or a load breaks, and when it ends
mod fixtures; // where files outside the repository are
mod generations; // what tests of the engine ask of it and hear from it
mod gguf_hostile; // model files that lie are refused in words
mod gguf_mutated; // two thousand damaged model files, tried in processes of their own
mod gguf_writer; // writes small GGUF files for other tests
mod hub; // the folder of models
mod hub_double; // a server that plays the hub that models come from
mod kept_pages; // a chat goes on after a restart from what was kept on disk
mod kernel_classes; // every class of kernels inside whole models, and that it is the one that runs
mod kill9; // a killed server has lost nothing that it acknowledged
mod model_files; // models in several files, and changed while they are in use
mod oracle; // logits of rarer architectures against llama.cpp's
mod parity; // logits of every architecture and quantization against llama.cpp's
mod program; // the real binary, in a directory and an environment of its own
mod pull; // `pull` from that server, faults included
mod read_ahead; // the next prompt is read before anybody writes, where thoughts are dropped
mod safety; // the crisis check on held-out cases, and what it must never miss
mod script; // a model that says what a test over HTTP tells it to
mod scripted_model; // a fake at the Model trait, whose steps the test can hold
mod store; // what the store promises: accounts, sessions, chats, isolation, deletion, transfer
mod store_arrivals; // many write at once, over the journal
mod store_disk; // a disk in memory that fails when told to
mod store_faults; // the disk fails, the power is cut: nothing acknowledged is lost
mod store_files; // damaged and foreign files, permissions, backup and restore
mod store_kv; // what models made of chats, kept on disk
mod store_model; // the store against a plain map
mod store_people; // accounts for tests of the store
mod stories; // greedy text of trained models, token by token
mod switch; // another model takes over; an idle one is unloaded
mod templates; // chat templates of real models, hostile templates, and what a person cannot write
mod terminal; // `run` without a terminal: one message in, one answer out
mod tidy; // the house rules: imports, sizes, unsafe, names
mod vocab; // tokenizers against the reference ids of real vocabularies
mod vocab_rules; // and against rules that no real vocabulary at hand has
mod web_chat; // writing to the parent over HTTP
mod web_edge; // what every request passes and every answer carries
mod web_memory_model; // facts that an instruction model finds
mod web_ollama;
mod web_openai;
mod web_openai_forms; // `/v1` in OpenAI's shapes
mod web_server; // sockets that behave badly, proxies, the end
mod web_tls; // the page over TLS, signed by this machine's own authority
