//! An engine that answers with a script.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rkllmd::admission::{EmbeddingError, EmbeddingRequest, Generation, QueueFigures};
use rkllmd::chat::{Answering, Engine};
use rkllmd::constraint::{Compiled, CompiledGrammars, Limits, Wanted};
use rkllmd::generation::{GenerationError, GenerationRequest, ModelId};
use rkllmd::ipc::Prompt;
use rkllmd::library_calls::PooledRows;
use rkllmd::models::{Catalog, InstalledModel, Variant, VariantError};
use rkllmd::prompt::{ChatTemplate, ClientField, ControlTokenPolicy, ControlTokens, RenderRequest};
use rkllmd::reader::{Encoded, Encoding, ReaderError};
use rkllmd::supervisor::{StatusBoard, StatusSnapshot};
use rkllmd::telemetry::Metrics;
use tokio::sync::{mpsc, watch};

type Script = Box<dyn Fn(&GenerationRequest) -> Result<Generation, GenerationError> + Send + Sync>;

type Rows = Box<dyn Fn(&EmbeddingRequest) -> Result<PooledRows, EmbeddingError> + Send + Sync>;

/// A text with this in it never becomes tokens.
pub const NEVER_ENCODED: &str = "never encoded";
/// A conversation with this in it never becomes a prompt.
pub const NEVER_RENDERED: &str = "never rendered";

/// Answers each submitted request with a script, and hands the request to the test.
pub struct ScriptedEngine {
    pub(super) script: Script,
    pub(super) submitted: mpsc::UnboundedSender<GenerationRequest>,
    pub(super) templates: HashMap<&'static str, ChatTemplate>,
    pub(super) catalog: Mutex<Arc<Catalog>>,
    pub(super) status: watch::Receiver<StatusSnapshot>,
    pub(super) queue: Mutex<QueueFigures>,
    pub(super) metrics: Metrics,
    /// As a reader keeps them: a request after the other wants the same.
    pub(super) grammars: Mutex<CompiledGrammars>,
    pub(super) rows: Mutex<Rows>,
    pub(super) embedded: mpsc::UnboundedSender<EmbeddingRequest>,
}

impl Engine for ScriptedEngine {
    fn submit(&self, request: GenerationRequest) -> Result<Generation, GenerationError> {
        let generation = (self.script)(&request);
        // The test may have ended already.
        let _ = self.submitted.send(request);
        generation
    }

    fn embed(&self, request: EmbeddingRequest) -> Answering<'_, PooledRows, EmbeddingError> {
        let rows = (self.rows.lock().unwrap())(&request);
        let _ = self.embedded.send(request);
        Box::pin(async move { rows })
    }

    fn render<'a>(
        &'a self,
        model: &'a InstalledModel,
        request: &'a RenderRequest,
    ) -> Answering<'a, Prompt, ReaderError> {
        let rendered = self.templates[&*model.id].render(request);
        Box::pin(async move {
            let rendered = rendered.map_err(ReaderError::Template)?;
            if rendered.prompt.contains(NEVER_RENDERED) {
                std::future::pending::<()>().await;
            }
            Ok(Prompt {
                text: rendered.prompt,
                neutralised: rendered.neutralised_in,
                ..Prompt::default()
            })
        })
    }

    fn plain<'a>(
        &'a self,
        model: &'a InstalledModel,
        texts: Vec<String>,
        policy: Option<ControlTokenPolicy>,
        _with_tokens: bool,
    ) -> Answering<'a, Vec<Prompt>, ReaderError> {
        let tokens = match &*model.id {
            "test/model-1.0" => control_tokens(),
            _ => ControlTokens::default(),
        };
        Box::pin(async move {
            let prompts = texts.into_iter().enumerate().map(|(index, text)| {
                let (text, neutralised) = match (policy, tokens.find(&text)) {
                    (None, _) | (_, None) => (text, Vec::new()),
                    (Some(ControlTokenPolicy::Neutralise), Some(_)) => {
                        let text = tokens.neutralise(&text).into_owned();
                        (text, vec![ClientField::Texts])
                    }
                    (Some(ControlTokenPolicy::Reject), Some(token)) => {
                        let token = token.to_owned();
                        return Err(ReaderError::ControlToken { index, token });
                    }
                };
                Ok(Prompt {
                    neutralised,
                    text,
                    ..Prompt::default()
                })
            });
            prompts.collect()
        })
    }

    /// `raw` has no tokenizer; elsewhere a byte is a token, special ones are 1 and 2, and none is
    /// above 255.
    fn encode<'a>(
        &'a self,
        model: &'a InstalledModel,
        text: String,
        how: Encoding,
    ) -> Answering<'a, Encoded, ReaderError> {
        Box::pin(async move {
            if &*model.id == "raw" {
                return Err(unknown_tokenizer(&model.id));
            }
            if text.contains(NEVER_ENCODED) {
                std::future::pending::<()>().await;
            }
            let bytes = text.into_bytes();
            let mut tokens: Vec<u32> = bytes.iter().copied().map(u32::from).collect();
            if how.add_special {
                tokens.insert(0, 1);
                tokens.push(2);
            }
            let pieces = tokens.iter().map(|&token| vec![token as u8]).collect();
            Ok(Encoded {
                tokens,
                pieces: how.with_pieces.then_some(pieces),
            })
        })
    }

    fn constrain<'a>(
        &'a self,
        model: &'a InstalledModel,
        wanted: Wanted,
        limits: Limits,
    ) -> Answering<'a, Compiled, ReaderError> {
        Box::pin(async move {
            match &*model.id {
                "raw" => Err(unknown_tokenizer(&model.id)),
                _ => {
                    let mut grammars = self.grammars.lock().unwrap();
                    let compiled = grammars.compile(&wanted, &limits);
                    compiled.map_err(ReaderError::Unenforceable)
                }
            }
        })
    }

    fn decode<'a>(
        &'a self,
        model: &'a InstalledModel,
        tokens: Vec<u32>,
    ) -> Answering<'a, String, ReaderError> {
        Box::pin(async move {
            if &*model.id == "raw" {
                return Err(unknown_tokenizer(&model.id));
            }
            let bytes: Result<Vec<u8>, _> = tokens.iter().copied().map(u8::try_from).collect();
            match bytes {
                Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
                Err(_) => {
                    let index = tokens.iter().position(|&token| token > 255);
                    let index = index.expect("one of them");
                    Err(ReaderError::NoSuchToken { index })
                }
            }
        })
    }

    fn save_variant(&self, variant: Variant) -> Answering<'_, (), VariantError> {
        self.change_variants(|variants| {
            variants.retain(|it| it.name != variant.name);
            variants.push(variant);
        });
        Box::pin(async { Ok(()) })
    }

    fn remove_variant(&self, name: ModelId) -> Answering<'_, (), VariantError> {
        self.change_variants(|variants| variants.retain(|it| it.name != name));
        Box::pin(async { Ok(()) })
    }

    fn queue(&self, _model: &str) -> QueueFigures {
        *self.queue.lock().unwrap()
    }

    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.lock().unwrap())
    }

    fn status(&self) -> StatusBoard {
        StatusBoard::new(self.status.clone())
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

impl ScriptedEngine {
    fn change_variants(&self, change: impl FnOnce(&mut Vec<Variant>)) {
        let mut catalog = self.catalog.lock().unwrap();
        let variants = catalog
            .listed()
            .filter_map(|model| model.variant.as_deref());
        let mut variants: Vec<Variant> = variants.cloned().collect();
        change(&mut variants);
        *catalog = Arc::new(catalog.with_variants(variants));
    }
}

fn control_tokens() -> ControlTokens {
    ["<|im_start|>", "<|im_end|>"].into_iter().collect()
}

fn unknown_tokenizer(model: &str) -> ReaderError {
    ReaderError::NoTokenizer {
        model: model.to_owned(),
    }
}
