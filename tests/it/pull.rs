//! `pull` by the real binary from a server that plays the hub, faults included.

use std::fs;
use std::path::PathBuf;

use crate::gguf_writer::{Meta, tiny_llama};
use crate::hub_double::{Fault, Hub, sha256};
use crate::model_files::parts;
use crate::program::{Program, Ran, finish};

const REPO: &str = "ada/tiny-GGUF";
const FILE: &str = "tiny-Q4_K_M.gguf";

fn tiny() -> Vec<u8> {
    tiny_llama().bytes()
}

fn one_file() -> Hub {
    Hub::with(&[("README.md", b"hello".to_vec()), (FILE, tiny())])
}

/// Pulls with these variables set.
fn pull_with(program: &Program, hub: &Hub, repo: &str, variables: &[(&str, &str)]) -> Ran {
    let mut command = program.command(&["pull", repo]);
    command.env("HF_ENDPOINT", hub.endpoint()).envs(variables.iter().copied());
    finish(command, "")
}

fn pull(program: &Program, hub: &Hub, repo: &str) -> Ran {
    pull_with(program, hub, repo, &[])
}

fn good(ran: Ran) -> Ran {
    assert_eq!(ran.code, 0, "{ran:?}");
    ran
}

fn model(program: &Program) -> PathBuf {
    program.data().join("models").join(FILE)
}

/// Names of everything under the folder of models.
fn left(program: &Program) -> Vec<String> {
    let files = crate::program::contents(&program.data().join("models"));
    files.iter().map(|(path, _)| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_model_comes_and_is_used() {
    let (program, hub) = (Program::new(), one_file());
    let ran = good(pull(&program, &hub, REPO));
    assert!(ran.stdout.contains("apache-2.0") && ran.stdout.contains(FILE), "{ran:?}");
    assert!(ran.stderr.contains("MiB"), "progress in lines where there is no terminal: {ran:?}");
    assert!(!ran.stderr.contains('\x1b') && !ran.stderr.contains('\r'), "{ran:?}");
    assert_eq!(fs::read(model(&program)).unwrap(), tiny());
    assert_eq!(left(&program), [FILE.to_owned(), format!("{FILE}.sha256")]);
    program.good(&["verify", "tiny-Q4_K_M"], "");
    assert!(program.good(&["show", FILE], "").stdout.contains("tiny"));
    let n_seen = hub.seen().len();
    assert!(good(pull(&program, &hub, REPO)).stdout.contains("here already"));
    assert_eq!(hub.ranges().len(), 1, "a file that is here is not fetched again");
    assert_eq!(hub.seen().len(), n_seen + 1);
}

#[test]
fn a_cut_connection_goes_on_where_it_was() {
    let (program, hub) = (Program::new(), one_file());
    hub.faults(&[Fault::CutAfter(100_000), Fault::CutAfter(0), Fault::CutAfter(50_000)]);
    good(pull(&program, &hub, REPO));
    assert_eq!(fs::read(model(&program)).unwrap(), tiny());
    let ranges = hub.ranges();
    let wanted = [None, Some("bytes=100000-"), Some("bytes=100000-"), Some("bytes=150000-")];
    assert_eq!(ranges, wanted.map(|r| r.map(str::to_owned)));
}

#[test]
fn an_interrupted_pull_goes_on_in_the_next_run() {
    let (program, hub) = (Program::new(), one_file());
    let cuts = [&[Fault::CutAfter(120_000)][..], &vec![Fault::CutAfter(0); 5]].concat();
    hub.faults(&cuts);
    let ran = pull(&program, &hub, REPO);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("the same command goes on from here"), "{ran:?}");
    assert!(left(&program)[0].ends_with(".incomplete"), "{:?}", left(&program));
    assert!(program.good(&["list"], "").stdout.lines().count() == 2, "an incomplete model is no model");
    good(pull(&program, &hub, REPO));
    assert_eq!(hub.ranges().last().unwrap().as_deref(), Some("bytes=120000-"));
    assert_eq!(fs::read(model(&program)).unwrap(), tiny());
}

#[test]
fn the_beginning_of_a_version_that_is_gone_goes_too_and_no_other() {
    const OTHER: &str = "tiny-Q8_0.gguf";
    let mut renamed = tiny_llama();
    renamed.set("general.name", Meta::Str("an earlier version".into()));
    let earlier = Hub::with(&[(FILE, renamed.bytes()), (OTHER, tiny())]);
    let program = Program::new();
    let broken_off = [&[Fault::CutAfter(120_000)][..], &vec![Fault::CutAfter(0); 5]].concat();
    for quant in ["Q4_K_M", "Q8_0"] {
        earlier.faults(&broken_off);
        assert_eq!(pull(&program, &earlier, &format!("{REPO}:{quant}")).code, 1);
    }
    assert_eq!(left(&program).len(), 2);
    // The maker has put another file in the place of the first; the second is what it was.
    let hub = Hub::with(&[(FILE, tiny()), (OTHER, tiny())]);
    let ran = good(pull(&program, &hub, REPO));
    assert_eq!(ran.stderr.matches("removed").count(), 1, "{ran:?}");
    assert!(ran.stderr.contains("another version"), "{ran:?}");
    assert_eq!(hub.ranges(), [None], "nothing of the earlier version is in it");
    let left: Vec<String> = left(&program).into_iter().filter(|name| name.ends_with(".incomplete")).collect();
    assert!(left.len() == 1 && left[0].starts_with(OTHER), "{left:?}");
    good(pull(&program, &hub, &format!("{REPO}:Q8_0")));
    assert_eq!(hub.ranges().last().unwrap().as_deref(), Some("bytes=120000-"), "the other one goes on");
    assert!(!program.data().join("models/.pull").exists());
}

#[test]
fn a_store_without_ranges_sends_all_of_it_again() {
    let (program, hub) = (Program::new(), one_file());
    hub.faults(&[Fault::CutAfter(100_000), Fault::IgnoreRange]);
    good(pull(&program, &hub, REPO));
    assert_eq!(fs::read(model(&program)).unwrap(), tiny());
}

#[test]
fn what_is_not_what_the_hub_says_is_removed() {
    for fault in [Fault::Flip, Fault::TooLong] {
        let (program, hub) = (Program::new(), one_file());
        hub.faults(std::slice::from_ref(&fault));
        let ran = pull(&program, &hub, REPO);
        let expected = if matches!(fault, Fault::Flip) { (3, "SHA-256") } else { (1, "more comes than") };
        assert_eq!(ran.code, expected.0, "{ran:?}");
        assert!(ran.stderr.contains(expected.1), "{ran:?}");
        assert!(!model(&program).exists());
        good(pull(&program, &hub, REPO));
    }
}

#[test]
fn a_busy_hub_is_asked_again() {
    let (program, hub) = (Program::new(), one_file());
    hub.listing_faults(&[Fault::Status(429, "retry-after: 0\r\n"), Fault::Status(503, "")]);
    hub.faults(&[Fault::Status(500, ""), Fault::Status(429, "retry-after: 0\r\n")]);
    good(pull(&program, &hub, REPO));
    assert_eq!(hub.ranges().len(), 3);
}

#[test]
fn what_the_hub_refuses_is_said_in_one_line() {
    let (program, hub) = (Program::new(), one_file());
    for (repo, word) in [
        ("ada/nothing", "ada/nothing: not found on the hub"),
        ("ada/tiny-GGUF:Q8_0", "there are Q4_K_M (tiny-Q4_K_M.gguf)"),
        ("../etc", "neither a repository"),
        ("no-such-name", "neither a repository"),
    ] {
        let ran = pull(&program, &hub, repo);
        assert_eq!((ran.code, ran.stderr.lines().count()), (1, 1), "{ran:?}");
        assert!(ran.stderr.contains(word), "{ran:?}");
    }
    hub.wants("hf_secret");
    let ran = pull(&program, &hub, REPO);
    assert!(ran.code == 1 && ran.stderr.contains("set HF_TOKEN"), "{ran:?}");
    let ran = pull_with(&program, &hub, REPO, &[("HF_TOKEN", "hf_wrong")]);
    assert!(ran.code == 1 && ran.stderr.contains("does not accept the token"), "{ran:?}");
    assert!(!ran.stderr.contains("hf_wrong"), "{ran:?}");
    assert!(left(&program).is_empty());
    let ran =
        pull_with(&program, &hub, REPO, &[("HF_TOKEN", "x"), ("HF_ENDPOINT", "http://hub.example.org")]);
    assert!(ran.code == 1 && ran.stderr.contains("unencrypted"), "{ran:?}");
}

#[test]
fn the_token_goes_to_the_hub_and_not_to_its_store() {
    let (program, hub) = (Program::new(), one_file());
    hub.wants("hf_secret");
    good(pull_with(&program, &hub, REPO, &[("HF_TOKEN", "hf_secret")]));
    for seen in hub.seen() {
        let wanted = (!seen.path.starts_with("/store/")).then(|| "Bearer hf_secret".to_owned());
        assert_eq!(seen.authorization, wanted, "{seen:?}");
    }
}

#[test]
fn a_full_disk_is_said_and_what_came_is_kept() {
    let (program, hub) = (Program::new(), one_file());
    // A limit on file sizes in units of 1 KiB; the signal that comes with it is ignored, as a full disk sends none.
    let script = format!("trap '' XFSZ; ulimit -f 100; exec {} pull {REPO}", env!("CARGO_BIN_EXE_mommygpt"));
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", &script])
        .env_clear()
        .env("HOME", program.beside(""))
        .env("MOMMYGPT_DIR", program.data());
    command.env("HF_ENDPOINT", hub.endpoint());
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("make room"), "{stderr}");
    good(pull(&program, &hub, REPO));
    assert!(hub.ranges().last().unwrap().is_some(), "the second run went on: {:?}", hub.ranges());
}

#[test]
fn a_model_in_several_files_comes_whole_and_is_removed_whole() {
    let files: Vec<(String, Vec<u8>)> = parts()
        .iter()
        .enumerate()
        .map(|(i, part)| (format!("Q8_0/tiny-0000{}-of-00003.gguf", i + 1), part.bytes()))
        .collect();
    let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
    let (program, hub) = (Program::new(), Hub::with(&files));
    good(pull(&program, &hub, "ada/tiny-GGUF:Q8_0"));
    let list = program.good(&["list"], "").stdout;
    assert_eq!(list.lines().count(), 3, "{list}");
    assert_eq!(left(&program).len(), 6);
    let verified = program.good(&["verify", "tiny-00001-of-00003"], "").stdout;
    assert_eq!(verified.matches("It is what was imported.").count(), 3, "{verified}");
    program.good(&["rm", "tiny-00001-of-00003"], "");
    assert!(left(&program).is_empty());
}

#[test]
fn what_is_no_model_is_refused_and_leaves_nothing() {
    let mut writer = tiny_llama();
    writer.set("llama.attention.head_count", Meta::U32(0));
    for bytes in [b"GGUF but not really".to_vec(), writer.bytes()] {
        let (program, hub) = (Program::new(), Hub::with(&[(FILE, bytes)]));
        let ran = pull(&program, &hub, REPO);
        assert_eq!((ran.code, left(&program).len()), (3, 0), "{ran:?}");
        assert!(ran.stderr.contains(FILE), "{ran:?}");
    }
}

#[test]
fn the_hubs_own_cache_is_used_and_without_a_network_it_is_all_there_is() {
    let (program, hub) = (Program::new(), one_file());
    let offline = [("HF_HUB_OFFLINE", "1")];
    let ran = pull_with(&program, &hub, REPO, &offline);
    assert!(ran.code == 1 && ran.stderr.contains("HF_HUB_OFFLINE"), "{ran:?}");
    let home = program.beside("hf");
    let folder = home.join("hub/models--ada--tiny-GGUF");
    let commit = "ab".repeat(20);
    let snapshot = folder.join("snapshots").join(&commit);
    for dir in [&snapshot, &folder.join("blobs"), &folder.join("refs")] {
        fs::create_dir_all(dir).unwrap();
    }
    let blob = folder.join("blobs").join(sha256(&tiny()));
    fs::write(&blob, tiny()).unwrap();
    fs::write(folder.join("refs/main"), &commit).unwrap();
    std::os::unix::fs::symlink(&blob, snapshot.join(FILE)).unwrap();
    let home = home.to_str().unwrap();
    good(pull_with(&program, &hub, REPO, &[("HF_HOME", home), offline[0]]));
    assert!(hub.seen().is_empty(), "offline opens no connection: {:?}", hub.seen());
    assert_eq!(fs::read(model(&program)).unwrap(), tiny());
    program.good(&["rm", FILE], "");
    good(pull_with(&program, &hub, REPO, &[("HF_HOME", home)]));
    assert!(hub.ranges().is_empty(), "what the cache has is not fetched");
    // A damaged copy in the cache is passed over.
    program.good(&["rm", FILE], "");
    let mut damaged = tiny();
    damaged[1000] ^= 1;
    fs::write(&blob, damaged).unwrap();
    good(pull_with(&program, &hub, REPO, &[("HF_HOME", home)]));
    assert_eq!(hub.ranges().len(), 1);
    assert_eq!(fs::read(model(&program)).unwrap(), tiny());
}
