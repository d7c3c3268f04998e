//! The house rules that a compiler does not know: who may import whom, how long a file may be, where `unsafe` may
//! stand, and which names no folder may have.

use std::fs;
use std::path::{Path, PathBuf};

const MAX_LINES: usize = 500;

/// Which rooms a room may name in `use crate::` paths. `main.rs`, `lib.rs`, `cli`, `config` stand above all.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("kernels", &[]),
    ("domain", &[]),
    ("model", &["kernels"]),
    ("text", &["model"]),
    ("engine", &["model", "text"]),
    ("store", &["domain"]),
    ("auth", &["store", "domain"]),
    ("chat", &["engine", "text", "store", "domain"]),
    ("web", &["chat", "auth", "store", "engine", "domain"]),
    ("terminal", &["chat", "engine", "text", "domain"]),
    ("hub", &["model", "config"]),
    ("bench", &["engine", "text", "model", "kernels"]),
];

/// Crates that only the named rooms may name.
const ALONE: &[(&str, &[&str])] = &[
    ("candle_core", &["model"]),
    ("candle_nn", &["model"]),
    ("candle_transformers", &["model"]),
    // Pages without a file only: a file that is shortened while mapped kills the process; `model::weights` reads.
    ("memmap2", &["kernels"]),
    ("tokenizers", &["text"]),
    ("minijinja", &["text"]),
    ("redb", &["store"]),
    ("chacha20poly1305", &["store"]),
    ("argon2", &["auth"]),
    ("governor", &["auth"]),
    ("axum", &["web"]),
    ("hyper", &["web", "bench"]),
    ("hf_hub", &["hub"]),
    ("indicatif", &["hub"]),
    ("uuid", &["domain"]),
    ("llguidance", &["engine"]),
    ("toktrie", &["engine"]),
];

const FORBIDDEN_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "common", "misc", "types"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_under(dir: &Path, extensions: &[&str], out: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !path.ends_with("node_modules") && !path.ends_with("vendor") && !path.ends_with(".venv") {
                files_under(&path, extensions, out);
            }
        } else if path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x)) {
            out.push(path);
        }
    }
}

fn sources(dirs: &[&str], extensions: &[&str]) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    for dir in dirs {
        files_under(&root().join(dir), extensions, &mut paths);
    }
    assert!(!paths.is_empty(), "nothing found under {dirs:?}");
    paths
        .into_iter()
        .map(|p| {
            let name = p.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
            let text = fs::read_to_string(&p).unwrap_or_else(|e| panic!("{name}: {e}"));
            (name, text)
        })
        .collect()
}

/// The room of a file under `src/`: its folder, or its own name.
fn room(file: &str) -> &str {
    let inside = file.strip_prefix("src/").unwrap_or(file);
    inside.split(['/', '.']).next().unwrap_or(inside)
}

/// The code without line comments, so that a sentence may name what the code may not.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, l)| (i + 1, l)).filter(|(_, l)| !l.trim_start().starts_with("//"))
}

/// Every word that follows `prefix` in a line: `crate::store::X` gives `store`.
fn words_after<'a>(line: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(prefix).map(move |(at, _)| {
        let rest = &line[at + prefix.len()..];
        &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())]
    })
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for (file, text) in sources(&["src"], &["rs"]) {
        let room = room(&file).to_owned();
        let Some((_, allowed)) = MAY_KNOW.iter().find(|(name, _)| *name == room) else { continue };
        for (line_no, line) in code_lines(&text) {
            for target in words_after(line, "crate::") {
                let is_room = MAY_KNOW.iter().any(|(name, _)| *name == target);
                if is_room && target != room && !allowed.contains(&target) {
                    wrong.push(format!("{file}:{line_no}: {room} may not know {target}"));
                }
                if ["cli", "config"].contains(&target) && !allowed.contains(&target) && room != target {
                    wrong.push(format!("{file}:{line_no}: {room} may not know {target}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that point up:\n{}", wrong.join("\n"));
}

#[test]
fn a_crate_has_one_home() {
    let mut wrong = Vec::new();
    for (file, text) in sources(&["src"], &["rs"]) {
        let room = room(&file);
        for (line_no, line) in code_lines(&text) {
            for (krate, homes) in ALONE {
                let named = line.match_indices(krate).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    let fresh =
                        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '"');
                    fresh && line[at + krate.len()..].starts_with("::")
                });
                if named && !homes.contains(&room) {
                    wrong.push(format!("{file}:{line_no}: {krate} belongs to {homes:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "crates away from home:\n{}", wrong.join("\n"));
}

#[test]
fn every_room_is_on_the_map() {
    let map = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let free = ["main", "lib"];
    let mut rooms: Vec<String> = sources(&["src"], &["rs"]).iter().map(|(f, _)| room(f).to_owned()).collect();
    rooms.sort();
    rooms.dedup();
    for room in rooms.iter().filter(|r| !free.contains(&r.as_str())) {
        assert!(map.contains(&format!("`{room}`")), "src/lib.rs does not say what `{room}` is for");
    }
}

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    for (file, text) in sources(&["src", "tests", "benches", "assets"], &["rs", "js", "mjs", "css", "html"]) {
        let n_lines = text.lines().count();
        if n_lines > MAX_LINES {
            long.push(format!("{file}: {n_lines} lines; split it by what it does (limit {MAX_LINES})"));
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn unsafe_stands_in_one_place() {
    for (file, text) in sources(&["src"], &["rs"]) {
        let allowed = file.starts_with("src/kernels/");
        for (line_no, line) in code_lines(&text) {
            let has = words_after(line, "unsafe").next().is_some()
                && line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "unsafe");
            assert!(allowed || !has, "{file}:{line_no}: unsafe outside src/kernels");
        }
    }
}

#[test]
fn only_config_reads_the_environment_and_only_main_exits() {
    for (file, text) in sources(&["src"], &["rs"]) {
        for (line_no, line) in code_lines(&text) {
            let reads = ["env::var(", "env::var_os(", "env::vars("].iter().any(|w| line.contains(w));
            assert!(
                !reads || room(&file) == "config",
                "{file}:{line_no}: config.rs alone reads the environment"
            );
            let exits = line.contains("process::exit(");
            assert!(!exits || file == "src/main.rs", "{file}:{line_no}: main alone exits");
        }
    }
}

#[test]
fn no_grab_bags_and_no_loose_ends() {
    // Spelled apart, so that this file does not find itself.
    let open_ends = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("#[ig", "nore"),
    ];
    for (file, text) in
        sources(&["src", "tests", "benches", "assets"], &["rs", "js", "mjs", "css", "html", "md", "toml"])
    {
        for part in file.split(['/', '.']) {
            assert!(!FORBIDDEN_NAMES.contains(&part), "{file}: `{part}` says nothing about what is inside");
        }
        for word in open_ends {
            assert!(!text.contains(word), "{file}: finish what `{word}` marks, or say it in the tracker");
        }
    }
}

#[test]
fn the_top_level_is_as_drawn() {
    let drawn = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "CHANGELOG.md",
        "src",
        "models",
        "assets",
        "benches",
        "tests",
    ];
    let configuration = ["clippy.toml", "deny.toml", "rust-toolchain.toml", "rustfmt.toml", "target"];
    for entry in fs::read_dir(root()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let known =
            name.starts_with('.') || drawn.contains(&name.as_str()) || configuration.contains(&name.as_str());
        assert!(known, "`{name}` has no place at the top level");
    }
    for name in drawn {
        assert!(root().join(name).exists(), "`{name}` is missing at the top level");
    }
}
