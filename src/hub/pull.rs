//! `pull`: fetches a model from the hub into the folder of models.
//!
//! The one place in the program that opens a connection to somewhere else, and only when an operator asks for it. Files
//! come over plain HTTP ranges into `models/.pull/`, where an interrupted one stays and goes on later; each is checked
//! against the SHA-256 that the hub states, tried by `preflight` as an import is, and only then moved beside the others.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::checksum;
use super::download::Client;
use super::folder::{Entry, Models};
use super::preflight::{Preflight, Tried};
use super::progress::say;
use super::repository::{RemoteFile, Repository, Wanted};
use super::{HubError, at, catalog};

/// The hub where none is named.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// What the machine needs for itself beside a new model.
const SPARE_DISK_BYTES: u64 = 64 << 20;
/// The end of the name of a file that is not whole yet.
const INCOMPLETE: &str = "incomplete";

/// A secret that does not print.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Takes what stands in the environment.
    pub fn new(text: String) -> Self {
        Self(text)
    }
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Where from, and as whom.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// Address of the hub, without a slash at the end.
    pub endpoint: String,
    /// For repositories that want one.
    pub token: Option<Token>,
    /// Open no connection: take what the cache has.
    pub offline: bool,
    /// The hub's own cache on this machine, whose files are taken instead of fetched.
    pub cache: Option<PathBuf>,
}

/// A model that was fetched.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// Where it is now.
    pub entry: Entry,
    /// Whether it was here before, the same to the last bit.
    pub was_here: bool,
    /// Its licence, as its repository says.
    pub licence: Option<String>,
    /// What came of trying it; `None` when it was here before.
    pub tried: Option<Tried>,
}

/// Fetches `wanted`: a name of the catalogue, or `OWNER/NAME[:QUANT]`.
///
/// # Errors
/// [`HubError::Pull`] names what is wrong and the remedy, [`HubError::Damaged`] a wrong checksum; what the preflight
/// refuses as in [`Models::import`].
pub fn pull(
    models: &Models,
    preflight: &Preflight,
    wanted: &str,
    options: &PullOptions,
) -> Result<Pulled, HubError> {
    check_endpoint(options)?;
    let wanted = match catalog::find(wanted) {
        Some(known) => Wanted { repo: known.repo.clone(), quant: Some(known.file.clone()) },
        None => Wanted::parse(wanted)?,
    };
    let client = Client::new(options);
    let repository =
        if options.offline { cached_repository(&wanted, options)? } else { listing(&client, &wanted)? };
    let files = repository.choose(&wanted)?;
    let staging = models.dir().join(".pull").join(wanted.repo.replace('/', "--"));
    if !options.offline {
        remove_superseded(&repository, &staging)?;
    }
    let licence = repository.licence.clone();
    if let Some(entry) = models.find(files[0].name())? {
        let here = checksum::recorded(&entry.path)?;
        if here.is_none() || here != files[0].sha256 {
            return Err(HubError::Exists(entry.name));
        }
        return Ok(Pulled { entry, was_here: true, licence, tried: None });
    }
    fs::create_dir_all(&staging).map_err(|e| at(&staging, e))?;
    check_room(&files, &staging)?;
    for file in &files {
        fetch(&client, &wanted, &repository, file, &staging, options)?;
    }
    let (entry, tried) = take_in(models, preflight, &files, &staging)?;
    Ok(Pulled { entry, was_here: false, licence, tried: Some(tried) })
}

/// A token goes over an encrypted line, or stays on this machine.
fn check_endpoint(options: &PullOptions) -> Result<(), HubError> {
    let refuse = |problem: &str| {
        Err(HubError::Pull { what: format!("HF_ENDPOINT={}", options.endpoint), problem: problem.into() })
    };
    if options.endpoint.starts_with("https://") {
        return Ok(());
    }
    let Some(host) = options.endpoint.strip_prefix("http://") else {
        return refuse("must begin with https:// or http://");
    };
    let is_here = ["localhost", "127.", "[::1]"].iter().any(|name| host.starts_with(name));
    if options.token.is_some() && !is_here {
        return refuse("HF_TOKEN would travel unencrypted; use https:// or unset it");
    }
    Ok(())
}

fn listing(client: &Client, wanted: &Wanted) -> Result<Repository, HubError> {
    let path = format!("/api/models/{}/revision/main?blobs=true", wanted.repo);
    let json = client.listing(&path, &wanted.repo)?;
    Repository::from_json(&json).map_err(|problem| HubError::Pull { what: wanted.repo.clone(), problem })
}

/// The folder of a repository in the hub's cache.
fn cache_folder(wanted: &Wanted, options: &PullOptions) -> Option<PathBuf> {
    Some(options.cache.as_ref()?.join(format!("models--{}", wanted.repo.replace('/', "--"))))
}

/// What the cache knows of a repository, for want of the hub.
fn cached_repository(wanted: &Wanted, options: &PullOptions) -> Result<Repository, HubError> {
    let missing = || HubError::Pull {
        what: wanted.repo.clone(),
        problem: "HF_HUB_OFFLINE is set, and the hub's cache on this machine does not have it".into(),
    };
    let folder = cache_folder(wanted, options).ok_or_else(missing)?;
    let commit = fs::read_to_string(folder.join("refs/main")).map_err(|_| missing())?.trim().to_owned();
    if commit.is_empty() || !commit.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(missing());
    }
    let snapshot = folder.join("snapshots").join(&commit);
    let mut files = Vec::new();
    collect_cached(&snapshot, "", &mut files).map_err(|_| missing())?;
    Ok(Repository { commit, licence: None, files })
}

/// Files of a snapshot are links to blobs that are named after their SHA-256.
fn collect_cached(dir: &Path, prefix: &str, files: &mut Vec<RemoteFile>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let (path, meta) = (entry.path(), fs::metadata(entry.path()));
        let Ok(meta) = meta else { continue };
        if meta.is_dir() && prefix.is_empty() {
            collect_cached(&path, &format!("{name}/"), files)?;
        } else if super::folder::is_model_name(&name) {
            let blob = fs::canonicalize(&path)?;
            let sha256 = blob.file_name().map(|name| name.to_string_lossy().into_owned());
            let sha256 = sha256.filter(|name| name.len() == 64);
            files.push(RemoteFile { path: format!("{prefix}{name}"), bytes: meta.len(), sha256 });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(())
}

/// Refuses what the disk does not hold before a byte of it comes.
fn check_room(files: &[RemoteFile], staging: &Path) -> Result<(), HubError> {
    let here = |file: &RemoteFile| {
        let partial =
            fs::metadata(incomplete(staging, file)).or_else(|_| fs::metadata(staging.join(file.name())));
        partial.map_or(0, |meta| meta.len())
    };
    let wanted: u64 = files.iter().map(|file| file.bytes.saturating_sub(here(file))).sum();
    let Ok(disk) = nix::sys::statvfs::statvfs(staging) else { return Ok(()) };
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    if wanted.saturating_add(SPARE_DISK_BYTES) <= free {
        return Ok(());
    }
    Err(HubError::Pull {
        what: staging.display().to_string(),
        problem: format!(
            "{} MiB are to come and {} MiB are free on this disk, of which {} MiB must stay so; make room or choose a \
             smaller model",
            wanted >> 20,
            free >> 20,
            SPARE_DISK_BYTES >> 20
        ),
    })
}

/// Removes beginnings of files that the repository does not have any more, because its maker has put others in their
/// place: nothing would ever go on with them.
fn remove_superseded(repository: &Repository, staging: &Path) -> Result<(), HubError> {
    let entries = match fs::read_dir(staging) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| at(staging, e))?,
    };
    for entry in entries {
        let path = entry.map_err(|e| at(staging, e))?.path();
        let is_beginning = path.extension().is_some_and(|extension| extension == INCOMPLETE);
        if !is_beginning || repository.files.iter().any(|file| incomplete(staging, file) == path) {
            continue;
        }
        // Another process still fetches what it began before the repository changed.
        let Ok(file) = fs::OpenOptions::new().write(true).open(&path) else { continue };
        if file.try_lock().is_err() {
            continue;
        }
        let bytes = file.metadata().map_or(0, |meta| meta.len());
        fs::remove_file(&path).map_err(|e| at(&path, e))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        say(&format!(
            "{name}: removed, {} MiB; the repository has another version now, so this could not go on",
            bytes >> 20
        ));
    }
    remove_if_empty(staging);
    Ok(())
}

/// Where a file lies while it is not whole: its checksum in the name keeps two versions of it apart.
fn incomplete(staging: &Path, file: &RemoteFile) -> PathBuf {
    let sha256 = file.sha256.as_deref().unwrap_or_default();
    staging.join(format!("{}.{}.{INCOMPLETE}", file.name(), &sha256[..sha256.len().min(12)]))
}

fn fetch(
    client: &Client,
    wanted: &Wanted,
    repository: &Repository,
    file: &RemoteFile,
    staging: &Path,
    options: &PullOptions,
) -> Result<(), HubError> {
    let (target, partial) = (staging.join(file.name()), incomplete(staging, file));
    // Whole already, from a run that ended before it could be tried.
    if fs::metadata(&target).is_ok_and(|meta| meta.len() == file.bytes)
        && Some(checksum::of_file(&target)?) == file.sha256
    {
        return Ok(());
    }
    if !from_cache(wanted, file, &partial, options)? {
        if options.offline {
            return Err(HubError::Pull {
                what: file.name().to_owned(),
                problem: "HF_HUB_OFFLINE is set, and the copy in the hub's cache is damaged".into(),
            });
        }
        let path = format!("/{}/resolve/{}/{}", wanted.repo, repository.commit, escaped(&file.path));
        client.download(&path, file, &partial)?;
    }
    fs::rename(&partial, &target).map_err(|e| at(&target, e))
}

/// Takes a file from the hub's cache where it is there, whole and right.
fn from_cache(
    wanted: &Wanted,
    file: &RemoteFile,
    target: &Path,
    options: &PullOptions,
) -> Result<bool, HubError> {
    let (Some(folder), Some(sha256)) = (cache_folder(wanted, options), &file.sha256) else {
        return Ok(false);
    };
    let blob = folder.join("blobs").join(sha256);
    if !fs::metadata(&blob).is_ok_and(|meta| meta.is_file() && meta.len() == file.bytes)
        || checksum::of_file(&blob)? != *sha256
    {
        return Ok(false);
    }
    let _ = fs::remove_file(target);
    if fs::hard_link(&blob, target).is_err() {
        fs::copy(&blob, target).map_err(|e| at(target, e))?;
    }
    Ok(true)
}

/// A path as it stands in an address.
fn escaped(path: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    path.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Tries what has come and moves it to the models; what the preflight refuses is removed.
fn take_in(
    models: &Models,
    preflight: &Preflight,
    files: &[RemoteFile],
    staging: &Path,
) -> Result<(Entry, Tried), HubError> {
    let tried = match preflight.check(&staging.join(files[0].name())) {
        Ok(tried) => tried,
        Err(e) => {
            if matches!(e, HubError::Model { .. } | HubError::Broke { .. }) {
                for file in files {
                    let _ = fs::remove_file(staging.join(file.name()));
                }
                remove_if_empty(staging);
            }
            return Err(e);
        }
    };
    // The first part last: with it the model appears in the list.
    for file in files.iter().rev() {
        let target = models.dir().join(file.name());
        checksum::write_record(&target, file.sha256.as_deref().unwrap_or_default())?;
        fs::rename(staging.join(file.name()), &target).map_err(|e| at(&target, e))?;
    }
    remove_if_empty(staging);
    let entry = models.find(files[0].name())?;
    let entry = entry.ok_or_else(|| HubError::NotFound(files[0].name().to_owned()))?;
    models.remember(&entry, &tried);
    Ok((entry, tried))
}

/// Removes the folder of what is on its way, unless another download waits in it: that one is to go on from there.
fn remove_if_empty(staging: &Path) {
    if fs::remove_dir(staging).is_ok() {
        let _ = staging.parent().map(fs::remove_dir);
    }
}
