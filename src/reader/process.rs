//! A reader's life: hello, one command that opens, the sandbox, and then what is asked until the link
//! closes. It has one thread.

use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;

use super::ReaderKind;
use super::files::{self, OpenFile};
use super::functions;
use super::gguf;
use super::open_model::{self, Contents, Unusable};
use super::read_model::{ReadModel, Unread};
use super::sandbox;
use super::tokenizer::Tokenizer;
use crate::children::{ChildArguments, ChildKind, ChildLink, process_setup};
use crate::constraint::{self, Limits, Unenforceable, Vocabulary, Wanted};
use crate::ipc::{
    ModelLocation, PROTOCOL_VERSION, Prompt, RawPath, ReaderCommand, ReaderEvent, ReaderLimits,
    TemplateState, TokenPieces,
};
use crate::prompt::{
    ChatTemplate, ClientField, ControlTokenPolicy, ControlTokens, PromptEnd, RenderLimits,
    RenderRequest,
};
use crate::reply::FoundFormat;

/// Answers until the daemon closes the connection.
pub fn run(arguments: ChildArguments) -> ExitCode {
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("E rkllmd-reader: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: ChildArguments) -> anyhow::Result<()> {
    let socket = process_setup::prepare(arguments, c"rkllmd-reader")?;
    let descriptor = socket.as_raw_fd();
    let mut link = ChildLink::new(socket);
    let theirs = link.daemons_hello()?;
    link.send(&ReaderEvent::Hello {
        protocol: PROTOCOL_VERSION,
    })?;
    theirs?;
    // No thread may be started later.
    tokenizers::utils::parallelism::set_parallelism(false);
    match link.receive::<ReaderCommand>()? {
        Some(ReaderCommand::List { folder, limits }) => {
            let listed = list(&folder);
            sandbox::enter(descriptor, limits)?;
            link.send(&listed)
        }
        Some(ReaderCommand::Open {
            location,
            limits,
            with_template,
        }) => Reader { link, descriptor }.open(&location, limits, with_template),
        Some(_) => anyhow::bail!("a question before anything was opened"),
        None => Ok(()),
    }
}

fn list(folder: &RawPath) -> ReaderEvent {
    let listed = files::open_folder(&folder.to_path()).and_then(|folder| files::list(&folder));
    match listed {
        Ok((entries, more)) => ReaderEvent::Listed { entries, more },
        Err(error) => ReaderEvent::NotListed {
            os_error: error.raw_os_error(),
            reason: error.to_string(),
        },
    }
}

struct Reader {
    link: ChildLink,
    descriptor: i32,
}

impl Reader {
    fn open(
        mut self,
        location: &ModelLocation,
        limits: ReaderLimits,
        with_template: bool,
    ) -> anyhow::Result<()> {
        let opened = open_model::open(location);
        sandbox::enter(self.descriptor, limits)?;
        let unusable = |Unusable { file, problem }| ReaderEvent::Unusable { file, problem };
        let read = match opened {
            Contents::Model(model) => model.read(),
            Contents::Folders(folders) => return self.link.send(&ReaderEvent::Folders(folders)),
            Contents::Nothing => return self.link.send(&ReaderEvent::Nothing),
            Contents::Unusable(reason) => return self.link.send(&unusable(reason)),
        };
        let read = match read {
            Ok(read) => read,
            Err(Unread::Unusable(reason)) => return self.link.send(&unusable(reason)),
            Err(Unread::NeedsFile(name)) => {
                return self.link.send(&ReaderEvent::NeedsFile { name });
            }
        };
        let bytes = read.control_token_bytes();
        if bytes > limits.control_token_bytes {
            let problem = format!(
                "its control tokens have {bytes} bytes; `control-tokens-limit-bytes` in the [reader] \
                 settings allows {}",
                limits.control_token_bytes
            );
            return self.link.send(&unusable(Unusable::folder(problem)));
        }
        // Said before the template is tried, which may be the end of this process.
        self.link.send(&ReaderEvent::Facts {
            json: serde_json::to_string(&read.report)?,
        })?;
        let (mut model, state, replies) = Model::new(read, with_template, limits.render);
        if let Some(found) = replies {
            self.link.send(&ReaderEvent::Replies {
                json: serde_json::to_string(&found)?,
            })?;
        }
        self.link.send(&ReaderEvent::Template(state))?;
        while let Some(command) = self.link.receive::<ReaderCommand>()? {
            let event = model.answer(command).unwrap_or_else(failed);
            match self.link.send_within(&event, ReaderKind::EVENT_LIMIT_BYTES) {
                Ok(Ok(())) => {}
                Ok(Err(bytes)) => self.link.send(&ReaderEvent::TooLarge { bytes })?,
                Err(error) => self.link.send(&failed(error))?,
            }
            if used_more_than_half(limits) {
                // Before its limit takes it in the middle of an answer.
                break;
            }
        }
        Ok(())
    }
}

fn used_more_than_half(limits: ReaderLimits) -> bool {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let used = u64::try_from(used.tv_sec).unwrap_or(u64::MAX);
    used >= limits.cpu.as_secs() / 2
}

fn failed(error: anyhow::Error) -> ReaderEvent {
    ReaderEvent::Failed {
        reason: format!("{error:#}"),
    }
}

/// How much of the prompt's end is the answer's own beginning, as the client sent it.
fn begun_bytes(request: &RenderRequest, prompt: &str) -> usize {
    let last = request.messages.last();
    let begun = last.filter(|_| request.end == PromptEnd::Continuation);
    let begun = begun.map_or("", |message| message.content.as_str());
    // Some templates trim what is said.
    let written = [begun, begun.trim()];
    let written = written.into_iter().find(|begun| prompt.ends_with(begun));
    written.map_or(0, str::len)
}

fn constrain(wanted: &Wanted, limits: &Limits) -> ReaderEvent {
    match constraint::compile(wanted, limits) {
        Ok(compiled) => ReaderEvent::Constrained(compiled),
        Err(Unenforceable { pointer, reason }) => ReaderEvent::NotConstrained { pointer, reason },
    }
}

/// A model whose files are read.
struct Model {
    template: Option<ChatTemplate>,
    control_tokens: Arc<ControlTokens>,
    tokenizer: LazyTokenizer,
    gguf: Option<OpenFile>,
    /// What ends its answers: a token by its text, others by their ids.
    ends: (String, Vec<i32>),
    /// That prompts cannot be counted was said.
    told: bool,
}

/// Read when it is first needed: it is the largest part.
enum LazyTokenizer {
    None,
    Unread(std::fs::File),
    Read(Box<Tokenizer>),
    Broken(String),
}

impl Model {
    fn new(
        read: ReadModel,
        with_template: bool,
        limits: RenderLimits,
    ) -> (Self, TemplateState, Option<FoundFormat>) {
        let ends = (
            read.special.eos.clone(),
            read.report.facts.extra_eos_ids.clone(),
        );
        let control_tokens =
            ControlTokens::with_normalized(read.control_tokens, read.normalized_tokens);
        let mut control_tokens = Arc::new(control_tokens);
        let broken = |reason| (None, TemplateState::Broken { reason });
        let mut replies = None;
        let (template, state) = match read.template {
            None => (None, TemplateState::None),
            Some(Err(reason)) => broken(reason),
            Some(Ok(_)) if !with_template => (None, TemplateState::None),
            Some(Ok(text)) => {
                let tokens = Arc::clone(&control_tokens);
                let compiled = ChatTemplate::compile(&text, read.special, tokens);
                let ready = compiled.and_then(|mut template| {
                    template.set_limits(limits);
                    let (ids, told) = (&read.token_ids, &read.told);
                    let found = functions::find_format(&text, &mut template, ids, told)?;
                    Ok((template, found))
                });
                match ready {
                    Err(error) => broken(error.to_string()),
                    Ok((template, found)) => {
                        replies = Some(found);
                        control_tokens = Arc::clone(template.control_tokens());
                        let failed_probe = template.failed_probe();
                        let state = TemplateState::Usable {
                            failed_probe: failed_probe.map(ToString::to_string),
                        };
                        (Some(template), state)
                    }
                }
            }
        };
        let model = Self {
            template,
            control_tokens,
            tokenizer: match read.tokenizer {
                None => LazyTokenizer::None,
                Some(file) => LazyTokenizer::Unread(file.file),
            },
            gguf: read.gguf,
            ends,
            told: false,
        };
        (model, state, replies)
    }

    fn answer(&mut self, command: ReaderCommand) -> anyhow::Result<ReaderEvent> {
        Ok(match command {
            ReaderCommand::List { .. } | ReaderCommand::Open { .. } => {
                anyhow::bail!("a second location to open")
            }
            ReaderCommand::Render {
                request,
                counted_bytes,
            } => self.render(&request, counted_bytes)?,
            ReaderCommand::Constrain { wanted, limits } => constrain(&wanted, &limits),
            ReaderCommand::Vocabulary => self.vocabulary()?,
            ReaderCommand::Plain {
                texts,
                policy,
                counted_bytes,
            } => self.plain(texts, policy, counted_bytes)?,
            ReaderCommand::Encode {
                text,
                add_special,
                with_pieces,
            } => {
                let Some(tokenizer) = self.tokenizer()? else {
                    return Ok(ReaderEvent::NoTokenizer);
                };
                let tokens = tokenizer.encode_ids(&text, add_special)?;
                let pieces = with_pieces.then(|| {
                    let pieces = tokens.iter().map(|&id| tokenizer.piece(id));
                    pieces
                        .map(Option::unwrap_or_default)
                        .collect::<TokenPieces>()
                });
                ReaderEvent::Encoded { tokens, pieces }
            }
            ReaderCommand::Decode { tokens } => {
                let Some(tokenizer) = self.tokenizer()? else {
                    return Ok(ReaderEvent::NoTokenizer);
                };
                match tokens.iter().position(|&id| !tokenizer.is_token(id)) {
                    Some(index) => ReaderEvent::NoSuchToken { index },
                    None => ReaderEvent::Decoded {
                        text: tokenizer.decode(&tokens)?,
                    },
                }
            }
        })
    }

    fn render(&mut self, request: &str, counted_bytes: usize) -> anyhow::Result<ReaderEvent> {
        let request: RenderRequest =
            serde_json::from_str(request).context("reading the conversation")?;
        let template = self.template.as_ref().context("it has no chat template")?;
        let rendered = match template.render(&request) {
            Ok(rendered) => rendered,
            Err(error) => return Ok(ReaderEvent::NotRendered(error)),
        };
        let tokens = self.ids(&rendered.prompt, counted_bytes);
        Ok(ReaderEvent::Prompts(vec![Prompt {
            begun_bytes: begun_bytes(&request, &rendered.prompt),
            text: rendered.prompt,
            tokens,
            neutralised: rendered.neutralised_in,
        }]))
    }

    fn plain(
        &mut self,
        texts: Vec<String>,
        policy: Option<ControlTokenPolicy>,
        counted_bytes: usize,
    ) -> anyhow::Result<ReaderEvent> {
        let mut prompts = Vec::with_capacity(texts.len());
        for (index, text) in texts.into_iter().enumerate() {
            // Where they are wanted, nothing looks for them.
            let found = policy.and_then(|policy| Some((policy, self.control_tokens.find(&text)?)));
            let (text, neutralised) = match found {
                None => (text, Vec::new()),
                Some((ControlTokenPolicy::Neutralise, _)) => {
                    let text = self.control_tokens.neutralise(&text).into_owned();
                    (text, vec![ClientField::Texts])
                }
                Some((ControlTokenPolicy::Reject, token)) => {
                    let token = token.to_owned();
                    return Ok(ReaderEvent::ControlToken { index, token });
                }
            };
            let tokens = self.ids(&text, counted_bytes);
            prompts.push(Prompt {
                tokens,
                neutralised,
                text,
                begun_bytes: 0,
            });
        }
        Ok(ReaderEvent::Prompts(prompts))
    }

    fn vocabulary(&mut self) -> anyhow::Result<ReaderEvent> {
        let (end, ends) = self.ends.clone();
        if let Some(file) = &self.gguf {
            // The file that is loaded has the last word.
            return Ok(match gguf::vocabulary(&file.file, file.len)? {
                None => ReaderEvent::NoTokenizer,
                Some(mut vocabulary) => {
                    vocabulary.ends.extend(ends);
                    ReaderEvent::Vocabulary(vocabulary)
                }
            });
        }
        let Some(tokenizer) = self.tokenizer()? else {
            return Ok(ReaderEvent::NoTokenizer);
        };
        let mut vocabulary = Vocabulary::default();
        for id in 0..tokenizer.ids_end() {
            let piece = tokenizer.piece(id);
            vocabulary.push(piece.as_deref(), tokenizer.is_added(id));
        }
        vocabulary.ends = ends;
        let end = tokenizer.id_of(&end).and_then(|id| i32::try_from(id).ok());
        vocabulary.ends.extend(end);
        Ok(ReaderEvent::Vocabulary(vocabulary))
    }

    /// The tokens of a prompt, where they can be had: without them the runtime counts.
    fn ids(&mut self, text: &str, counted_bytes: usize) -> Option<Vec<i32>> {
        if text.len() > counted_bytes {
            return None;
        }
        let ids = self.tokenizer().and_then(|tokenizer| {
            let ids = tokenizer.map(|tokenizer| tokenizer.ids(text));
            ids.transpose()
        });
        match ids {
            Ok(ids) => ids,
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    eprintln!("W rkllmd-reader: prompts are not counted: {error:#}");
                }
                None
            }
        }
    }

    fn tokenizer(&mut self) -> anyhow::Result<Option<&Tokenizer>> {
        if let LazyTokenizer::Unread(file) = &self.tokenizer {
            self.tokenizer = match Tokenizer::read(file) {
                Ok(tokenizer) => LazyTokenizer::Read(Box::new(tokenizer)),
                Err(error) => LazyTokenizer::Broken(format!("{error:#}")),
            };
        }
        match &self.tokenizer {
            LazyTokenizer::Read(tokenizer) => Ok(Some(tokenizer)),
            LazyTokenizer::Broken(reason) => anyhow::bail!("{reason}"),
            LazyTokenizer::None | LazyTokenizer::Unread(_) => Ok(None),
        }
    }
}
