//! What a reader answers of a model whose files are read: prompts, tokens, and grammars of what clients want.

use std::sync::Arc;

use anyhow::Context;

use super::files::OpenFile;
use super::functions;
use super::gguf;
use super::manifest::Prefixes;
use super::pinned;
use super::read_model::ReadModel;
use super::tokenizer::Tokenizer;
use crate::constraint::{CompiledGrammars, Limits, Vocabulary, Wanted};
use crate::ipc::{
    PinnedPrompt, Prompt, ReaderCommand, ReaderEvent, SharedPrefixes, TemplateState, TokenPieces,
};
use crate::prompt::{
    ChatTemplate, ClientField, ControlTokenPolicy, ControlTokens, PromptEnd, RenderLimits,
    RenderRequest, pinned_prefix, shared_prefix,
};
use crate::reply::FoundFormat;

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

fn shared_prefixes(template: &ChatTemplate, named: &Prefixes) -> SharedPrefixes {
    let mut shared = SharedPrefixes::default();
    for (nth, system) in named.shared.iter().enumerate() {
        match shared_prefix(template, system) {
            Ok(text) => shared.texts.push(text),
            Err(reason) => {
                let nth = nth + 1;
                let problem = format!("number {nth} of prefixes.shared is not shared: {reason}");
                shared.problems.push(problem);
            }
        }
    }
    let mut left = pinned::MOST_WRITTEN_BYTES;
    for entry in &named.pinned {
        let name = entry.name.clone();
        let tools = entry.tools();
        let text = tools.and_then(|tools| pinned_prefix(template, entry.system.as_deref(), tools));
        let text = text.and_then(|text| match left.checked_sub(text.len()) {
            Some(rest) => {
                left = rest;
                Ok(text)
            }
            None => Err(format!(
                "the chat template writes {} bytes of it, and {left} are left of those allowed",
                text.len()
            )),
        });
        match text {
            Ok(text) => shared.pinned.push(PinnedPrompt { name, text }),
            Err(reason) => {
                let problem =
                    format!("the prompt `{name}` of prefixes.pinned is not pinned: {reason}");
                shared.problems.push(problem);
            }
        }
    }
    shared
}

/// A model whose files are read.
pub(super) struct Model {
    template: Option<ChatTemplate>,
    control_tokens: Arc<ControlTokens>,
    tokenizer: LazyTokenizer,
    gguf: Option<OpenFile>,
    /// What ends its answers: a token by its text, others by their ids.
    ends: (String, Vec<i32>),
    grammars: CompiledGrammars,
    /// Of one rendering.
    limits: RenderLimits,
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
    pub(super) fn new(
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
                let draft = ChatTemplate::draft(&text, read.special, tokens);
                let ready = draft.and_then(|mut template| {
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
                            shared: shared_prefixes(&template, &read.prefixes),
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
            grammars: CompiledGrammars::default(),
            limits,
            told: false,
        };
        (model, state, replies)
    }

    pub(super) fn answer(&mut self, command: ReaderCommand) -> anyhow::Result<ReaderEvent> {
        Ok(match command {
            ReaderCommand::List { .. } | ReaderCommand::Open { .. } => {
                anyhow::bail!("a second location to open")
            }
            ReaderCommand::Render {
                request,
                counted_bytes,
            } => self.render(&request, counted_bytes)?,
            ReaderCommand::Constrain { wanted, limits } => self.constrain(&wanted, &limits),
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

    fn constrain(&mut self, wanted: &Wanted, limits: &Limits) -> ReaderEvent {
        match self.grammars.compile(wanted, limits) {
            Ok(compiled) => ReaderEvent::Constrained(compiled),
            Err(error) => ReaderEvent::NotConstrained(error),
        }
    }

    fn render(&mut self, request: &str, counted_bytes: usize) -> anyhow::Result<ReaderEvent> {
        let request: RenderRequest =
            serde_json::from_str(request).context("reading the conversation")?;
        let rendered = match (&self.template, &request.template) {
            (Some(own), _) => own.render(&request),
            (None, Some(other)) => other.render(&request, &self.control_tokens, self.limits),
            (None, None) => anyhow::bail!("it has no chat template"),
        };
        let rendered = match rendered {
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
            if tokenizer.is_special(id) {
                vocabulary.last_is_unprinted();
            }
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
