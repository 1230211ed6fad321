//! From a template's source to one that keeps its control tokens apart from its clients' texts.

use std::sync::Arc;

use minijinja::Environment;

use super::{ChatTemplate, SpecialTokens};
use crate::prompt::control_tokens::ControlTokens;
use crate::prompt::environment::{self, RenderLimits};
use crate::prompt::family::TemplateFamily;
use crate::prompt::own_words::{self, Assembly};
use crate::prompt::probe::{self, SystemMessage};
use crate::prompt::twins::Twins;
use crate::prompt::{Functions, TemplateError, calls};

impl ChatTemplate {
    /// Compiles a template and lets it render short conversations, which tell how its control tokens are put
    /// together and what it does with a system message.
    pub fn compile(
        source: &str,
        special: SpecialTokens,
        control_tokens: Arc<ControlTokens>,
    ) -> Result<Self, TemplateError> {
        let limits = RenderLimits::default();
        Ok(Self::compile_and_doubt(source, special, control_tokens, limits)?.0)
    }

    /// Likewise, with the control tokens that it puts together in ways that are not seen. A template may take
    /// long for each conversation, so none is rendered twice in the same way. `limits` are those of its clients.
    fn compile_and_doubt(
        source: &str,
        special: SpecialTokens,
        control_tokens: Arc<ControlTokens>,
        limits: RenderLimits,
    ) -> Result<(Self, Vec<String>), TemplateError> {
        let mut template = Self::draft(source, special, control_tokens)?;
        template.set_limits(limits);
        let source = environment::without_generation_marks(source);
        let mut doubt = probe::tokens_in_doubt(&template);
        let is_clear = |doubt: &Option<Vec<String>>| doubt.as_ref().is_some_and(Vec::is_empty);
        if !is_clear(&doubt) {
            template.assemble(&source, Assembly::WithWords)?;
            doubt = probe::tokens_in_doubt(&template);
        }
        if !is_clear(&doubt) {
            template.assemble(&source, Assembly::AllWords)?;
            let of_all_words = probe::tokens_in_doubt(&template);
            if is_clear(&of_all_words) {
                doubt = of_all_words;
            } else {
                // Nothing helps: words are at least looked for.
                template.assemble(&source, Assembly::WithWords)?;
            }
        }
        match probe::system_message(&template) {
            Ok(system_message) => template.system_message = system_message,
            Err(error) => template.failed_probe = Some(error),
        }
        Ok((template, doubt.unwrap_or_default()))
    }

    /// `source` is the template's text without generation marks.
    fn assemble(&mut self, source: &str, assembly: Assembly) -> Result<(), TemplateError> {
        self.env = environment(source, &self.control_tokens, &self.twins, assembly)?;
        self.assembly = assembly;
        // An environment begins with the default.
        self.set_limits(self.limits);
        Ok(())
    }

    /// Compiles a template for what shows how it writes, and for no client's conversation: what it puts together
    /// of words is not looked at.
    pub fn draft(
        source: &str,
        special: SpecialTokens,
        control_tokens: Arc<ControlTokens>,
    ) -> Result<Self, TemplateError> {
        let source = environment::without_generation_marks(source);
        environment::check(&source).map_err(|error| environment::explain(&error))?;
        let texts = [
            source.as_ref(),
            &special.bos,
            &special.eos,
            own_words::LETTERS,
            calls::MARKS,
        ]
        .into_iter()
        .chain(control_tokens.tokens().iter().map(String::as_str));
        let twins = Arc::new(Twins::new(texts)?);
        Ok(Self {
            env: environment(&source, &control_tokens, &twins, Assembly::Whole)?,
            twins,
            assembly: Assembly::Whole,
            special,
            vocabulary: Arc::clone(&control_tokens),
            control_tokens,
            thought: None,
            system_message: SystemMessage::Shown,
            functions: Functions::default(),
            limits: RenderLimits::default(),
            failed_probe: None,
        })
    }

    /// The same template where the model reads `markup`, too: of that, only what the template itself writes
    /// stays what it is, and the `thought` that an answer begins with. `source` is its text.
    pub fn with_markup(
        &self,
        source: &str,
        mut markup: Vec<String>,
        thought: Option<[String; 2]>,
    ) -> Result<Self, TemplateError> {
        markup.retain(|text| self.vocabulary.find(text).is_none());
        let (mut template, doubt) = self.compiled_with(source, &markup)?;
        // What it puts together in ways that are not seen would be broken as if it were a client's.
        let known = markup.len();
        markup.retain(|text| !doubt.contains(text));
        if markup.len() < known {
            (template, _) = self.compiled_with(source, &markup)?;
        }
        let is_markup = |pair: &[String; 2]| pair.iter().all(|text| markup.contains(text));
        template.thought = thought.filter(is_markup);
        Ok(template)
    }

    fn compiled_with(
        &self,
        source: &str,
        markup: &[String],
    ) -> Result<(Self, Vec<String>), TemplateError> {
        let tokens = Arc::new(self.vocabulary.and(markup.iter().cloned()));
        let special = self.special.clone();
        let (compiled, doubt) = Self::compile_and_doubt(source, special, tokens, self.limits)?;
        let template = Self {
            functions: self.functions,
            vocabulary: Arc::clone(&self.vocabulary),
            ..compiled
        };
        Ok((template, doubt))
    }

    /// A built-in family with the tokens usual for it.
    pub fn of_family(family: TemplateFamily) -> Result<Self, TemplateError> {
        let tokens = crate::prompt::well_known_control_tokens().collect();
        Self::compile(family.template(), family.special_tokens(), Arc::new(tokens))
    }
}

fn environment(
    source: &str,
    tokens: &ControlTokens,
    twins: &Arc<Twins>,
    assembly: Assembly,
) -> Result<Environment<'static>, TemplateError> {
    own_words::rewrite(source, tokens, twins, assembly)
        .and_then(|source| environment::environment(&source, twins))
        .map_err(|error| environment::explain(&error))
}
