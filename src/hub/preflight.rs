//! Tries a model file in a process of its own before anything here trusts it.
//!
//! A model file is untrusted input for a parser, a tokenizer, a template language and kernels. What slips past their
//! checks ends a process: better one that holds nothing. The child is this program again (the hidden verb
//! `preflight`), which limits its own memory and time before it opens the file, reads header, vocabulary and template,
//! renders a conversation, loads the weights and evaluates a few tokens.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::{HubError, at};
use crate::model::ModelError;
use crate::model::gguf::split::part_paths;

/// The hidden verb.
pub const VERB: &str = "preflight";
/// What the child needs beside the weights: itself, its threads' stacks, a vocabulary, a small KV cache.
const BASE_MEMORY: u64 = 1 << 30;
/// Candle keeps up to two and a half times the file, and one tensor is in memory twice while it is read.
const MEMORY_PER_FILE_BYTE: u64 = 4;
/// Seconds of computing that the smallest file may take, on a slow and busy machine.
const BASE_SECONDS: u64 = 60;
/// Bytes of weights for which a second more is granted; a slow disk reads as much in one.
const BYTES_PER_SECOND: u64 = 16 << 20;
/// What the child may say: a line for each file.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// What a process that tries a file may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of memory of its own.
    pub memory: u64,
    /// Seconds of computing; by the clock it may take twice that.
    pub seconds: u64,
}

impl Limits {
    /// For a model of so many bytes.
    pub fn for_size(bytes: u64) -> Self {
        Self {
            memory: BASE_MEMORY.saturating_add(bytes.saturating_mul(MEMORY_PER_FILE_BYTE)),
            seconds: BASE_SECONDS + bytes / BYTES_PER_SECOND,
        }
    }
}

/// What came of a try that went well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tried {
    /// It loads and computes here.
    Works,
    /// Everything but the weights was tried: they do not fit into this machine's memory now. Holds the sum.
    TooLargeToLoad(String),
}

/// One file's result, as the child says it in one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It may be used.
    Good(Tried),
    /// It may not: the reason.
    Refused(Refusal, String),
}

/// Why a file is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// As [`ModelError::Malformed`].
    Malformed,
    /// As [`ModelError::Unsupported`].
    Unsupported,
    /// It could not be read.
    Unreadable,
}

const WORKS: &str = "works";
const TOO_LARGE: &str = "too-large ";
const REFUSALS: [(Refusal, &str); 3] = [
    (Refusal::Malformed, "malformed "),
    (Refusal::Unsupported, "unsupported "),
    (Refusal::Unreadable, "unreadable "),
];

impl Verdict {
    /// The line for it, without its end.
    pub fn to_line(&self) -> String {
        let one_line = |text: &str| text.replace(['\n', '\r'], " ");
        match self {
            Self::Good(Tried::Works) => WORKS.to_owned(),
            Self::Good(Tried::TooLargeToLoad(sum)) => format!("{TOO_LARGE}{}", one_line(sum)),
            Self::Refused(refusal, why) => {
                let word = REFUSALS.iter().find(|(each, _)| each == refusal).map_or("", |(_, word)| word);
                format!("{word}{}", one_line(why))
            }
        }
    }

    /// Reads such a line.
    pub fn from_line(line: &str) -> Option<Self> {
        if line == WORKS {
            return Some(Self::Good(Tried::Works));
        }
        if let Some(sum) = line.strip_prefix(TOO_LARGE) {
            return Some(Self::Good(Tried::TooLargeToLoad(sum.to_owned())));
        }
        REFUSALS.iter().find_map(|(refusal, word)| {
            line.strip_prefix(word).map(|why| Self::Refused(*refusal, why.to_owned()))
        })
    }
}

/// Starts the processes that try files.
#[derive(Clone, Debug)]
pub struct Preflight {
    program: PathBuf,
}

impl Preflight {
    /// Through this very program.
    ///
    /// # Errors
    /// When the system does not tell where it lies.
    pub fn of_this_program() -> io::Result<Self> {
        // By this name it is found also when an update has replaced the file.
        let by_kernel = Path::new("/proc/self/exe");
        let program = if by_kernel.exists() { by_kernel.to_owned() } else { std::env::current_exe()? };
        Ok(Self { program })
    }

    /// Through the program at this path, for tests.
    pub fn with_program(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    /// Tries a file, and those that belong to it.
    ///
    /// # Errors
    /// [`HubError::Model`] with what the child refused, [`HubError::Broke`] when it did not end well.
    pub fn check(&self, file: &Path) -> Result<Tried, HubError> {
        fs::metadata(file).map_err(|e| at(file, e))?;
        let bytes =
            part_paths(file).iter().filter_map(|part| fs::metadata(part).ok()).map(|meta| meta.len()).sum();
        let verdict = self.check_all(&[file.to_owned()], Limits::for_size(bytes))?.pop();
        let name = file.display().to_string();
        match verdict {
            Some(Verdict::Good(tried)) => Ok(tried),
            Some(Verdict::Refused(Refusal::Malformed, why)) => {
                Err(HubError::Model { name, source: ModelError::Malformed(why) })
            }
            Some(Verdict::Refused(Refusal::Unsupported, why)) => {
                Err(HubError::Model { name, source: ModelError::Unsupported(why) })
            }
            Some(Verdict::Refused(Refusal::Unreadable, why)) => Err(at(file, io::Error::other(why))),
            None => Err(HubError::Broke { name, what: "the process said nothing".into() }),
        }
    }

    /// Tries files one after another in one process: a verdict for each.
    ///
    /// # Errors
    /// [`HubError::Broke`], named after the file at which the process ended.
    pub fn check_all(&self, files: &[PathBuf], limits: Limits) -> Result<Vec<Verdict>, HubError> {
        let mut child = Command::new(&self.program)
            .arg(VERB)
            .args(["--memory", &limits.memory.to_string(), "--seconds", &limits.seconds.to_string(), "--"])
            .args(files)
            // The hub's token is nothing for a process that an unknown file may have taken over.
            .env_remove("HF_TOKEN")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| at(&self.program, e))?;
        let (answer, ended) = watch(&mut child, Duration::from_secs(2 * limits.seconds));
        let verdicts: Vec<Verdict> = answer.lines().map_while(Verdict::from_line).collect();
        if verdicts.len() == files.len() && ended.is_ok() {
            return Ok(verdicts);
        }
        let at_fault = files.get(verdicts.len()).or(files.last());
        let name = at_fault.map_or_else(String::new, |file| file.display().to_string());
        let what = ended.err().unwrap_or_else(|| "the process ended early".to_owned());
        Err(HubError::Broke { name, what })
    }
}

/// Reads what the child says until it ends or its time is over; then it is gone in any case.
fn watch(child: &mut Child, limit: Duration) -> (String, Result<(), String>) {
    let (said, hears) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stdout.take(MAX_ANSWER_BYTES).read_to_end(&mut text);
            let _ = said.send(String::from_utf8_lossy(&text).into_owned());
        });
    }
    let in_time = hears.recv_timeout(limit);
    if in_time.is_err() {
        let _ = child.kill();
    }
    let status = child.wait();
    // Killing it closed its output, so the rest comes at once.
    let answer = in_time.clone().or_else(|_| hears.recv()).unwrap_or_default();
    let ended = match (in_time, status) {
        (Err(_), _) => Err(format!("it took longer than {} s", limit.as_secs())),
        (_, Err(e)) => Err(e.to_string()),
        (_, Ok(status)) if status.success() => Ok(()),
        (_, Ok(status)) => Err(match (status.signal(), status.code()) {
            // What Rust's allocator does when there is no more memory, and the kernel when time is over.
            (Some(6), _) => "the process ran out of memory or gave up (signal 6)".to_owned(),
            (Some(9 | 24), _) => "the process computed for too long or took too much memory".to_owned(),
            (Some(signal), _) => format!("the process was ended by signal {signal}"),
            (None, code) => format!("the process ended with exit code {}", code.unwrap_or(-1)),
        }),
    };
    (answer, ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_survive_their_line() {
        for verdict in [
            Verdict::Good(Tried::Works),
            Verdict::Good(Tried::TooLargeToLoad("1 + 1 = 2".into())),
            Verdict::Refused(Refusal::Malformed, "magic: x".into()),
            Verdict::Refused(Refusal::Unsupported, String::new()),
        ] {
            assert_eq!(Verdict::from_line(&verdict.to_line()), Some(verdict));
        }
        assert_eq!(Verdict::from_line("thread panicked"), None);
        let line = Verdict::Refused(Refusal::Malformed, "two\nlines".into()).to_line();
        assert!(!line.contains('\n'));
    }
}
