//! What requests for a variant do not say.

use super::chat_dialect::Options;
use crate::chat::PromptSource;
use crate::models::{InstalledModel, VariantValues};

/// Its conversations have a beginning of their own, and may have a template.
pub(super) fn begun(model: &InstalledModel, mut source: PromptSource) -> PromptSource {
    match (&model.variant, &mut source) {
        (Some(variant), PromptSource::Conversation(asked)) => variant.begin(asked),
        // It has begun before.
        (Some(variant), PromptSource::GoesOn(turn)) => variant.lend_template(&mut turn.request),
        _ => {}
    }
    source
}

/// What a request does not say of its run is as the variant has it.
pub(super) fn fill_in(options: &mut Options, values: &VariantValues) {
    options.sampling = values.sampling(options.sampling);
    let without = options.without;
    let draws = &mut options.draws;
    draws.seed = draws.seed.or(values.seed.filter(|_| !without.seed));
    draws.min_p = draws.min_p.or(values.min_p);
    if options.stop.is_empty() && !without.stop {
        options.stop.clone_from(&values.stop);
    }
}
