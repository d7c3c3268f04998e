//! HTTP with the hub: its listings, and its files with resume, checksum and patience.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use super::checksum::Hasher;
use super::progress::Progress;
use super::pull::PullOptions;
use super::repository::RemoteFile;
use super::{HubError, at};

/// Tries in a row that bring nothing new before it is given up.
const MAX_TRIES: u32 = 5;
/// The first wait between two tries; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait, also where the hub asks for more: a person is looking on.
const MAX_WAIT: Duration = Duration::from_mins(2);
/// Until a connection stands, name resolution included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Without any byte for so long, a connection is dead.
const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// The listing of the largest repositories has some 100 KB.
const MAX_LISTING_BYTES: u64 = 16 << 20;
/// The hub redirects to its store once, renamed repositories once more.
const MAX_REDIRECTS: u32 = 5;
const BUFFER_BYTES: usize = 256 << 10;

/// A client of one hub.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    bearer: Option<String>,
}

/// Why a try failed.
enum Trouble {
    /// Trying again would not help.
    Final(HubError),
    /// It may work in a moment; `after` is what the hub asked for.
    Passing { why: String, after: Option<Duration> },
}

impl From<HubError> for Trouble {
    fn from(e: HubError) -> Self {
        Self::Final(e)
    }
}

/// What there is of a file that is being fetched.
struct Partial {
    file: File,
    bytes: u64,
    hash: Hasher,
}

impl Client {
    pub(super) fn new(options: &PullOptions) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .max_redirects(MAX_REDIRECTS)
            // The token is for the hub and not for the store that it redirects to.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("mommygpt/", env!("CARGO_PKG_VERSION")))
            .build();
        let bearer = options.token.as_ref().map(|token| format!("Bearer {}", token.reveal()));
        Self { agent: config.into(), endpoint: options.endpoint.trim_end_matches('/').to_owned(), bearer }
    }

    fn get(&self, path: &str, from: u64) -> Result<Response<Body>, Trouble> {
        let mut request = self.agent.get(format!("{}{path}", self.endpoint));
        if let Some(bearer) = &self.bearer {
            request = request.header("authorization", bearer);
        }
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        request.call().map_err(|e| match e {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::TooManyRedirects => {
                Trouble::Final(self.problem(&self.endpoint, e.to_string()))
            }
            other => Trouble::Passing { why: other.to_string(), after: None },
        })
    }

    #[allow(clippy::unused_self, reason = "reads as what the hub said")]
    fn problem(&self, what: &str, problem: String) -> HubError {
        HubError::Pull { what: what.to_owned(), problem }
    }

    /// What a status other than success means.
    fn refused(&self, what: &str, response: &Response<Body>) -> Trouble {
        let status = response.status();
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        let problem = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if self.bearer.is_none() => {
                "there is no such repository, or it wants a token: accept its licence on the hub and set HF_TOKEN"
                    .to_owned()
            }
            StatusCode::UNAUTHORIZED => "the hub does not accept the token in HF_TOKEN".to_owned(),
            StatusCode::FORBIDDEN => {
                "the token in HF_TOKEN may not read it: accept its licence on the hub first".to_owned()
            }
            StatusCode::NOT_FOUND => "not found on the hub; check the spelling".to_owned(),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                let after = header("retry-after").and_then(|v| v.trim().parse().ok()).map(Duration::from_secs);
                return Trouble::Passing { why: format!("the hub answers {status}"), after };
            }
            status if status.is_server_error() => {
                return Trouble::Passing { why: format!("the hub answers {status}"), after: None };
            }
            status => format!("the hub answers {status}"),
        };
        Trouble::Final(self.problem(what, problem))
    }

    /// The hub's answer in JSON; `what` is for messages.
    pub(super) fn listing(&self, path: &str, what: &str) -> Result<String, HubError> {
        let mut tries = Tries::default();
        loop {
            let trouble = match self.get(path, 0) {
                Ok(mut response) if response.status().is_success() => {
                    match response.body_mut().with_config().limit(MAX_LISTING_BYTES).read_to_string() {
                        Ok(text) => return Ok(text),
                        Err(e) => Trouble::Passing { why: e.to_string(), after: None },
                    }
                }
                Ok(response) => self.refused(what, &response),
                Err(trouble) => trouble,
            };
            tries.wait(trouble, what, |_| {})?;
        }
    }

    /// Fetches a file to `target`, from where an earlier try stopped, and checks that it is what the hub says.
    ///
    /// # Errors
    /// [`HubError::Damaged`], after which nothing is left of it; otherwise what has come stays for the next try.
    pub(super) fn download(&self, path: &str, file: &RemoteFile, target: &Path) -> Result<(), HubError> {
        let mut partial = Partial::open(target)?;
        if partial.bytes > file.bytes {
            partial.start_again(target)?;
        }
        let mut progress = Progress::start(file.name(), partial.bytes, file.bytes);
        let mut tries = Tries::default();
        while partial.bytes < file.bytes {
            let before = partial.bytes;
            if let Err(trouble) = self.fetch_rest(path, file, &mut partial, target, &mut progress) {
                if partial.bytes > before {
                    tries = Tries::default();
                }
                tries.wait(trouble, file.name(), |text| progress.say(text))?;
            }
        }
        partial.file.sync_all().map_err(|e| at(target, e))?;
        let found = partial.hash.finish();
        if file.sha256.as_ref() != Some(&found) {
            fs::remove_file(target).map_err(|e| at(target, e))?;
            let stated = file.sha256.clone().unwrap_or_default();
            return Err(HubError::Damaged { name: file.name().to_owned(), found, stated });
        }
        progress.finish();
        Ok(())
    }

    fn fetch_rest(
        &self,
        path: &str,
        file: &RemoteFile,
        partial: &mut Partial,
        target: &Path,
        progress: &mut Progress,
    ) -> Result<(), Trouble> {
        let mut response = self.get(path, partial.bytes)?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&response, partial.bytes) => {}
            // A server that knows no ranges sends all of it again; one that has another file there says so.
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                let is_whole = response.status() == StatusCode::OK;
                if partial.bytes > 0 {
                    partial.start_again(target)?;
                }
                if !is_whole {
                    return Err(Trouble::Passing { why: "the hub sent another range".into(), after: None });
                }
            }
            _ => return Err(self.refused(file.name(), &response)),
        }
        let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let n = match body.read(&mut buffer) {
                Ok(0) if partial.bytes < file.bytes => {
                    return Err(Trouble::Passing { why: "the connection was cut".into(), after: None });
                }
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) => return Err(Trouble::Passing { why: e.to_string(), after: None }),
            };
            if partial.bytes + n as u64 > file.bytes {
                let problem = format!("more comes than the {} bytes that the hub announced", file.bytes);
                return Err(self.problem(file.name(), problem).into());
            }
            partial.file.write_all(&buffer[..n]).map_err(|e| written(target, e))?;
            partial.hash.update(&buffer[..n]);
            partial.bytes += n as u64;
            progress.set(partial.bytes);
        }
    }
}

/// A write that failed, most often because the disk is full.
fn written(target: &Path, e: io::Error) -> HubError {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            HubError::Pull {
                what: target.display().to_string(),
                problem: format!("{e}; make room, and the same command goes on from here"),
            }
        }
        _ => at(target, e),
    }
}

/// Whether a partial answer begins where it should.
fn starts_at(response: &Response<Body>, from: u64) -> bool {
    let range = response.headers().get("content-range").and_then(|v| v.to_str().ok());
    range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()) == Some(from)
}

impl Partial {
    /// Opens what is there, for this process alone, and hashes it.
    fn open(target: &Path) -> Result<Self, HubError> {
        let in_file = |e| at(target, e);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(target)
            .map_err(in_file)?;
        if file.try_lock().is_err() {
            return Err(HubError::Pull {
                what: target.display().to_string(),
                problem: "another `mommygpt pull` is fetching it".into(),
            });
        }
        let mut hash = Hasher::default();
        hash.read(&mut file).map_err(in_file)?;
        let bytes = file.stream_position().map_err(in_file)?;
        Ok(Self { file, bytes, hash })
    }

    fn start_again(&mut self, target: &Path) -> Result<(), HubError> {
        let cut = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cut.map_err(|e| at(target, e))?;
        (self.bytes, self.hash) = (0, Hasher::default());
        Ok(())
    }
}

/// Tries in a row that brought nothing.
#[derive(Default)]
struct Tries {
    n: u32,
}

impl Tries {
    /// Waits before the next try, or gives up.
    #[expect(clippy::disallowed_methods, reason = "there is no event to wait for: the hub asks for time")]
    fn wait(&mut self, trouble: Trouble, what: &str, say: impl Fn(&str)) -> Result<(), HubError> {
        let (why, after) = match trouble {
            Trouble::Final(e) => return Err(e),
            Trouble::Passing { why, after } => (why, after),
        };
        self.n += 1;
        if self.n >= MAX_TRIES {
            let problem = format!("{why}, {} times in a row; the same command goes on from here", self.n);
            return Err(HubError::Pull { what: what.to_owned(), problem });
        }
        let wait = after.unwrap_or(FIRST_WAIT * 2_u32.pow(self.n - 1)).min(MAX_WAIT);
        say(&format!("{why}; trying again in {:.1} s", wait.as_secs_f64()));
        std::thread::sleep(wait);
        Ok(())
    }
}
