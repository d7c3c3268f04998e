//! How long from process start to `health/ready` with the built-in model, and what the idle server keeps resident.
//!
//! `cargo bench --bench start` (release settings); `-- --runs N` for more than the default of 9.

#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for readiness before the run counts as failed.
const DEADLINE: Duration = Duration::from_secs(30);
/// Pause between two questions: short beside the 300 ms looked for, long beside a loopback round trip.
const PAUSE: Duration = Duration::from_millis(1);
/// Time given to the idle server to hand back what starting needed.
const SETTLE: Duration = Duration::from_secs(2);

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_or(0, |a| a.port())
}

fn is_ready(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let request = format!("GET /health/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}

fn start(dir: &std::path::Path) -> (Server, Duration) {
    let port = free_port();
    let began = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_mommygpt"))
        .args(["serve", "-m", "builtin", "--port", &port.to_string(), "--dir"])
        .arg(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let server = Server(child);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    while !is_ready(address) {
        assert!(began.elapsed() < DEADLINE, "not ready within {DEADLINE:?}");
        std::thread::park_timeout(PAUSE);
    }
    (server, began.elapsed())
}

/// Resident memory in KiB: all, and the part backed by files (the binary itself, the built-in model within it).
fn resident_kib(pid: u32) -> Option<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        status.lines().find(|l| l.starts_with(name))?.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Some((field("VmRSS:")?, field("RssFile:")?))
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value_of =
        |flag: &str| args.iter().position(|a| a == flag).and_then(|i| args.get(i + 1)?.parse().ok());
    let smoke = args.iter().any(|a| a == "--test") || !args.iter().any(|a| a == "--bench");
    let n_runs: usize = value_of("--runs").unwrap_or(if smoke { 1 } else { 9 });

    let mut ready_ms = Vec::new();
    let mut memory = None;
    for _ in 0..n_runs.max(1) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (server, took) = start(dir.path());
        ready_ms.push(took.as_secs_f64() * 1e3);
        if memory.is_none() {
            std::thread::park_timeout(if smoke { Duration::ZERO } else { SETTLE });
            memory = resident_kib(server.0.id());
        }
    }
    ready_ms.sort_by(f64::total_cmp);
    let model_mib = std::fs::metadata(concat!(env!("CARGO_MANIFEST_DIR"), "/models/mommy.gguf"))
        .map_or(0.0, |m| m.len() as f64 / f64::from(1 << 20));
    println!("| process start to ready, built-in model, {n_runs} runs | ms |\n| --- | ---: |");
    println!("| median | {:.0} |", ready_ms[ready_ms.len() / 2]);
    println!("| min, max | {:.0}, {:.0} |\n", ready_ms[0], ready_ms[ready_ms.len() - 1]);
    if let Some((all, file)) = memory {
        let mib = |kib: u64| kib as f64 / 1024.0;
        println!("| resident, idle | MiB |\n| --- | ---: |");
        println!("| all | {:.1} |\n| of it backed by the binary's file | {:.1} |", mib(all), mib(file));
        println!("| all, less the model's {model_mib:.1} | {:.1} |", mib(all) - model_mib);
    }
}
