//! What stands in the environment and is not a flag.

use std::env;
use std::path::PathBuf;

use super::ConfigError;
use crate::model::Isa;

/// What stands in the environment and is not a flag.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `NO_COLOR` is set to something.
    pub no_color: bool,
    /// `RUST_LOG`.
    pub log_filter: Option<String>,
    /// `SOURCE_DATE_EPOCH`: seconds since 1970 that `prompt` gives to templates.
    pub source_date_epoch: Option<i64>,
    /// `MOMMYGPT_FORCE_ISA`.
    pub force_isa: Option<Isa>,
    /// What `pull` goes by: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`, and the cache that `HF_HUB_CACHE` or `HF_HOME`
    /// names.
    #[cfg(feature = "hub")]
    pub hub: crate::hub::pull::PullOptions,
    /// `DISPLAY` or `WAYLAND_DISPLAY` is set, or the system needs neither: a browser can be shown.
    pub has_display: bool,
}

impl Environment {
    /// Reads and checks it.
    ///
    /// # Errors
    /// A value that means nothing, or an instruction set that this machine lacks.
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of the environment")]
    pub fn read() -> Result<Self, ConfigError> {
        let text = |name: &str| env::var(name).ok().filter(|v| !v.is_empty());
        let source_date_epoch = match text("SOURCE_DATE_EPOCH") {
            None => None,
            Some(raw) => Some(raw.parse().map_err(|_| {
                ConfigError(format!("SOURCE_DATE_EPOCH={raw}: must be whole seconds since 1970 UTC"))
            })?),
        };
        let is_true = |v: String| !matches!(v.to_ascii_lowercase().as_str(), "0" | "false" | "no" | "off");
        Ok(Self {
            no_color: text("NO_COLOR").is_some(),
            log_filter: text("RUST_LOG"),
            source_date_epoch,
            force_isa: forced_isa()?,
            #[cfg(feature = "hub")]
            hub: crate::hub::pull::PullOptions {
                endpoint: text("HF_ENDPOINT").unwrap_or_else(|| crate::hub::pull::DEFAULT_ENDPOINT.into()),
                token: text("HF_TOKEN").map(crate::hub::pull::Token::new),
                offline: text("HF_HUB_OFFLINE").is_some_and(is_true),
                cache: text("HF_HUB_CACHE").map(PathBuf::from).or_else(|| {
                    let home = text("HF_HOME").map(PathBuf::from);
                    Some(home.or_else(|| Some(env::home_dir()?.join(".cache/huggingface")))?.join("hub"))
                }),
            },
            has_display: cfg!(not(target_os = "linux"))
                || text("DISPLAY").is_some()
                || text("WAYLAND_DISPLAY").is_some(),
        })
    }
}

/// The kernels that `MOMMYGPT_FORCE_ISA` asks for, where it is set.
pub(super) fn forced_isa() -> Result<Option<Isa>, ConfigError> {
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of the environment")]
    let raw = env::var("MOMMYGPT_FORCE_ISA").ok().filter(|v| !v.is_empty());
    raw.map(|raw| parse_isa(&raw)).transpose()
}

fn parse_isa(raw: &str) -> Result<Isa, ConfigError> {
    let Some(isa) = Isa::ALL.into_iter().find(|isa| isa.as_str() == raw) else {
        let words: Vec<&str> = Isa::ALL.iter().map(|isa| isa.as_str()).collect();
        return Err(ConfigError(format!("MOMMYGPT_FORCE_ISA={raw}: must be one of: {}", words.join(" "))));
    };
    if isa.is_available() {
        return Ok(isa);
    }
    Err(ConfigError(format!(
        "MOMMYGPT_FORCE_ISA={raw}: this machine does not have it; `mommygpt doctor` lists what it has"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_set_must_be_known_and_here() {
        assert_eq!(parse_isa("scalar").unwrap(), Isa::Scalar);
        assert!(parse_isa("sse9").is_err());
        assert!(parse_isa("AVX2").is_err());
        let foreign = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
        assert!(parse_isa(foreign).unwrap_err().to_string().contains("does not have it"));
    }
}
