//! What is added to the logits of tokens, by their ids.

use std::ops::Range;

use crate::http::request::error::{RequestError, quote};
use crate::http::request::free_form::{FreeObject, ValuesLeft};
use crate::models::InstalledModel;
use crate::settings::ChatSettings;

/// A bias from here on forbids its token.
const FORBIDS: f64 = -100.0;

/// Of the model's tokens, as far as it is known which ones it has.
pub(super) fn read(
    given: Option<&FreeObject>,
    limits: &ChatSettings,
    model: &InstalledModel,
) -> Result<Vec<(i32, f32)>, RequestError> {
    let Some(given) = given else {
        return Ok(Vec::new());
    };
    let biases = given.read("logit_bias", &mut ValuesLeft::of(limits))?;
    let most = limits.max_logit_biases;
    let known = known_ids(model);
    if biases.len() > most {
        let count = biases.len();
        return Err(RequestError::out_of_range(
            "logit_bias",
            format!("has {count} tokens; `max-logit-biases` in the [chat] settings allows {most}"),
        ));
    }
    let biases = biases.iter().map(|(id, bias)| {
        let param = || format!("logit_bias.{}", quote(id));
        // In one spelling, so that no token has two biases.
        let is_it = |token: &i32| known.contains(token) && token.to_string() == **id;
        let token = id.parse().ok().filter(is_it);
        let token = token.ok_or_else(|| {
            RequestError::out_of_range(param(), "is not the id of a token of this model")
        })?;
        match bias.as_f64() {
            Some(FORBIDS) => Ok((token, f32::NEG_INFINITY)),
            Some(bias) if (FORBIDS..=-FORBIDS).contains(&bias) => Ok((token, bias as f32)),
            _ => Err(RequestError::out_of_range(
                param(),
                "must be a number from -100 to 100",
            )),
        }
    });
    biases.collect()
}

/// The ids of the model's tokens, as far as it is known which ones it has.
pub(super) fn known_ids(model: &InstalledModel) -> Range<i32> {
    let count = model.facts.shape.vocabulary_tokens;
    0..count.map_or(i32::MAX, |count| i32::try_from(count).unwrap_or(i32::MAX))
}
