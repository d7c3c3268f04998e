//! `tokenize`, `prompt`, `safety`, `run` and the model verbs: what goes in and what comes out.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program::{Program, finish};

const MESSAGES: &str = r#"[{"role":"user","content":"Good <b>night</b>"}]"#;

fn builtin_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mommy.gguf")
}

#[test]
fn text_becomes_ids_on_one_line_and_typed_control_tokens_stay_text() {
    let program = Program::new();
    let ids = |args: &[&str], text: &str| {
        let ran = program.good(&[&["tokenize", "-m", "builtin"], args].concat(), text);
        assert_eq!(ran.stdout.matches('\n').count(), 1, "{ran:?}");
        ran.stdout.split_whitespace().map(|id| id.parse::<u32>().unwrap()).collect::<Vec<_>>()
    };
    let plain = ids(&["--no-special"], "Good night, little one.");
    assert!(!plain.is_empty());
    let marked = ids(&["--no-special"], "<|im_start|>");
    assert!(marked.len() > 1, "a typed control token became one: {marked:?}");
    assert!(ids(&[], "Good night, little one.").ends_with(&plain));
    assert_eq!(ids(&["--no-special"], ""), Vec::<u32>::new());
    // The same vocabulary under a path.
    let path = builtin_file();
    let by_path =
        program.good(&["tokenize", "-m", path.to_str().unwrap(), "--no-special"], "Good night, little one.");
    let by_path: Vec<u32> = by_path.stdout.split_whitespace().map(|id| id.parse().unwrap()).collect();
    assert_eq!(by_path, plain);
}

#[test]
fn a_prompt_is_rendered_byte_for_byte() {
    let program = Program::new();
    let asked = program.good(&["prompt", "-m", "builtin"], MESSAGES).stdout;
    let unasked = program.good(&["prompt", "-m", "builtin", "--no-generation-prompt"], MESSAGES).stdout;
    assert!(asked.starts_with(&unasked) && asked.len() > unasked.len(), "{asked:?} {unasked:?}");
    assert!(unasked.contains("Good <b>night</b>"));

    let template = program.beside("t.jinja");
    let source = "{{ bos_token }}{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}\
                  {{ strftime_now('%Y-%m-%d') }}{% if add_generation_prompt %}>{% endif %}{{ eos_token }}";
    fs::write(&template, source).unwrap();
    let path = template.to_str().unwrap();
    let mut command = program.command(&["prompt", "--template", path, "--bos", "<s>", "--eos", "</s>"]);
    command.env("SOURCE_DATE_EPOCH", "86400");
    let ran = finish(command, MESSAGES);
    assert_eq!(ran.stdout, "<s>user=Good <b>night</b>;1970-01-02></s>", "{ran:?}");
    for (stdin, code) in [("not json", 1), ("{}", 1), ("", 1)] {
        assert_eq!(program.run_with(&["prompt", "--template", path], stdin).code, code, "{stdin}");
    }
    fs::write(&template, "{% for").unwrap();
    let broken = program.run_with(&["prompt", "--template", path], MESSAGES);
    assert_eq!(broken.code, 1, "{broken:?}");
}

#[test]
fn the_crisis_check_answers_each_line() {
    let program = Program::new();
    let lines = "I want to kill myself\nWhat shall we cook tonight?\n\nno newline at the end";
    let ran = program.good(&["safety"], lines);
    let answers: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(answers.len(), 4, "{ran:?}");
    assert!(answers[0].starts_with("card\t") && answers[0].len() > 5, "{ran:?}");
    assert_eq!(&answers[1..], ["none"; 3], "{ran:?}");
    assert_eq!(program.good(&["safety"], "").stdout, "");
}

#[test]
fn models_are_taken_in_listed_shown_verified_and_removed() {
    let program = Program::new();
    let file = program.beside("small.gguf");
    fs::copy(builtin_file(), &file).unwrap();
    program.good(&["import", file.to_str().unwrap()], "");
    let list = program.good(&["list"], "").stdout;
    assert!(list.contains("small.gguf") && list.contains("builtin"), "{list}");
    let shown = program.good(&["show", "small"], "").stdout;
    for what in ["llama", "parameters", "context"] {
        assert!(shown.contains(what), "{what}: {shown}");
    }
    assert!(program.good(&["verify", "small"], "").stdout.contains("It is what was imported."));
    assert!(program.good(&["verify", "builtin"], "").stdout.contains("It is what was imported."));
    let again = program.run(&["import", file.to_str().unwrap()]);
    assert_eq!(again.code, 1, "{again:?}");
    fs::write(program.data().join("models/small.gguf.sha256"), "00  small.gguf\n").unwrap();
    assert_eq!(program.run(&["verify", "small"]).code, 3);
    program.good(&["rm", "small"], "");
    for name in ["small", "builtin", "../config"] {
        assert_eq!(program.run(&["rm", name]).code, 1, "{name}");
    }
}

#[test]
fn what_is_no_model_is_3_everywhere_and_a_missing_one_is_1() {
    let program = Program::new();
    let bytes = fs::read(builtin_file()).unwrap();
    let mut wrong_architecture = bytes.clone();
    let at = bytes.windows(5).position(|w| w == b"llama").unwrap();
    wrong_architecture[at..at + 5].copy_from_slice(b"mamba");
    let mut without_a_tensor = bytes.clone();
    let at = bytes.windows(18).position(|w| w == b"output_norm.weight").unwrap();
    without_a_tensor[at..at + 18].copy_from_slice(b"output_gone.weight");
    for (name, bytes) in [
        ("text.gguf", b"this is no model".to_vec()),
        ("short.gguf", bytes[..bytes.len() / 2].to_vec()),
        ("header.gguf", bytes[..1000].to_vec()),
        ("empty.gguf", Vec::new()),
        ("mamba.gguf", wrong_architecture),
        ("no-norm.gguf", without_a_tensor),
    ] {
        let path = program.beside(name);
        fs::write(&path, bytes).unwrap();
        let path = path.to_str().unwrap();
        for args in [
            &["serve", "--port", "0", "-m", path][..],
            &["run", "-m", path, "hello"],
            &["import", path],
            &["show", path],
        ] {
            // What only loading the weights can find, `show` does not look for.
            if name == "no-norm.gguf" && args[0] == "show" {
                continue;
            }
            let mut command = program.command(args);
            command.env("RUST_LOG", "off");
            let ran = finish(command, "");
            assert_eq!(ran.code, 3, "{args:?}: {ran:?}");
            assert!(ran.stderr.contains(name), "{args:?}: {ran:?}");
            assert_eq!(ran.stderr.lines().count(), 1, "{args:?}: {ran:?}");
        }
    }
    let ran = program.run(&["run", "-m", "nowhere", "hello"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("nowhere") && ran.stderr.contains("mommygpt list"), "{ran:?}");
}

#[test]
fn perplexity_is_computed_over_windows_and_logits_are_written() {
    let program = Program::new();
    let text = program.beside("text.txt");
    fs::write(&text, "Good night, little one. The moon is up and the house is quiet. ".repeat(20)).unwrap();
    let (text, npy) = (text.to_str().unwrap(), program.beside("logits.npy"));
    let ran = program.good(&["perplexity", "-m", "builtin", text, "-c", "64"], "");
    let last = ran.stdout.lines().last().unwrap();
    let value = last.strip_prefix("Final estimate: PPL = ").unwrap().split(' ').next().unwrap();
    let value: f64 = value.parse().unwrap();
    assert!(value > 1.0 && value < 4096.0, "{ran:?}");

    let ids: Vec<String> = (100..120).map(|id| id.to_string()).collect();
    let args = ["perplexity", "-m", "builtin", "--ids", "-c", "64", "--logits", npy.to_str().unwrap()];
    program.good(&args, &ids.join(" "));
    let bytes = fs::read(&npy).unwrap();
    let logits = npyz::NpyFile::new(&bytes[..]).unwrap();
    assert_eq!(logits.shape(), [20, 4096]);
    let values: Vec<f32> = logits.into_vec().unwrap();
    assert!(values.iter().all(|x| x.is_finite()));
    assert!(values[..4096].iter().any(|x| (x - values[0]).abs() > 1e-3));

    let few = program.run(&["perplexity", "-m", "builtin", text, "-c", "512"]);
    assert_eq!(few.code, 1, "{few:?}");
    assert_eq!(program.run_with(&args, "1 2 x").code, 1);
    assert_eq!(program.run_with(&args, "1 2 3 999999").code, 1);
}

#[test]
fn one_message_gets_one_answer_on_stdout_and_nothing_is_stored() {
    let program = Program::new();
    let ran = program.good(&["run", "-c", "256", "I had a bad day"], "");
    assert!(!ran.stdout.trim().is_empty(), "{ran:?}");
    let ran = program.good(&["run", "-c", "256"], "I had a bad day\n");
    assert!(!ran.stdout.trim().is_empty(), "{ran:?}");
    assert!(!program.data().exists());
}
