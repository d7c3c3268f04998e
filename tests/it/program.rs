//! The real binary, run in a directory of its own with an environment of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than anything here takes on a slow, busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A data directory and what is needed to run commands on it.
pub(crate) struct Program {
    dir: tempfile::TempDir,
}

/// What a command left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The rest of the first line that starts with `prefix`.
    pub(crate) fn after(&self, prefix: &str) -> &str {
        let found = self.stdout.lines().find_map(|line| line.strip_prefix(prefix));
        found.unwrap_or_else(|| panic!("no line {prefix:?} in {self:?}"))
    }
}

impl Program {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// The data directory; made by the program.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A path beside the data directory.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command whose environment says nothing about us but where the data is.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mommygpt"));
        command.env_clear().env("HOME", self.dir.path()).env("MOMMYGPT_DIR", self.data());
        command.args(args).current_dir(self.dir.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, "")
    }

    pub(crate) fn run_with(&self, args: &[&str], stdin: &str) -> Ran {
        finish(self.command(args), stdin)
    }

    /// Runs and expects success.
    pub(crate) fn good(&self, args: &[&str], stdin: &str) -> Ran {
        let ran = self.run_with(args, stdin);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        ran
    }

    /// Starts a server on a free port and waits until its model is loaded.
    pub(crate) fn serve(&self, more: &[&str]) -> Server {
        let args = [&["serve", "--port", "0"], more].concat();
        let mut child = self.command(&args).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut greeting = String::new();
        lines.read_line(&mut greeting).unwrap();
        let url = greeting.split_whitespace().find(|word| word.starts_with("http")).map(str::to_owned);
        let url = url.unwrap_or_else(|| panic!("no address in {greeting:?}"));
        let server = Server { child, lines, greeting, url };
        server.wait_until_ready();
        server
    }
}

/// Runs a command to its end.
pub(crate) fn finish(mut command: Command, stdin: &str) -> Ran {
    let mut child = command.spawn().unwrap();
    // A command that does not read its stdin closes it; that is its right.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A running server, killed when dropped.
pub(crate) struct Server {
    child: Child,
    lines: BufReader<ChildStdout>,
    pub(crate) greeting: String,
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn port(&self) -> &str {
        self.url.rsplit_once(':').unwrap().1
    }

    /// The next line it says.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        let agent = agent();
        while agent.get(format!("{}/health/ready", self.url)).call().map(|a| a.status().as_u16()).ok()
            != Some(200)
        {
            assert!(Instant::now() < deadline, "the server did not become ready");
            std::thread::yield_now();
        }
    }

    /// Posts JSON; the status and the answer.
    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let mut answer = agent().post(format!("{}{path}", self.url)).send_json(body).unwrap();
        let status = answer.status().as_u16();
        (status, answer.body_mut().read_json().unwrap_or(Value::Null))
    }

    /// Posts JSON with a session; the status and the answer.
    pub(crate) fn post_as(&self, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let ask =
            agent().post(format!("{}{path}", self.url)).header("authorization", format!("Bearer {token}"));
        let mut answer = ask.header("accept", "application/json").send_json(body).unwrap();
        let status = answer.status().as_u16();
        (status, answer.body_mut().read_json().unwrap_or(Value::Null))
    }

    /// The status of a GET with a session.
    pub(crate) fn get(&self, path: &str, token: &str) -> u16 {
        let ask =
            agent().get(format!("{}{path}", self.url)).header("authorization", format!("Bearer {token}"));
        ask.call().unwrap().status().as_u16()
    }

    /// Sends a signal by its name and waits for the exit code.
    pub(crate) fn stop(mut self, signal: &str) -> (i32, Duration) {
        let start = Instant::now();
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let status = self.child.wait().unwrap();
        let mut rest = String::new();
        let _ = self.lines.read_to_string(&mut rest);
        (status.code().unwrap_or(-1), start.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
    config.build().into()
}

/// Every file under `dir` with its bytes, for "nothing changed".
pub(crate) fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else if let Ok(bytes) = std::fs::read(&path) {
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}
