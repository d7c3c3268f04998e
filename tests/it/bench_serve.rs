//! `bench serve` and `bench compare`: against the own server, and against one that misbehaves.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use super::program::Program;

/// A server that speaks just enough of OpenAI's API, and answers the n-th chat as `behave` says.
struct Foreign {
    url: String,
    n_chats: Arc<AtomicUsize>,
}

/// Status line, and the body piece by piece; the connection closes behind it.
type Behaviour = fn(usize) -> (&'static str, Vec<&'static str>);

impl Foreign {
    /// Threads end with the test's process.
    fn start(behave: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let n_chats = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&n_chats);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                std::thread::spawn(move || answer(stream, &counter, behave));
            }
        });
        Self { url, n_chats }
    }
}

fn answer(stream: TcpStream, n_chats: &AtomicUsize, behave: Behaviour) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while reader.read_line(&mut head).unwrap_or(0) > 2 {}
    let length =
        head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    reader.take(length.unwrap_or(0)).read_to_end(&mut Vec::new()).unwrap();
    let (status, pieces) = if head.starts_with("GET /v1/models ") {
        ("200 OK", vec!["{\"data\":[{\"id\":\"other\"}]}"])
    } else {
        behave(n_chats.fetch_add(1, Ordering::SeqCst))
    };
    let mut stream = stream;
    // The client may be gone already; that is what some tests are about.
    let _ = write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\n\r\n");
    for piece in pieces {
        let _ = stream.write_all(piece.as_bytes());
        let _ = stream.flush();
    }
}

const HELLO: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n";
const REST: &str = "data: {\"choices\":[{\"delta\":{\"content\":\" you\"}}]}\n\ndata: {\"choices\":[],\"usage\":\
                    {\"prompt_tokens\":7,\"completion_tokens\":3},\"timings\":{\"prompt_ms\":2.5,\"prompt_n\":7,\
                    \"predicted_n\":3,\"predicted_ms\":6.0}}\n\ndata: [DONE]\n\n";

fn good(_: usize) -> (&'static str, Vec<&'static str>) {
    ("200 OK", vec![HELLO, REST])
}

#[test]
fn a_foreign_server_is_measured_by_its_own_counts() {
    let server = Foreign::start(good);
    let program = Program::new();
    let args =
        ["bench", "serve", "--url", &server.url, "--concurrency", "1,3", "--num-prompts", "6", "-o", "jsonl"];
    let ran = program.good(&[&args[..], &["--goodput", "ttft:60000"]].concat(), "");
    let rows: Vec<Value> = ran.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(server.n_chats.load(Ordering::SeqCst), 13, "a warm-up and two measurements");
    for (row, concurrency) in rows.iter().zip([1, 3]) {
        assert_eq!(row["max_concurrency"], concurrency);
        assert_eq!((&row["completed"], &row["failed"]), (&6.into(), &0.into()));
        assert_eq!((&row["total_input_tokens"], &row["total_output_tokens"]), (&42.into(), &18.into()));
        assert_eq!(row["server_mean_prompt_ms"], 2.5);
        assert_eq!(row["server_mean_tpot_ms"], 2.0);
        assert_eq!(row["model_id"], "other");
        assert_eq!(row["request_goodput"], row["request_throughput"]);
        assert!(row["mean_ttft_ms"].as_f64().unwrap() <= row["mean_e2el_ms"].as_f64().unwrap());
        assert!(row["problem"].is_null());
    }
}

#[test]
fn a_server_that_breaks_off_in_mid_stream_is_reported_with_what_was_measured() {
    let server = Foreign::start(|i| match i {
        2 => ("200 OK", vec![HELLO, "data: {\"error\":{\"message\":\"out of luck\"}}\n\n"]),
        4 => ("200 OK", vec![HELLO]),
        5 => ("503 Service Unavailable", vec!["{\"error\":{\"message\":\"Loading model\"}}"]),
        i => good(i),
    });
    let program = Program::new();
    let ran = program.run(&["bench", "serve", "--url", &server.url, "--num-prompts", "6", "--no-warmup"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("Successful requests:                     3 "), "{}", ran.stdout);
    assert!(ran.stdout.contains("Failed requests:                         3 "), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("incomplete: 3 of 6 requests failed, the first with: in the stream: out of luck")
    );
    assert!(ran.stdout.contains("TTFT: send to first text."), "{}", ran.stdout);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
}

#[test]
fn requests_of_an_open_loop_come_whether_or_not_the_server_is_done() {
    let server = Foreign::start(good);
    let program = Program::new();
    let args =
        ["bench", "serve", "--url", &server.url, "--rate", "200,400", "--num-prompts", "8", "-o", "html"];
    let html = program.good(&args, "").stdout;
    assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
    assert!(html.contains("200 a second") && html.contains("Distribution of the time to the first token"));
    assert!(!html.contains("http://") || !html.contains("<script"), "one file that fetches nothing");
    for foreign in ["src=", "href=", "@import", "url("] {
        assert!(!html.contains(foreign), "{foreign}");
    }
}

#[test]
fn the_own_server_answers_a_conversation() {
    let program = Program::new();
    let args = ["bench", "serve", "-m", "shape:tiny-llama:Q8_0", "--num-prompts", "2", "--multi-turn", "2"];
    let more = ["--concurrency", "2", "--output-len", "4", "--input-len", "6", "-o", "jsonl"];
    let ran = program.good(&[&args[..], &more].concat(), "");
    let row: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(row["completed"], 4, "two conversations of two turns: {row}");
    assert_eq!(row["total_output_tokens"], 16, "random weights end no answer early");
    assert!(row["total_input_tokens"].as_u64().unwrap() > 4 * 6);
    assert!(row["server_mean_prompt_ms"].as_f64().unwrap() > 0.0);
}

/// The built-in model ends its answers after a sentence or two; asked to go on, it writes as much as is asked for.
#[test]
fn answers_of_a_fixed_length_can_be_asked_for_where_the_server_knows_how() {
    let program = Program::new();
    let args = ["bench", "serve", "--num-prompts", "2", "--output-len", "60", "--no-warmup", "-o", "jsonl"];
    let of = |more: &[&str]| -> Value {
        serde_json::from_str(&program.good(&[&args[..], more].concat(), "").stdout).unwrap()
    };
    let ended = of(&[]);
    assert!(
        ended["total_output_tokens"].as_u64().unwrap() < 120 && ended["short_answers"].is_null(),
        "{ended}"
    );
    let fixed = of(&["--ignore-eos"]);
    assert_eq!((&fixed["total_output_tokens"], &fixed["short_answers"]), (&120.into(), &0.into()), "{fixed}");
    // One that refuses the field is measured without it, and that is said.
    let strict = Foreign::start(|i| match i {
        0 => ("422 Unprocessable Entity", vec!["{\"error\":{\"message\":\"unknown field ignore_eos\"}}"]),
        i => good(i),
    });
    let foreign = program.good(&[&args[..], &["--ignore-eos", "--url", &strict.url]].concat(), "");
    assert!(foreign.stderr.contains("ignore_eos is refused"), "{}", foreign.stderr);
    assert!(foreign.stdout.contains("\"completed\":2") && foreign.stdout.contains("\"short_answers\":null"));
}

#[test]
fn a_load_that_cannot_be_put_is_refused_in_a_line() {
    let program = Program::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let refusing = Foreign::start(good);
    std::fs::write(program.beside("empty.txt"), "\n").unwrap();
    let unreachable = format!("--url http://{nobody}");
    let other = format!("--url {}/elsewhere", refusing.url);
    for (code, args, named) in [
        (1, unreachable.as_str(), "is a server running there?"),
        (1, other.as_str(), "/v1/models"),
        (2, "--url https://example.org", "only http://"),
        (2, "--url nonsense", "--url nonsense: give an address"),
        (2, "--concurrency 0", "--concurrency 0"),
        (2, "--rate -1", "-1"),
        (2, "--rate 0", "--rate 0"),
        (2, "--num-prompts 0", "--num-prompts 0"),
        (2, "--multi-turn 1000", "--multi-turn 1000"),
        (2, "--goodput fast", "--goodput fast"),
        (2, "--timeout 0", "--timeout 0"),
        (2, "--prompts empty.txt", "no prompt in it"),
        (1, "--prompts nowhere.txt", "nowhere.txt"),
        (2, "-o csv", "-o csv"),
        (2, "-m shape:none", "there is no shape"),
    ] {
        let words: Vec<&str> = ["bench", "serve"].into_iter().chain(args.split(' ')).collect();
        let ran = program.run(&words);
        assert_eq!(ran.code, code, "{args}: {ran:?}");
        assert!(ran.stderr.contains(named), "{args}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{args}");
    }
}

/// Results with these speeds, as another program wrote them.
fn results(program: &Program, name: &str, samples: &[f64]) -> String {
    let path = program.beside(name);
    let row = serde_json::json!({"build_commit": "abc", "model_filename": "m.gguf", "n_prompt": 512, "n_gen": 0,
        "n_threads": 2, "samples_ts": samples});
    std::fs::write(&path, row.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn recorded_results_are_compared_with_a_verdict() {
    let program = Program::new();
    let a = results(&program, "a.json", &[100.0, 101.0, 99.0, 100.5, 99.5, 100.2]);
    let b = results(&program, "b.json", &[120.0, 121.0, 119.0, 120.5, 119.5, 120.2]);
    for (x, y, verdict) in [(&a, &b, "**better**"), (&b, &a, "**worse**"), (&a, &a, "no difference seen")] {
        let ran = program.good(&["bench", "compare", x, y], "");
        assert!(ran.stdout.contains(verdict), "{}", ran.stdout);
        assert!(ran.stdout.contains("compared as recorded"), "{}", ran.stdout);
    }
    let other = program.beside("other.json");
    std::fs::write(&other, "{\"n_prompt\":0,\"n_gen\":9,\"samples_ts\":[1.0]}").unwrap();
    let ran = program.run(&["bench", "compare", &a, other.to_str().unwrap()]);
    assert_eq!((ran.code, ran.stderr.contains("no test in common")), (1, true), "{ran:?}");
    std::fs::write(&other, "hello").unwrap();
    assert_eq!(program.run(&["bench", "compare", &a, other.to_str().unwrap()]).code, 3);
    assert_eq!(program.run(&["bench", "compare", &a, "nowhere.json"]).code, 1);
    assert_eq!(program.run(&["bench", "compare", &a, &a, "--pairs", "3"]).code, 2);
}

/// Where a run stands in its pair may make it faster, so neither side may stand second more often.
#[test]
fn as_many_pairs_begin_with_one_side_as_with_the_other() {
    let program = Program::new();
    let log = program.beside("order.log");
    let recorded = results(&program, "x.json", &[100.0]);
    let side = |name: &str| {
        let path = program.beside(name);
        let row = std::fs::read_to_string(&recorded).unwrap();
        let script = format!("#!/bin/sh\nprintf {name} >> '{}'\nprintf '%s' '{row}'\n", log.display());
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (a, b) = (side("A"), side("B"));
    let sides = ["--program-a", a.as_str(), "--program-b", b.as_str(), "--pairs", "12"];
    let ran = program.good(&[&["bench", "compare", &recorded, &recorded][..], &sides].concat(), "");
    assert!(ran.stdout.contains("12 pairs of runs in turns"), "{}", ran.stdout);
    let order = std::fs::read_to_string(&log).unwrap();
    let pairs: Vec<&str> =
        order.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap()).collect();
    let count = |order: &str| pairs.iter().filter(|pair| **pair == order).count();
    assert_eq!((pairs.len(), count("AB"), count("BA")), (12, 6, 6), "{order}");
}

#[test]
fn results_of_this_program_are_measured_again_in_turns() {
    let program = Program::new();
    let args = [
        "bench",
        "-m",
        "shape:tiny-llama:Q8_0",
        "-p",
        "4",
        "-n",
        "0",
        "-r",
        "2",
        "--no-limits",
        "-o",
        "json",
    ];
    let file = program.beside("x.json");
    std::fs::write(&file, program.good(&args, "").stdout).unwrap();
    let file = file.to_str().unwrap();
    let ran = program.good(&["bench", "compare", file, file, "--pairs", "10", "-o", "json"], "");
    let compared: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(compared["interleaved"], true, "{compared}");
    let row = &compared["rows"][0];
    assert_eq!(row["test"], "pp4");
    assert_eq!(
        (row["a_samples"].as_array().unwrap().len(), row["b_samples"].as_array().unwrap().len()),
        (10, 10)
    );
    let (low, high) = (row["low"].as_f64().unwrap(), row["high"].as_f64().unwrap());
    assert!(low <= row["ratio"].as_f64().unwrap() && row["ratio"].as_f64().unwrap() <= high);
}
