//! `switch`, and what does it in the running server: another model of the data directory answers.

use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use mommygpt::engine::{Engine, EngineError, LoadError, ModelSource};
use mommygpt::hub::preflight::{Preflight, Tried};
use mommygpt::hub::{BUILTIN, BUILTIN_NAME, HubError, ModelFile, Models};
use mommygpt::model::LoadOptions;
use mommygpt::web::control::{self, Answer, Operation};
use mommygpt::web::models::{Choice, Chosen, ModelChooser, SwitchError};

use super::models::{remember, size};
use super::{Failure, Out};

/// The folder of models and the engine of a running server.
#[derive(Debug)]
pub(super) struct Chooser {
    models: Models,
    preflight: Preflight,
    engine: Engine,
    load: LoadOptions,
    /// Guesses for whatever model answers, where it can.
    draft: Option<ModelFile>,
    current: Mutex<ModelFile>,
}

/// Where the engine finds a model.
pub(super) fn source(model: &ModelFile) -> ModelSource {
    match model {
        ModelFile::Builtin => ModelSource::Builtin(BUILTIN),
        ModelFile::File(path) => ModelSource::File(path.clone()),
    }
}

impl Chooser {
    /// # Errors
    /// When the system does not tell where this program lies.
    pub(super) fn new(
        dir: &Path,
        engine: Engine,
        load: LoadOptions,
        draft: Option<ModelFile>,
        current: ModelFile,
    ) -> Result<Self, Failure> {
        let preflight = Preflight::of_this_program().map_err(|e| Failure::failed(e.to_string()))?;
        Ok(Self { models: Models::of(dir), preflight, engine, load, draft, current: Mutex::new(current) })
    }

    fn is_current(&self, model: &ModelFile) -> bool {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) == *model
    }
}

fn unread(e: HubError) -> SwitchError {
    match e {
        HubError::NotFound(name) => {
            SwitchError::Unknown(format!("{name:?}: there is no model of that name here"))
        }
        HubError::Model { .. } | HubError::Broke { .. } => SwitchError::Unusable(e.to_string()),
        other => SwitchError::Failed(other.to_string()),
    }
}

impl ModelChooser for Chooser {
    fn choices(&self) -> Result<Vec<Choice>, SwitchError> {
        let entries = self.models.list().map_err(unread)?.into_iter();
        let mut choices: Vec<Choice> = entries
            .map(|entry| {
                let current = self.is_current(&ModelFile::File(entry.path));
                Choice { name: entry.name, size_bytes: entry.bytes, current }
            })
            .collect();
        let current = self.is_current(&ModelFile::Builtin);
        choices.push(Choice { name: BUILTIN_NAME.to_owned(), size_bytes: BUILTIN.len() as u64, current });
        Ok(choices)
    }

    fn choose(&self, name: &str) -> Result<Chosen, SwitchError> {
        let model = self.models.named(name).map_err(unread)?;
        if let Some(untried) = self.models.untried(&model)
            && untried.check(&self.preflight).map_err(unread)? == Tried::Works
        {
            remember(&untried);
        }
        let draft = self.draft.as_ref().map(source);
        let info = self.engine.switch(source(&model), self.load.clone(), draft).map_err(|e| match e {
            EngineError::Load(e) => match &*e {
                LoadError::Panicked(why) => SwitchError::Unusable(format!("{name}: it broke down: {why}")),
                other => SwitchError::Unusable(format!("{name}: {other}")),
            },
            other => SwitchError::Busy(other.to_string()),
        })?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = model;
        let note = info.no_draft.as_ref().map(|why| format!("no draft model guesses for {name} ({why})"));
        let model = Choice { name: name.to_owned(), size_bytes: info.size_bytes, current: true };
        Ok(Chosen { model, note })
    }
}

/// `switch MODEL`.
pub(super) fn switch(dir: &Path, model: String, out: &mut Out) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        let Some(server) = control::connect(dir).await else {
            return Err(Failure::failed(format!(
                "no server runs on {}; `mommygpt serve -m {model}` starts one with this model",
                dir.display()
            )));
        };
        Ok(control::ask(server, &Operation::SwitchModel { model }).await?)
    })?;
    match answer {
        Answer::Switched { name, size_bytes, note } => {
            writeln!(out, "{name} ({}) answers now, until the server starts anew.", size(size_bytes))?;
            if let Some(note) = note {
                writeln!(out, "note: {note}")?;
            }
            Ok(())
        }
        _ => Err(Failure::failed("the running server gave another answer; are both of the same version?")),
    }
}
