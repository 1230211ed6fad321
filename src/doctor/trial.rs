//! Loads a model once and lets it say something, in a worker that serves no client and ends with the trial. The
//! daemon's deadlines hold for it; its state folder and its workers are not touched.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::{Check, Status};
use crate::admission::Admission;
use crate::conversation::ReplyPiece;
use crate::generation::{
    Adapter, ClientKey, Completion, DrawRequest, GenerationError, GenerationRequest, RedrawLimits,
    ReplyEvent, RequestId, SamplingRequest,
};
use crate::ipc::{Prompt, TemplateState};
use crate::models::{Catalog, InstalledModel};
use crate::prompt::{ChatMessage, ChatRole, RenderRequest};
use crate::reader::Readers;
use crate::settings::Settings;
use crate::supervisor::{PROBE_PROMPT, RunServices, Supervisor};
use crate::telemetry::Metrics;

const QUESTION: &str = "Say hello in one sentence.";
/// A sentence has no more.
const MOST_TOKENS: u32 = 48;
/// Characters of an answer that are shown.
const SHOWN: usize = 160;

const UNLOAD: &str =
    "unload what the daemon has loaded, or stop it, then check again: systemctl stop rkllmd";
const MEMORY: &str = "look at what the library says of it: journalctl, or the lines above";

/// What a daemon that runs holds of the memory and the NPU meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beside {
    NoDaemon,
    /// These models have a worker.
    Loaded(Vec<String>),
    /// It could not be asked.
    Unknown(String),
}

/// Loads `model` and has it answer: three checks, with what it shares the machine with.
///
/// # Errors
///
/// No worker or reader can be started at all.
pub fn try_model(
    settings: &Settings,
    model: &InstalledModel,
    beside: &Beside,
) -> io::Result<[Check; 3]> {
    let settings = alone(settings);
    let model = model.clone();
    // So that its caller is in no runtime of its own.
    let tried = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let checks = runtime.block_on(trial(&settings, model));
        runtime.shutdown_background();
        checks
    });
    let panicked = |_| io::Error::other("trying the model failed");
    let [mut load, answer] = tried.join().map_err(panicked)??;
    if let (Status::Fail, Beside::Loaded(models)) = (load.status, beside)
        && !models.is_empty()
    {
        load = load.remedy(UNLOAD);
    }
    Ok([
        beside.check().named("model.beside"),
        load.named("model.load"),
        answer.named("model.answer"),
    ])
}

impl Beside {
    fn check(&self) -> Check {
        match self {
            Self::NoDaemon => Check::ok("no daemon runs"),
            Self::Loaded(models) if models.is_empty() => {
                Check::ok("the daemon has no model loaded")
            }
            Self::Loaded(models) => {
                let models = models.join(", ");
                Check::warn(format!("the daemon has {models} loaded, beside this one"))
                    .expected("the memory and the NPU for this model alone")
                    .remedy(UNLOAD)
            }
            Self::Unknown(reason) => Check::skip(format!(
                "a daemon may run, which could not be asked: {reason}"
            )),
        }
    }
}

/// Without what a daemon of these settings keeps or does besides.
fn alone(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    settings.prefixes.limit_bytes = Some(0);
    settings.models.preload.clear();
    settings
}

/// What its worker loads: the model, and no adapter but the one that it is made with.
fn loaded(mut model: InstalledModel) -> InstalledModel {
    if let Some(adapted) = model.adapted.take() {
        model.facts.adapters = vec![adapted.facts.clone()];
    }
    model
}

async fn trial(settings: &Settings, model: InstalledModel) -> io::Result<[Check; 2]> {
    let adapter = model.adapter().cloned();
    let model = loaded(model);
    let metrics = Metrics::new();
    let readers = Readers::start(settings, metrics.clone())?;
    let catalog = Catalog::of_models([model.clone()]);
    let services = (metrics.clone(), &readers);
    let (supervisor, _status) = Supervisor::start(settings, &catalog, services, None)?;
    let client = ClientKey::new("check");
    let loaded = supervisor.load(client.clone(), Arc::clone(&model.id), None);
    let checks = match loaded.await {
        Err(error) => {
            let load = Check::fail(error.to_string())
                .expected("a model that the library loads")
                .remedy(MEMORY);
            [load, Check::skip("it could not be loaded")]
        }
        Ok(took) => {
            let services = RunServices {
                supervisor: supervisor.clone(),
                readers: readers.clone(),
                metrics,
            };
            let models = [Arc::clone(&model.id)];
            let admission = Admission::start(services, models, settings.queue.clone());
            let request = (client, adapter);
            let answered = answer(&admission, &readers, &model, request).await;
            [load(took), answer_check(answered)]
        }
    };
    // It dies with this process where it does not end.
    supervisor.shut_down(settings.deadlines.unload).await;
    Ok(checks)
}

fn load(took: Option<Duration>) -> Check {
    let seconds = took.unwrap_or_default().as_secs_f64();
    Check::ok(format!("loaded in {seconds:.1} s"))
}

async fn answer(
    admission: &Admission,
    readers: &Readers,
    model: &InstalledModel,
    (client, adapter): (ClientKey, Option<Arc<Adapter>>),
) -> Result<(String, Box<Completion>), String> {
    let said = |error: GenerationError| error.to_string();
    let prompt = match &model.template {
        TemplateState::Usable { .. } => {
            let question = ChatMessage::new(ChatRole::User, QUESTION);
            let request = RenderRequest::new(vec![question], jiff::Zoned::now().datetime());
            let rendered = readers.render(model, &request).await;
            rendered.map_err(|error| format!("its template: {error}"))?
        }
        TemplateState::None | TemplateState::Broken { .. } => {
            Prompt::of_text(PROBE_PROMPT.to_owned())
        }
    };
    let request = GenerationRequest {
        id: RequestId("check".into()),
        model: Arc::clone(&model.id),
        client,
        prompt: prompt.text.into(),
        prompt_tokens: prompt.tokens.map(Into::into),
        goes_by_tokens: false,
        sampling: SamplingRequest::default(),
        draws: DrawRequest::default(),
        strict_parameters: false,
        max_new_tokens: Some(MOST_TOKENS),
        constraint: None,
        adapter,
        redraws: RedrawLimits::default(),
        reply: None,
        thought_budget: None,
        stop: Vec::new(),
        resume: false,
        total_deadline: None,
        keep_alive: None,
    };
    let mut generation = admission.submit(request).map_err(said)?;
    let mut text = String::new();
    while let Some(event) = generation.next().await {
        match event {
            ReplyEvent::Started(_) => {}
            ReplyEvent::Piece(piece) => take(&mut text, piece),
            ReplyEvent::Pieces(pieces) => {
                for piece in pieces {
                    take(&mut text, piece);
                }
            }
            ReplyEvent::Finished(completion) => return Ok((text, completion)),
            ReplyEvent::Failed(error) => return Err(error.to_string()),
        }
    }
    Err("the answer ended without a result".to_owned())
}

fn take(text: &mut String, piece: ReplyPiece) {
    // All of it is content, because nothing says how it is read.
    if let ReplyPiece::Text(more) = piece {
        text.push_str(&more);
    }
}

fn answer_check(answered: Result<(String, Box<Completion>), String>) -> Check {
    let (text, completion) = match answered {
        Ok(answered) => answered,
        Err(reason) => {
            return Check::fail(reason)
                .expected("an answer to a short question")
                .remedy("rkllmd doctor");
        }
    };
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.is_empty() {
        return Check::warn("it answers a short question with nothing")
            .expected("a sentence")
            .remedy("look at its chat template and its `eos-ids`: rkllmd show MODEL");
    }
    let mut shown: String = words.chars().take(SHOWN).collect();
    if shown.len() < words.len() {
        shown.push('…');
    }
    let mut observed = format!("\"{shown}\"");
    if let Some(tokens) = completion.timings.predicted_n {
        observed += &format!(", {tokens} tokens");
    }
    if let Some(rate) = completion.timings.predicted_per_second {
        observed += &format!(", {rate:.1} tokens/s");
    }
    Check::ok(observed)
}
