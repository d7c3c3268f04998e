//! The folder of models: what is taken in, and what is not.

use std::fs;
use std::path::{Path, PathBuf};

use mommygpt::hub::preflight::{Limits, Preflight, Tried, Verdict};
use mommygpt::hub::{BUILTIN, HubError, ModelFile, Models};

use crate::gguf_writer::tiny_llama;
use crate::model_files::{parts, write};

fn builtin_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mommy.gguf")
}

fn preflight() -> Preflight {
    Preflight::with_program(env!("CARGO_BIN_EXE_mommygpt"))
}

#[test]
fn a_model_is_taken_in_found_by_name_checked_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let models = Models::of(dir.path());
    assert_eq!(models.resolve(None).unwrap(), ModelFile::Builtin);
    let (entry, tried) = models.import(&builtin_path(), &preflight()).unwrap();
    assert_eq!((entry.name.as_str(), tried), ("mommy.gguf", Tried::Works));
    assert_eq!(models.resolve(None).unwrap(), ModelFile::File(entry.path.clone()));
    for name in ["mommy", "mommy.gguf"] {
        assert_eq!(models.resolve(Some(name)).unwrap(), ModelFile::File(entry.path.clone()));
    }
    assert!(matches!(models.import(&builtin_path(), &preflight()), Err(HubError::Exists(_))));
    let file = models.resolve(None).unwrap();
    let (ours, builtin) = (models.verify(&file).unwrap(), models.verify(&ModelFile::Builtin).unwrap());
    assert_eq!(ours[0].sha256, builtin[0].sha256);
    fs::write(dir.path().join("models/mommy.gguf.sha256"), "00  x\n").unwrap();
    assert!(matches!(models.verify(&file), Err(HubError::Changed { .. })));
    models.remove("mommy").unwrap();
    assert!(fs::read_dir(dir.path().join("models")).unwrap().next().is_none());
    assert!(builtin_path().exists());
}

#[test]
fn what_is_no_model_is_refused_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let models = Models::of(dir.path());
    let mut bytes = BUILTIN[..5000].to_vec();
    let broken = dir.path().join("broken.gguf");
    fs::write(&broken, &bytes).unwrap();
    assert!(matches!(models.import(&broken, &preflight()), Err(HubError::Model { .. })));
    bytes[0] = b'X';
    fs::write(&broken, &bytes).unwrap();
    assert!(matches!(models.import(&broken, &preflight()), Err(HubError::Model { .. })));
    let missing = models.import(&dir.path().join("none.gguf"), &preflight());
    assert!(matches!(missing, Err(HubError::Io { .. })));
    assert!(models.list().unwrap().is_empty());
}

#[test]
fn a_model_in_several_files_is_taken_in_whole() {
    let dir = tempfile::tempdir().unwrap();
    let models = Models::of(&dir.path().join("data"));
    let first = write(dir.path(), &parts());
    let (entry, _) = models.import(&first, &preflight()).unwrap();
    assert_eq!(entry.bytes, parts().iter().map(|part| part.bytes().len() as u64).sum::<u64>());
    assert_eq!(models.list().unwrap().len(), 1);
    assert_eq!(models.verify(&ModelFile::File(entry.path)).unwrap().len(), 3);
    models.remove(&entry.name).unwrap();
    assert!(fs::read_dir(models.dir()).unwrap().next().is_none());
    fs::remove_file(dir.path().join("tiny-00003-of-00003.gguf")).unwrap();
    let text = models.import(&first, &preflight()).unwrap_err().to_string();
    assert!(text.contains("tiny-00003-of-00003.gguf is missing"), "{text}");
    assert!(models.list().unwrap().is_empty());
}

#[test]
fn names_do_not_lead_out_of_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let models = Models::of(dir.path());
    fs::create_dir(dir.path().join("models")).unwrap();
    fs::write(dir.path().join("outside.gguf"), "kept").unwrap();
    let linked = dir.path().join("models/.hidden.gguf");
    std::os::unix::fs::symlink(dir.path().join("outside.gguf"), linked).unwrap();
    for name in [
        "../outside.gguf",
        "../outside",
        "/etc/passwd",
        "..",
        "",
        "models/../../outside.gguf",
        ".hidden",
        "\0",
    ] {
        assert!(matches!(models.remove(name), Err(HubError::NotFound(_))), "{name}");
        assert!(matches!(models.named(name), Err(HubError::NotFound(_))), "{name}");
    }
    assert!(dir.path().join("outside.gguf").exists());
}

#[test]
fn a_file_that_takes_too_much_is_stopped_by_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    fs::write(&path, tiny_llama().bytes()).unwrap();
    let files = [path];
    let fine = preflight().check_all(&files, Limits::for_size(0)).unwrap();
    assert_eq!(fine, [Verdict::Good(Tried::Works)]);
    // Less than the program needs for a thread: whatever becomes of it, the file is not taken for good.
    let tried = preflight().check_all(&files, Limits { memory: 1 << 20, seconds: 20 });
    assert!(!matches!(tried.as_deref(), Ok([Verdict::Good(Tried::Works)])), "{tried:?}");
    let broke = Preflight::with_program("/bin/false").check(&files[0]).unwrap_err();
    assert!(matches!(broke, HubError::Broke { .. }), "{broke}");
    assert!(broke.to_string().contains("m.gguf"), "{broke}");
}

/// A preflight whose every try leaves a line in `log`.
fn counted(log: &Path) -> Preflight {
    use std::os::unix::fs::PermissionsExt as _;
    let script = log.with_extension("sh");
    let real = env!("CARGO_BIN_EXE_mommygpt");
    fs::write(&script, format!("#!/bin/sh\necho try >> '{}'\nexec '{real}' \"$@\"\n", log.display()))
        .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    Preflight::with_program(script)
}

#[test]
fn a_file_that_was_found_good_is_not_tried_again_until_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let n_tries = || fs::read_to_string(&log).unwrap_or_default().lines().count();
    let (data, preflight) = (dir.path().join("data"), counted(&log));
    fs::create_dir(&data).unwrap();
    let models = Models::of(&data);
    let path = dir.path().join("m.gguf");
    fs::write(&path, tiny_llama().bytes()).unwrap();
    let model = ModelFile::File(path.clone());
    let uses = |model: &ModelFile| {
        if let Some(untried) = models.untried(model) {
            assert_eq!(untried.check(&preflight).unwrap(), Tried::Works);
            untried.remember().unwrap();
        }
        n_tries()
    };
    assert!(models.untried(&ModelFile::Builtin).is_none(), "the one in the program is its own");
    assert_eq!([uses(&model), uses(&model), uses(&model)], [1, 1, 1]);
    // The same length, one byte another.
    let mut bytes = tiny_llama().bytes();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!([uses(&model), uses(&model)], [2, 2]);
    // Another file in its place, which looks as old as the first one.
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    let other = dir.path().join("other.gguf");
    fs::write(&other, &bytes).unwrap();
    fs::File::open(&other).unwrap().set_modified(before).unwrap();
    fs::rename(&other, &path).unwrap();
    assert_eq!([uses(&model), uses(&model)], [3, 3]);
    let first = write(dir.path(), &parts());
    let split = ModelFile::File(first);
    assert_eq!([uses(&split), uses(&split), uses(&model)], [4, 4, 3 + 1]);
    fs::write(dir.path().join("tiny-00002-of-00003.gguf"), parts()[1].bytes()).unwrap();
    assert_eq!(uses(&split), 5, "one of its files was written anew");
    let (entry, _) = models.import(&path, &preflight).unwrap();
    assert_eq!(uses(&ModelFile::File(entry.path)), 6, "taking it in was a try");
    fs::write(data.join("tried-models"), "\0 no record at all\n\n").unwrap();
    assert_eq!([uses(&model), uses(&model)], [7, 7]);
}
