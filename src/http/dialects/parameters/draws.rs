//! What parameters say of how tokens are drawn, and when they end an answer.

use super::SharedParameters;
use super::logit_bias;
use super::values::within;
use crate::generation::DrawRequest;
use crate::http::HttpState;
use crate::http::request::error::RequestError;
use crate::models::InstalledModel;
use crate::settings::ChatSettings;

impl SharedParameters {
    pub fn draws(
        &self,
        state: &HttpState,
        model: &InstalledModel,
    ) -> Result<DrawRequest, RequestError> {
        let limits = &state.chat;
        Ok(DrawRequest {
            seed: self.seed()?,
            min_p: within("min_p", self.min_p, (0.0, 1.0))?,
            logit_bias: logit_bias::read(self.logit_bias.as_ref(), limits, model)?,
            logprobs: None,
            stop_token_ids: self.stop_token_ids(limits, model)?,
            min_tokens: self.min_tokens()?,
            ignores_eos: self.ignore_eos == Some(true),
            deterministic: self.deterministic == Some(true),
        })
    }

    fn stop_token_ids(
        &self,
        limits: &ChatSettings,
        model: &InstalledModel,
    ) -> Result<Vec<i32>, RequestError> {
        let ids = self.stop_token_ids.as_deref().unwrap_or_default();
        let most = limits.max_stops;
        if ids.len() > most {
            return Err(RequestError::out_of_range(
                "stop_token_ids",
                format!(
                    "has {} tokens; `max-stops` in the [chat] settings allows {most}",
                    ids.len()
                ),
            ));
        }
        let known = logit_bias::known_ids(model);
        let ids = ids.iter().enumerate().map(|(index, &id)| {
            let id = i32::try_from(id).ok().filter(|id| known.contains(id));
            id.ok_or_else(|| {
                RequestError::out_of_range(
                    format!("stop_token_ids[{index}]"),
                    "is not the id of a token of this model",
                )
            })
        });
        ids.collect()
    }

    fn min_tokens(&self) -> Result<u32, RequestError> {
        let asked = self.min_tokens.unwrap_or(0);
        let most = self.max_tokens.filter(|most| *most >= 0);
        if most.is_some_and(|most| asked > most) {
            return Err(RequestError::out_of_range(
                "min_tokens",
                "must not be more than `max_tokens`",
            ));
        }
        match u32::try_from(asked) {
            Ok(asked) => Ok(asked),
            Err(_) if asked > 0 => Ok(u32::MAX),
            Err(_) => Err(RequestError::out_of_range(
                "min_tokens",
                "must not be negative",
            )),
        }
    }

    /// The bits of the seed as they are, whether it was written as a signed number or not.
    pub fn seed(&self) -> Result<Option<i64>, RequestError> {
        let Some(seed) = self.seed else {
            return Ok(None);
        };
        let unsigned = || u64::try_from(seed).ok().map(u64::cast_signed);
        match i64::try_from(seed).ok().or_else(unsigned) {
            Some(seed) => Ok(Some(seed)),
            None => Err(RequestError::out_of_range(
                "seed",
                "must be an integer of 64 bits",
            )),
        }
    }
}
