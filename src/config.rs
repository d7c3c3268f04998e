//! Flags, environment and `config.toml` become one checked [`Config`]; nobody else reads the environment.
//!
//! Precedence: flag, then environment (clap has merged those two), then the file, then the default. A file with a key
//! that means nothing is refused, because a setting that is silently ignored is a bug somebody finds at night.

mod environment;

use std::env;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

pub use environment::Environment;

use crate::auth::SignupMode;
use crate::cli::{EngineArgs, ServeArgs};
use crate::domain::Invalid;
use crate::engine::DEFAULT_ITL_BUDGET;
use crate::model::{Device, Isa, KvType};

/// Port used when none is given.
pub const DEFAULT_PORT: u16 = 4467;
/// Address used when none is given: nobody else's machine can reach it.
pub const DEFAULT_HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Answers generated at the same time when nothing is said: a family.
pub const DEFAULT_PARALLEL: usize = 4;
/// More answers at once than any box can generate readably.
pub const MAX_PARALLEL: usize = 256;
/// A longer pause between two words is no budget any more.
pub const MAX_ITL_BUDGET_MS: usize = 60_000;
/// A model that sleeps after more than a week may as well stay.
pub const MAX_IDLE_MINUTES: usize = 7 * 24 * 60;
/// More MiB of kept pages than any home's disk has.
pub const MAX_KV_DISK_MIB: usize = 1 << 26;
/// More threads than any machine this runs on has.
pub const MAX_THREADS: usize = 1024;
/// Shorter contexts cannot hold one exchange with its template.
pub const MIN_CTX: usize = 64;
/// Longer contexts than any model was trained on.
pub const MAX_CTX: usize = 1 << 22;
/// The file's name in the data directory.
pub const FILE_NAME: &str = "config.toml";
/// A larger file is not a configuration.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A setting that cannot be used; always wrong usage (exit 2).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// Everything `serve` and `run` need to know, checked.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own on the command line")]
pub struct Config {
    /// The data directory; may not exist yet.
    pub dir: PathBuf,
    /// What `-m` said.
    pub model: Option<String>,
    /// Context length; `None` leaves it to the model.
    pub n_ctx: Option<usize>,
    /// Threads for inference.
    pub n_threads: usize,
    /// Where the model runs.
    pub device: Device,
    /// How keys and values of past tokens are kept.
    pub kv: KvType,
    /// The kernels asked for by `MOMMYGPT_FORCE_ISA`.
    pub isa: Option<Isa>,
    /// Where to listen.
    pub address: SocketAddr,
    /// Answers generated at once.
    pub n_parallel: usize,
    /// How long a step may take that reads a prompt while others wait for their next word.
    pub itl_budget: Duration,
    /// Give the model's memory back when nobody wrote for so long.
    pub idle_unload: Option<Duration>,
    /// Bytes of what models made of chats that may be kept on disk; 0 keeps nothing.
    pub kv_disk_bytes: u64,
    /// The model that guesses for the other, as it was named.
    pub draft: Option<String>,
    /// Guess tokens where that pays.
    pub speculative: bool,
    /// The same seed gives the same tokens whatever else runs.
    pub deterministic: bool,
    /// Speak Ollama's API too.
    pub ollama: bool,
    /// Who may make an account.
    pub signup: SignupMode,
    /// Whether others than this machine can reach the server, directly or through a proxy.
    pub exposed: bool,
    /// Where certificates come from.
    pub tls: Tls,
    /// Proxies whose forwarded addresses are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Names that browsers may use beside the server's addresses.
    pub allow_hosts: Vec<String>,
    /// Open the page in a browser.
    pub open: bool,
}

/// Where certificates come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tls {
    /// Plain HTTP.
    Off,
    /// Those that `mommygpt tls` made in the data directory.
    Local,
    /// The operator's own PEM files.
    Files {
        /// Certificate chain.
        cert: PathBuf,
        /// Private key.
        key: PathBuf,
    },
}

/// `config.toml`, raw. Each key is a flag's name.
#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields, default)]
struct File {
    model: Option<String>,
    ctx_size: Option<usize>,
    threads: Option<usize>,
    device: Option<String>,
    kv: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    parallel: Option<usize>,
    itl_budget_ms: Option<usize>,
    idle_unload: Option<usize>,
    kv_disk: Option<usize>,
    draft: Option<String>,
    speculative: Option<bool>,
    deterministic: Option<bool>,
    ollama: Option<bool>,
    signup: Option<String>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls: Option<bool>,
    trusted_proxy: Vec<String>,
    allow_host: Vec<String>,
}

/// The data directory: what was asked for, else the user's own place for data.
///
/// # Errors
/// When nothing was asked for and there is no home directory either.
pub fn data_dir(asked: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    if let Some(dir) = asked {
        return if dir.as_os_str().is_empty() {
            Err(ConfigError("--dir: must not be empty".into()))
        } else {
            Ok(dir)
        };
    }
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of the environment")]
    let xdg = env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let base = xdg.or_else(|| env::home_dir().map(|home| home.join(".local/share")));
    match base {
        Some(base) => Ok(base.join("mommygpt")),
        None => Err(ConfigError("no home directory found: say where the data is with --dir DIR".into())),
    }
}

impl Config {
    /// Merges what was typed (and stood in the environment) with the data directory's file and the defaults.
    ///
    /// # Errors
    /// The first setting that cannot be used, named with its value.
    pub fn resolve(dir: Option<PathBuf>, typed: ServeArgs) -> Result<Self, ConfigError> {
        let dir = data_dir(dir)?;
        let file = read_file(&dir.join(FILE_NAME))?;
        let EngineArgs { model, ctx_size, threads, device, kv } = typed.engine;
        let address = address(typed.host.or(file.host).as_deref(), typed.port.or(file.port))?;
        let trusted_proxies = networks(either(typed.trusted_proxy, file.trusted_proxy))?;
        let allow_hosts = host_names(either(typed.allow_host, file.allow_host))?;
        // Behind a proxy on this machine the server listens on loopback and is reached from elsewhere all the same.
        let exposed = !address.ip().is_loopback() || !trusted_proxies.is_empty() || !allow_hosts.is_empty();
        let signup = match typed.signup.or(file.signup) {
            Some(raw) => parse("signup", &raw)?,
            None if exposed => SignupMode::Invite,
            None => SignupMode::Open,
        };
        let n_cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            model: model.or(file.model),
            n_ctx: within("ctx-size", ctx_size.or(file.ctx_size), MIN_CTX, MAX_CTX)?,
            n_threads: within("threads", threads.or(file.threads), 1, MAX_THREADS)?.unwrap_or(n_cores),
            device: parse_device(device.or(file.device).as_deref())?,
            kv: parse_kv(kv.or(file.kv).as_deref())?,
            isa: environment::forced_isa()?,
            n_parallel: within("parallel", typed.parallel.or(file.parallel), 1, MAX_PARALLEL)?
                .unwrap_or(DEFAULT_PARALLEL),
            idle_unload: within("idle-unload", typed.idle_unload.or(file.idle_unload), 1, MAX_IDLE_MINUTES)?
                .map(|minutes| Duration::from_secs(60 * minutes as u64)),
            kv_disk_bytes: within("kv-disk", typed.kv_disk.or(file.kv_disk), 1, MAX_KV_DISK_MIB)?
                .map_or(0, |mib| (mib as u64) << 20),
            itl_budget: within(
                "itl-budget-ms",
                typed.itl_budget_ms.or(file.itl_budget_ms),
                1,
                MAX_ITL_BUDGET_MS,
            )?
            .map_or(DEFAULT_ITL_BUDGET, |ms| Duration::from_millis(ms as u64)),
            draft: typed.draft.or(file.draft),
            speculative: typed.speculative.or(file.speculative).unwrap_or(true),
            deterministic: typed.deterministic.or(file.deterministic).unwrap_or(false),
            ollama: typed.ollama.or(file.ollama).unwrap_or(false),
            tls: tls(
                typed.tls_cert.or_else(|| file.tls_cert.map(|p| dir.join(p))),
                typed.tls_key.or_else(|| file.tls_key.map(|p| dir.join(p))),
                typed.tls.or(file.tls).unwrap_or(false),
            )?,
            dir,
            address,
            signup,
            exposed,
            trusted_proxies,
            allow_hosts,
            open: typed.open,
        })
    }
}

fn read_file(path: &Path) -> Result<File, ConfigError> {
    let bad = |why: &dyn std::fmt::Display| ConfigError(format!("{}: {why}", path.display()));
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(File::default()),
        Err(e) => return Err(bad(&e)),
        Ok(meta) if meta.len() > MAX_FILE_BYTES => {
            return Err(bad(&"is larger than 1 MiB; that is no configuration"));
        }
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(path).map_err(|e| bad(&e))?;
    toml::from_str(&text).map_err(|e| bad(&e.to_string().trim_end()))
}

/// Lists are not joined: what was typed replaces what the file says.
fn either(typed: Vec<String>, file: Vec<String>) -> Vec<String> {
    if typed.is_empty() { file } else { typed }
}

fn parse<T: FromStr<Err = Invalid>>(flag: &str, raw: &str) -> Result<T, ConfigError> {
    raw.parse().map_err(|e: Invalid| ConfigError(format!("--{flag} {raw}: {}", e.problem)))
}

fn within(flag: &str, value: Option<usize>, min: usize, max: usize) -> Result<Option<usize>, ConfigError> {
    match value {
        Some(n) if n < min || n > max => {
            Err(ConfigError(format!("--{flag} {n}: must be from {min} to {max}")))
        }
        other => Ok(other),
    }
}

fn parse_kv(raw: Option<&str>) -> Result<KvType, ConfigError> {
    match raw {
        None | Some("i16") => Ok(KvType::I16),
        Some("f16") => Ok(KvType::F16),
        Some("q8") => Ok(KvType::Q8),
        Some(other) => Err(ConfigError(format!("--kv {other}: must be one of: i16 f16 q8"))),
    }
}

fn parse_device(raw: Option<&str>) -> Result<Device, ConfigError> {
    let built = |present: bool, device, feature: &str| {
        let how =
            format!("--device {feature}: this binary was built without it; build with --features {feature}");
        if present { Ok(device) } else { Err(ConfigError(how)) }
    };
    match raw {
        None | Some("cpu") => Ok(Device::Cpu),
        Some("cuda") => built(cfg!(feature = "cuda"), Device::Cuda, "cuda"),
        Some("metal") => built(cfg!(feature = "metal"), Device::Metal, "metal"),
        Some(other) => Err(ConfigError(format!("--device {other}: must be one of: cpu cuda metal"))),
    }
}

fn address(host: Option<&str>, port: Option<u16>) -> Result<SocketAddr, ConfigError> {
    let ip = match host {
        None | Some("localhost") => DEFAULT_HOST,
        Some(raw) => raw.trim_matches(['[', ']']).parse().map_err(|_| {
            ConfigError(format!(
                "--host {raw}: must be an address of this machine, such as 127.0.0.1 or 0.0.0.0"
            ))
        })?,
    };
    Ok(SocketAddr::new(ip, port.unwrap_or(DEFAULT_PORT)))
}

fn networks(raw: Vec<String>) -> Result<Vec<IpNet>, ConfigError> {
    raw.into_iter()
        .map(|s| {
            let one = s.parse::<IpAddr>().map(IpNet::from);
            one.or_else(|_| s.parse()).map_err(|_| {
                ConfigError(format!(
                    "--trusted-proxy {s}: must be an address or a network such as 192.168.1.0/24"
                ))
            })
        })
        .collect()
}

fn host_names(raw: Vec<String>) -> Result<Vec<String>, ConfigError> {
    raw.into_iter()
        .map(|s| {
            let name = s.trim_end_matches('.').to_ascii_lowercase();
            let ok = !name.is_empty()
                && name.len() <= 253
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
            if ok {
                Ok(name)
            } else {
                Err(ConfigError(format!("--allow-host {s}: must be a name such as mommy.example.org")))
            }
        })
        .collect()
}

fn tls(cert: Option<PathBuf>, key: Option<PathBuf>, local: bool) -> Result<Tls, ConfigError> {
    match (cert, key, local) {
        (None, None, false) => Ok(Tls::Off),
        (None, None, true) => Ok(Tls::Local),
        (Some(cert), Some(key), false) => Ok(Tls::Files { cert, key }),
        (Some(_), Some(_), true) => Err(ConfigError(
            "--tls and --tls-cert exclude each other: the certificate is local or yours".into(),
        )),
        (Some(_), None, _) => {
            Err(ConfigError("--tls-cert needs --tls-key with the private key's file".into()))
        }
        (None, Some(_), _) => {
            Err(ConfigError("--tls-key needs --tls-cert with the certificate's file".into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(file: &str, typed: ServeArgs) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), file).unwrap();
        Config::resolve(Some(dir.path().to_owned()), typed)
    }

    #[test]
    fn what_was_typed_wins_over_the_file_and_the_file_over_the_default() {
        let config = resolved("", ServeArgs::default()).unwrap();
        assert_eq!(config.address.to_string(), "127.0.0.1:4467");
        assert_eq!(config.signup, SignupMode::Open);
        let file = "port = 5000\nhost = \"::1\"\ntrusted_proxy = [\"10.0.0.0/8\"]";
        let config = resolved(file, ServeArgs::default()).unwrap();
        assert_eq!(config.address.to_string(), "[::1]:5000");
        assert_eq!(config.trusted_proxies, ["10.0.0.0/8".parse().unwrap()]);
        let typed =
            ServeArgs { port: Some(6000), trusted_proxy: vec!["192.0.2.1".into()], ..ServeArgs::default() };
        let config = resolved(file, typed).unwrap();
        assert_eq!(config.address.port(), 6000);
        assert_eq!(config.trusted_proxies, ["192.0.2.1/32".parse().unwrap()]);
    }

    #[test]
    fn whoever_can_be_reached_from_elsewhere_asks_for_invitations() {
        for file in
            ["host = \"0.0.0.0\"", "trusted_proxy = [\"127.0.0.1\"]", "allow_host = [\"mommy.example.org\"]"]
        {
            let config = resolved(file, ServeArgs::default()).unwrap();
            assert!(config.exposed, "{file}");
            assert_eq!(config.signup, SignupMode::Invite, "{file}");
        }
    }

    #[test]
    fn a_bad_setting_is_named_with_its_value() {
        for (file, named) in [
            ("prot = 1", "prot"),
            ("port = \"x\"", "port"),
            ("port = 99999", "99999"),
            ("host = \"example.org\"", "--host example.org"),
            ("signup = \"maybe\"", "--signup maybe"),
            ("parallel = 0", "--parallel 0"),
            ("itl_budget_ms = 0", "--itl-budget-ms 0"),
            ("idle_unload = 0", "--idle-unload 0"),
            ("kv_disk = 0", "--kv-disk 0"),
            ("threads = 5000", "--threads 5000"),
            ("ctx_size = 3", "--ctx-size 3"),
            ("device = \"tpu\"", "--device tpu"),
            ("kv = \"q4\"", "--kv q4"),
            ("trusted_proxy = [\"300.1.1.1\"]", "--trusted-proxy 300.1.1.1"),
            ("allow_host = [\"a b\"]", "--allow-host a b"),
            ("tls_cert = \"a.pem\"", "--tls-key"),
            ("tls_key = \"a.pem\"", "--tls-cert"),
            ("tls = true\ntls_cert = \"a\"\ntls_key = \"b\"", "--tls "),
            ("[serve]", "serve"),
            ("port = ", "config.toml"),
        ] {
            let error = resolved(file, ServeArgs::default()).unwrap_err().to_string();
            assert!(error.contains(named), "{file}: {error}");
        }
    }
}
