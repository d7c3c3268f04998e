//! `bench`: agreement with llama-bench where engines cannot differ, its formats, and what bad input gets.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::Command;

use mommygpt::bench::description::Description;
use mommygpt::bench::shape;
use mommygpt::model::{Gguf, ModelConfig};
use mommygpt::text::TextModel;
use serde_json::Value;

use super::fixtures::fixture;
use super::program::{Program, Ran};

/// A bench that ends at once, also in a debug build.
const SHORT: [&str; 8] = ["bench", "-m", "shape:tiny-llama:Q4_K_M", "-p", "8", "-n", "4", "-r"];

fn short(program: &Program, more: &[&str]) -> Ran {
    program.good(&[&SHORT, more].concat(), "")
}

fn bytes(gguf: &Gguf) -> Vec<u8> {
    let mut all = Vec::new();
    gguf.read_through(|piece| all.extend(piece)).unwrap();
    all
}

fn describe(gguf: &Gguf) -> Description {
    Description::of(gguf, &ModelConfig::from_gguf(gguf, None).unwrap())
}

/// Rows that people have published of llama-bench on files made by `llama-quantize`: model, size and parameters.
#[test]
fn shapes_have_the_size_and_parameters_that_llama_bench_prints_of_such_files() {
    for (name, model_type, size, n_params) in [
        ("qwen3-0.6b", "qwen3 0.6B Q4_K - Medium", "372.65 MiB", "596.05 M"),
        ("qwen3-1.7b", "qwen3 1.7B Q4_K - Medium", "1.03 GiB", "1.72 B"),
        ("qwen3-4b", "qwen3 4B Q4_K - Medium", "2.32 GiB", "4.02 B"),
        ("llama-3.2-1b", "llama 1B Q4_K - Medium", "762.81 MiB", "1.24 B"),
        ("llama-3.2-3b", "llama 3B Q4_K - Medium", "1.87 GiB", "3.21 B"),
        ("qwen2.5-0.5b", "qwen2 1B Q4_K - Medium", "373.71 MiB", "494.03 M"),
        ("gemma-3-270m", "gemma3 270M Q4_K - Medium", "235.16 MiB", "268.10 M"),
        ("gemma-3-1b", "gemma3 1B Q4_K - Medium", "762.49 MiB", "999.89 M"),
        ("smollm2-135m", "llama 256M Q4_K - Medium", "98.87 MiB", "134.52 M"),
    ] {
        let of = describe(&shape::outline(&format!("shape:{name}:Q4_K_M")).unwrap());
        let printed = (mommygpt::bench::report::size(of.size), mommygpt::bench::report::params(of.n_params));
        assert_eq!(of.model_type, model_type, "{name}");
        assert_eq!(printed, (size.to_owned(), n_params.to_owned()), "{name}");
    }
    // To the byte, as llama.cpp's library says of files that it quantized itself.
    for (name, size, n_params) in [
        ("qwen3-0.6b:Q4_K_M", 390_753_280, 596_049_920),
        ("smollm2-135m:Q4_K_M", 103_668_480, 134_515_008),
        ("gemma-3-270m:Q4_K_M", 246_587_904, 268_098_176),
        ("gemma-3-270m:Q3_K_M", 235_436_544, 268_098_176),
        ("gemma-3-270m:Q5_K_M", 253_499_904, 268_098_176),
        ("gemma-3-270m:Q4_0", 234_883_584, 268_098_176),
        ("gemma-3-270m:Q8_0", 285_018_624, 268_098_176),
    ] {
        let exact = describe(&shape::outline(&format!("shape:{name}")).unwrap());
        assert_eq!((exact.size, exact.n_params), (size, n_params), "{name}");
    }
    let builtin =
        describe(&Gguf::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mommy.gguf")).unwrap());
    assert_eq!(builtin.model_type, "llama ?B Q8_0", "the file says its type itself");
    assert_eq!((builtin.size, builtin.n_params), (7_955_456, 7_475_456));
}

/// Its loader sums over tensors, and guesses for a file without `general.file_type`.
#[test]
fn files_are_described_as_llama_cpp_describes_them() {
    for (file, model_type) in [
        ("llama-Q4_K_M.gguf", "llama ?B Q4_K - Medium"),
        ("qwen3-Q8_0.gguf", "qwen3 ?B Q8_0"),
        ("llama-F32.gguf", "llama ?B (guessed) all F32"),
    ] {
        let Some(path) = fixture(&format!("parity/{file}")) else { return };
        let gguf = Gguf::open(&path).unwrap();
        let of = describe(&gguf);
        assert_eq!(of.model_type, model_type, "{file}");
        assert_eq!(of.size, gguf.tensors().map(|t| t.size_bytes() as u64).sum::<u64>());
        assert_eq!(of.is_quantized, !file.contains("F32"), "{file}");
    }
}

#[test]
fn a_generated_model_is_the_same_every_time_and_has_a_tokenizer_of_full_size() {
    let [one, two] = [(); 2].map(|()| shape::generate("shape:tiny-qwen3:Q4_K_M").unwrap());
    assert!(bytes(&one) == bytes(&two));
    let text = TextModel::from_gguf(&one).unwrap();
    let ids = text.tokenizer.encode_plain("hello", true).unwrap();
    assert_eq!(ids.len(), 5, "a byte each: {ids:?}");
    for quant in ["F32", "F16", "BF16", "Q4_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_M", "Q5_K_S", "Q6_K"] {
        shape::generate(&format!("shape:tiny-llama:{quant}")).unwrap();
    }
}

#[test]
fn the_table_is_llama_benchs() {
    let program = Program::new();
    let ran = short(&program, &["1"]);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(
        lines[0],
        "| model                          |       size |     params | backend    | threads |            test |                  t/s |"
    );
    assert_eq!(
        lines[1],
        "| ------------------------------ | ---------: | ---------: | ---------- | ------: | --------------: | -------------------: |"
    );
    assert!(
        lines[2].starts_with("| llama ?B Q4_K - Medium         |   1.37 MiB |     2.23 M | CPU        | "),
        "{}",
        lines[2]
    );
    assert!(lines[2].contains(" |             pp8 | ") && lines[2].ends_with(" ± 0.00 |"), "{}", lines[2]);
    assert!(lines[3].contains(" |             tg4 | "), "{}", lines[3]);
    assert_eq!((lines[4], lines[5]), ("", "build: mommygpt-0.1.0 (0)"));
}

#[test]
fn json_and_csv_have_llama_benchs_fields_in_its_order_and_ours_behind() {
    let program = Program::new();
    let theirs = "build_commit,build_number,cpu_info,gpu_info,backends,model_filename,model_type,model_size,\
                  model_n_params,n_batch,n_ubatch,n_threads,cpu_mask,cpu_strict,poll,type_k,type_v,n_gpu_layers,\
                  split_mode,main_gpu,no_kv_offload,flash_attn,tensor_split,use_mmap,embeddings,n_prompt,n_gen,n_depth,\
                  test_time,avg_ns,stddev_ns,avg_ts,stddev_ts,ttft_ms,peak_rss,bw_gbps,roofline_pct,tokens_hash,\
                  model_sha256,rustc,target_features,";
    let csv = short(&program, &["2", "-o", "csv", "-oe", "jsonl"]);
    assert!(csv.stdout.starts_with(theirs), "{}", csv.stdout);
    assert_eq!(csv.stdout.lines().count(), 3);
    let rows: Vec<Value> =
        csv.stderr.lines().filter(|l| l.starts_with('{')).map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(rows.len(), 2);
    let keys: Vec<&str> = rows[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert!(keys.join(",").starts_with(theirs), "{keys:?}");
    for row in &rows {
        let samples = |key: &str| -> Vec<f64> {
            row[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
        };
        let n_tokens = (row["n_prompt"].as_f64().unwrap() + row["n_gen"].as_f64().unwrap()) * 1e9;
        for (ns, ts) in samples("samples_ns").iter().zip(samples("samples_ts")) {
            assert!((n_tokens / ns - ts).abs() < 1e-5 * ts, "{ns} {ts}");
        }
        assert_eq!(samples("samples_ns").len(), 2);
        assert_eq!(row["valid"], true);
        assert_eq!(row["model_sha256"].as_str().unwrap().len(), 64);
        assert!(row["bw_gbps"].as_f64().unwrap() > 0.0 && row["roofline_pct"].as_f64().unwrap() > 0.0);
        assert!(row["peak_rss"].as_u64().unwrap() > 1 << 20);
    }
    let json = short(&program, &["1", "-o", "json"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 2);
    assert_eq!(json[0]["tokens_hash"], rows[0]["tokens_hash"], "the same tokens in another process");
}

#[test]
fn tokens_are_checked_against_a_reference() {
    let program = Program::new();
    let (file, other) = (program.beside("reference.json"), program.beside("other.json"));
    let json = short(&program, &["1", "-o", "json"]).stdout;
    std::fs::write(&file, &json).unwrap();
    let rows: Value = serde_json::from_str(&json).unwrap();
    std::fs::write(&other, json.replace(rows[1]["tokens_hash"].as_str().unwrap(), "0123456789abcdef"))
        .unwrap();
    short(&program, &["1", "--reference", file.to_str().unwrap()]);
    let ran = program.run(&[&SHORT[..], &["1", "--reference", other.to_str().unwrap()]].concat());
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("invalid: tg4: other tokens ("), "{}", ran.stdout);
    assert!(ran.stderr.contains("1 of the rows are invalid"), "{}", ran.stderr);
    // A test that the reference lacks is not called right.
    let ran =
        program.good(&[&SHORT[..], &["1", "-d", "8", "--reference", file.to_str().unwrap()]].concat(), "");
    assert!(ran.stderr.contains("not checked"), "{}", ran.stderr);
}

#[test]
fn the_clock_costs_less_than_a_thousandth_and_that_is_said() {
    let program = Program::new();
    let ran = short(&program, &["1", "-oe", "jsonl"]);
    assert!(ran.stdout.contains("timer: at most 0.0"), "{}", ran.stdout);
    for line in ran.stderr.lines().filter(|l| l.starts_with('{')) {
        let row: Value = serde_json::from_str(line).unwrap();
        let percent = row["timer_pct"].as_f64().unwrap();
        assert!(percent > 0.0 && percent < 0.1, "{row}");
    }
}

/// Somebody presses Ctrl-C while the second of two tests runs, which would take minutes.
#[test]
fn an_interrupt_loses_nothing_that_was_measured() {
    let program = Program::new();
    let interrupted = |format: &str| {
        let mut command = program.command(&["bench", "-m", "shape:tiny-llama:Q4_K_M", "-o", format]);
        command.args(["-p", "8", "-n", "1000", "-r", "50", "--no-warmup", "--no-limits", "--progress"]);
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("mommygpt: test 2/2") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "it ended by itself");
        }
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{rest}");
        assert!(rest.contains("interrupted: 1 of 2 tests"), "{rest}");
        String::from_utf8(output.stdout).unwrap()
    };
    let rows: Value = serde_json::from_str(&interrupted("json")).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!((rows[0]["n_prompt"].as_u64(), rows[0]["valid"].as_bool()), (Some(8), Some(true)));
    assert_eq!(rows[0]["samples_ns"].as_array().unwrap().len(), 50);
    // Whether a repetition of the second was over in time is chance.
    assert!(
        rows[1..].iter().all(|row| row["invalid_reason"].as_str().unwrap().contains("interrupted after"))
    );
    assert!(rows.last().unwrap()["interrupted"].as_str().unwrap().contains("1 of 2 tests"), "{rows:?}");
    let html = interrupted("html");
    assert!(
        html.starts_with("<!doctype html>")
            && html.ends_with(
                "</html>
"
            ),
        "{html}"
    );
    assert!(html.contains("pp8") && html.contains("interrupted: 1 of 2 tests"), "{html}");
    assert!(interrupted("md").contains(
        "
incomplete: interrupted: 1 of 2 tests"
    ));
}

#[test]
fn a_machines_page_has_its_charts_and_tables() {
    let program = Program::new();
    let html = program.good(&["bench", "machine", "-o", "html"], "").stdout;
    assert!(html.starts_with("<!doctype html>") && html.matches("<svg").count() == 2, "{html}");
    assert!(html.contains("4K pages") && html.contains("int8 scalar"));
    let svg = program.good(&["bench", "machine", "-o", "svg"], "").stdout;
    assert!(svg.starts_with("<svg") && svg.matches("<title>").count() == 2);
}

#[test]
fn sequences_at_once_and_depths_multiply() {
    let program = Program::new();
    let args = [
        "bench",
        "-m",
        "shape:tiny-qwen3:Q8_0",
        "-p",
        "0",
        "-n",
        "2",
        "-d",
        "0-8+8",
        "-np",
        "1,3",
        "-r",
        "1",
    ];
    let ran = program.good(&[&args[..], &["-o", "jsonl", "-ub", "5"]].concat(), "");
    let rows: Vec<Value> = ran.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let of = |key: &str| rows.iter().map(|r| r[key].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(of("n_seqs"), [1, 1, 3, 3]);
    assert_eq!(of("n_depth"), [0, 8, 0, 8]);
    // Three sequences read the weights once, and the keys and values of three.
    let ns = |i: usize| rows[i]["avg_ns"].as_f64().unwrap();
    let read = |i: usize| rows[i]["bw_gbps"].as_f64().unwrap() * ns(i);
    assert!(read(1) > read(0) && read(2) > read(0) && read(2) < 1.5 * read(0));
}

#[test]
fn a_shape_can_be_saved_for_other_engines() {
    let program = Program::new();
    let file = program.beside("tiny.gguf");
    let path = file.to_str().unwrap();
    let args = ["bench", "-m", "shape:tiny-llama:Q8_0", "--save-shape", path];
    program.good(&args, "");
    let written = Gguf::open(&file).unwrap();
    assert!(bytes(&written) == bytes(&shape::generate("shape:tiny-llama:Q8_0").unwrap()));
    assert_eq!(program.run(&args).code, 1, "it is not overwritten");
}

#[test]
fn bad_input_gets_one_line_that_names_it() {
    let program = Program::new();
    for (code, args, named) in [
        (1, "-m no-such-model", "no-such-model: no such model"),
        (2, "-m shape:gpt-9:Q4_K_M", "there are smollm2-135m"),
        (2, "-m shape:qwen3-0.6b:Q9", "there are F32"),
        (2, "-d 100000", "-d"),
        (2, "-r 0", "-r 0"),
        (2, "-r many", "many"),
        (2, "-p 1-x", "-p 1-x"),
        (2, "-p 0 -n 0", "nothing to measure"),
        (2, "-pg 12", "-pg 12"),
        (2, "-t 0", "-t 0"),
        (2, "-np 1000", "-np 1000"),
        (2, "-o xml", "md csv json"),
        (2, "-oe xml", "-oe xml"),
        (2, "-p 1-1000 -n 1-1000 -d 1-1000", "10000 tests"),
        (2, "--device tpu", "tpu"),
        (2, "machine -o csv", "-o csv"),
    ] {
        let words: Vec<&str> = std::iter::once("bench").chain(args.split(' ')).collect();
        let ran = program.run(&words);
        assert_eq!(ran.code, code, "{args}: {ran:?}");
        assert!(ran.stderr.contains(named), "{args}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{args}");
    }
}
