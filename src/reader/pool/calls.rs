//! What readers are asked: what is in a folder, what is at a location, and a model's work for a request.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::exchange::LocationAnswer;
use super::idle::Reader;
use super::trust::Trust;
use super::{Readers, lock};
use crate::constraint::{Compiled, Limits, Vocabulary, Wanted};
use crate::generation::{Deadline, ModelId};
use crate::ipc::{
    ListedEntry, ModelLocation, Prompt, ReaderCommand, ReaderEvent, ReaderWork, TemplateState,
    TokenPieces,
};
use crate::models::InstalledModel;
use crate::prompt::{ControlTokenPolicy, RenderRequest};
use crate::reader::ReaderError;

/// Making a grammar, as errors say it. A client's schema is in there.
pub(crate) const CONSTRAINING: &str = "making a grammar";

/// Where the caller's limit counts.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// A text's tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    pub tokens: Vec<u32>,
    /// The bytes of each token, where they were asked for.
    pub pieces: Option<TokenPieces>,
}

impl Encoded {
    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        let pieces = self.pieces.as_ref().map_or(0, TokenPieces::bytes);
        size_of_val(&*self.tokens) + pieces
    }
}

/// How long a location may take to be read, beside its deadlines.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    Endless,
    For(Duration),
    /// As long as no request waits for a model that has served none yet.
    UntilWanted,
}

/// How a text is made into tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Add the special tokens that belong around a text.
    pub add_special: bool,
    pub with_pieces: bool,
}

impl Readers {
    /// The names in the models folder, and whether there are more.
    pub(crate) async fn list(&self, folder: &Path) -> io::Result<(Vec<ListedEntry>, bool)> {
        let limits = self.shared.limits();
        let command = ReaderCommand::List {
            folder: folder.into(),
            limits: limits.reader,
        };
        let other = |error: ReaderError| match error {
            ReaderError::DeadlineExceeded { .. } => {
                io::Error::new(io::ErrorKind::TimedOut, error.to_string())
            }
            _ => io::Error::other(error.to_string()),
        };
        let name = ModelId::from("models folder");
        let wait = limits.open + limits.call;
        let _turn = self.untrusted_turn(wait).await.map_err(other)?;
        let mut busy = self.busy(wait).await.map_err(other)?;
        let mut child = self.start_in_place(&name, &mut busy).await.map_err(other)?;
        let listed = self
            .exchange(
                &name,
                &mut child,
                &command,
                ("listing", Deadline::ReaderOpen),
            )
            .await
            .map_err(other);
        match listed? {
            ReaderEvent::Listed { entries, more } => Ok((entries, more)),
            ReaderEvent::NotListed {
                os_error: Some(code),
                ..
            } => Err(io::Error::from_raw_os_error(code)),
            ReaderEvent::NotListed { reason, .. } => Err(io::Error::other(reason)),
            _ => Err(io::Error::other("a reader answered another question")),
        }
    }

    /// What is at `location`, read by a process of its own, which ends afterwards, and when the patience is
    /// over.
    pub(crate) async fn location(
        &self,
        model: &ModelId,
        location: &ModelLocation,
        patience: Patience,
    ) -> Result<LocationAnswer, ReaderError> {
        // A scan has a limit for the whole.
        let _turn = self.untrusted_turn(LONGEST_WAIT).await?;
        let mut busy = self.busy(LONGEST_WAIT).await?;
        let reading = async {
            let mut child = self.start_in_place(model, &mut busy).await?;
            self.open(model, &mut child, location, ReaderWork::Prompts)
                .await
        };
        tokio::select! {
            answer = reading => answer,
            () = self.is_over(patience) => Ok(LocationAnswer::Late(busy.process.clone())),
        }
    }

    async fn is_over(&self, patience: Patience) {
        match patience {
            Patience::Endless => std::future::pending().await,
            Patience::For(time) => tokio::time::sleep(time).await,
            Patience::UntilWanted => {
                let mut waiting = self.shared.newcomers.subscribe();
                // The sender is in what `self` holds.
                let _ = waiting.wait_for(|waiting| *waiting > 0).await;
            }
        }
    }

    /// Renders a conversation with the model's template; with its tokens where it has a tokenizer.
    pub async fn render(
        &self,
        model: &InstalledModel,
        request: &RenderRequest,
    ) -> Result<Prompt, ReaderError> {
        let request = serde_json::to_string(request).map_err(|error| ReaderError::Unusable {
            model: model.id.to_string(),
            reason: error.to_string(),
        })?;
        let command = ReaderCommand::Render {
            request,
            counted_bytes: model.longest_prompt_bytes(),
        };
        match self.ask(model, &command, "rendering").await? {
            ReaderEvent::Prompts(prompts) => one(model, prompts),
            ReaderEvent::NotRendered(error) => Err(ReaderError::Template(error)),
            other => Err(unexpected(model, other, "rendering")),
        }
    }

    /// Prompts of plain texts, in which control tokens stay text, or are refused, as `policy` says;
    /// without one they are control tokens.
    pub async fn plain(
        &self,
        model: &InstalledModel,
        texts: Vec<String>,
        policy: Option<ControlTokenPolicy>,
        with_tokens: bool,
    ) -> Result<Vec<Prompt>, ReaderError> {
        let command = ReaderCommand::Plain {
            texts,
            policy,
            counted_bytes: if with_tokens {
                model.longest_prompt_bytes()
            } else {
                0
            },
        };
        match self.ask(model, &command, "tokenizing").await? {
            ReaderEvent::Prompts(prompts) => Ok(prompts),
            ReaderEvent::ControlToken { index, token } => {
                Err(ReaderError::ControlToken { index, token })
            }
            other => Err(unexpected(model, other, "tokenizing")),
        }
    }

    /// The tokens of `text`.
    pub async fn encode(
        &self,
        model: &InstalledModel,
        text: String,
        how: Encoding,
    ) -> Result<Encoded, ReaderError> {
        let command = ReaderCommand::Encode {
            text,
            add_special: how.add_special,
            with_pieces: how.with_pieces,
        };
        match self.ask_tokenizer(model, &command).await? {
            ReaderEvent::Encoded { tokens, pieces }
                if pieces.as_ref().is_none_or(|all| all.are_of(tokens.len())) =>
            {
                Ok(Encoded { tokens, pieces })
            }
            other => Err(unexpected(model, other, "tokenizing")),
        }
    }

    /// The text of `tokens`.
    pub async fn decode(
        &self,
        model: &InstalledModel,
        tokens: Vec<u32>,
    ) -> Result<String, ReaderError> {
        let command = ReaderCommand::Decode { tokens };
        match self.ask_tokenizer(model, &command).await? {
            ReaderEvent::Decoded { text } => Ok(text),
            other => Err(unexpected(model, other, "tokenizing")),
        }
    }

    /// The grammar of what a client wants an answer of the model to be.
    pub async fn constrain(
        &self,
        model: &InstalledModel,
        wanted: Wanted,
        limits: Limits,
    ) -> Result<Compiled, ReaderError> {
        if !model.tells_its_tokens() {
            return Err(ReaderError::NoTokenizer {
                model: model.id.to_string(),
            });
        }
        let command = ReaderCommand::Constrain { wanted, limits };
        match self.ask(model, &command, CONSTRAINING).await? {
            ReaderEvent::Constrained(compiled) => Ok(compiled),
            ReaderEvent::NotConstrained(error) => Err(ReaderError::Unenforceable(error)),
            other => Err(unexpected(model, other, CONSTRAINING)),
        }
    }

    /// The bytes of the model's tokens.
    pub(crate) async fn vocabulary(
        &self,
        model: &InstalledModel,
    ) -> Result<Vocabulary, ReaderError> {
        match self
            .ask(model, &ReaderCommand::Vocabulary, "tokenizing")
            .await?
        {
            ReaderEvent::Vocabulary(vocabulary) if vocabulary.is_whole() => Ok(vocabulary),
            other => Err(unexpected(model, other, "tokenizing")),
        }
    }

    async fn ask_tokenizer(
        &self,
        model: &InstalledModel,
        command: &ReaderCommand,
    ) -> Result<ReaderEvent, ReaderError> {
        if model.tokenizer_json.is_none() {
            return Err(ReaderError::NoTokenizer {
                model: model.id.to_string(),
            });
        }
        self.ask(model, command, "tokenizing").await
    }

    /// Asks a reader of the model: an idle one, or a new one.
    async fn ask(
        &self,
        model: &InstalledModel,
        command: &ReaderCommand,
        doing: &'static str,
    ) -> Result<ReaderEvent, ReaderError> {
        let Some(location) = &model.location else {
            return Err(ReaderError::Unusable {
                model: model.id.to_string(),
                reason: "it was not found in the models folder".to_owned(),
            });
        };
        let trust = lock(&self.shared.standings).of(&model.id);
        let _turn = match trust {
            Trust::Proven => None,
            Trust::Unknown | Trust::Broken => {
                // Each model is one for a request or two, so that who gives way is not kept from work.
                let _newcomer = (trust == Trust::Unknown).then(|| self.shared.newcomer());
                Some(self.untrusted_turn(self.shared.limits().call).await?)
            }
        };
        let event = self.ask_at(model, location, command, doing).await;
        match &event {
            Ok(_) => lock(&self.shared.standings).proven(&model.id),
            Err(ReaderError::Ended { .. } | ReaderError::DeadlineExceeded { .. }) => {
                lock(&self.shared.standings).failed(&model.id, command);
            }
            Err(_) => {}
        }
        event
    }

    async fn ask_at(
        &self,
        model: &InstalledModel,
        location: &ModelLocation,
        command: &ReaderCommand,
        doing: &'static str,
    ) -> Result<ReaderEvent, ReaderError> {
        let work = match (command, &model.template) {
            (ReaderCommand::Constrain { .. }, _) => ReaderWork::Grammars,
            (_, TemplateState::Usable { .. }) => ReaderWork::Prompts,
            _ => ReaderWork::Texts,
        };
        let kind = (doing, Deadline::ReaderCall);
        let mut busy = self.busy(self.shared.limits().call).await?;
        if let Some(mut reader) = self.shared.take_idle(location, work) {
            busy.process = Some(reader.child.process.clone());
            match self
                .exchange(&model.id, &mut reader.child, command, kind)
                .await
            {
                // It may have ended since it was last asked.
                Err(ReaderError::Ended { .. }) => drop(reader),
                Err(error) => return Err(error),
                Ok(event) => {
                    self.shared.give_back(reader, busy);
                    return Ok(event);
                }
            }
        }
        let generation = self.shared.idle().generation;
        let mut child = self.start_in_place(&model.id, &mut busy).await?;
        match self.open(&model.id, &mut child, location, work).await? {
            LocationAnswer::Model(_) => {}
            LocationAnswer::Unusable { problem, .. } => {
                return Err(ReaderError::Unusable {
                    model: model.id.to_string(),
                    reason: problem,
                });
            }
            LocationAnswer::Folders(_)
            | LocationAnswer::Nothing
            | LocationAnswer::NeedsFile(_)
            | LocationAnswer::Late(_) => {
                return Err(ReaderError::Unusable {
                    model: model.id.to_string(),
                    reason: "they have changed; a reload reads them again".to_owned(),
                });
            }
        }
        let event = self.exchange(&model.id, &mut child, command, kind).await?;
        let reader = Reader {
            child,
            location: location.clone(),
            work,
            generation,
            idle_since: Instant::now(),
        };
        self.shared.give_back(reader, busy);
        Ok(event)
    }
}

fn one(model: &InstalledModel, mut prompts: Vec<Prompt>) -> Result<Prompt, ReaderError> {
    prompts.pop().ok_or_else(|| ReaderError::Unusable {
        model: model.id.to_string(),
        reason: "an answer without a prompt".to_owned(),
    })
}

fn unexpected(model: &InstalledModel, event: ReaderEvent, doing: &'static str) -> ReaderError {
    let model = model.id.to_string();
    match event {
        ReaderEvent::NoSuchToken { index } => ReaderError::NoSuchToken { index },
        ReaderEvent::NoTokenizer => ReaderError::NoTokenizer { model },
        ReaderEvent::Failed { reason } => ReaderError::Failed {
            model,
            doing,
            reason,
        },
        // Not shown: it may hold another client's text.
        _ => ReaderError::Unusable {
            model,
            reason: "an answer to another question".to_owned(),
        },
    }
}
