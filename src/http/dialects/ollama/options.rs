//! `options`: what a run is to be like. Sampling values have OpenAI's ranges; what no run here can differ
//! in, or a model is loaded with, is read and told as not applied.

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess};
use utoipa::ToSchema;

use super::details::context_length;
use super::parameters::stop_schema;
use crate::generation::{DrawRequest, SamplingRequest};
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::Without;
use crate::http::dialects::parameters::SharedParameters;
use crate::http::request::body::TextOrList;
use crate::http::request::error::RequestError;
use crate::http::request::together::{Fields, Together, fields_of};
use crate::models::InstalledModel;

/// Has the options that are not applied listed by their names.
macro_rules! model_options {
    (
        $(#[$struct:meta])*
        $name:ident {
            applied { $($(#[$applied_meta:meta])* $applied:ident: $applied_type:ty,)* }
            unread { $($(#[$unread_meta:meta])* $unread:ident: $unread_type:ty,)* }
        }
    ) => {
        $(#[$struct])*
        pub(crate) struct $name {
            $($(#[$applied_meta])* $applied: Option<$applied_type>,)*
            $($(#[$unread_meta])* $unread: Option<$unread_type>,)*
            /// One of a name that is not known.
            #[schema(ignore)]
            has_unknown: bool,
        }

        fields_of!($name { $($applied,)* $($unread,)* });

        impl $name {
            /// Those that are given and not applied.
            fn unread(&self) -> Vec<&'static str> {
                let given = [$((stringify!($unread), self.$unread.is_some())),*];
                let given = given.into_iter().filter(|(_, is_given)| *is_given);
                given.map(|(name, _)| name).collect()
            }
        }
    };
}

model_options! {
    /// Options of a run. Null counts as absent; without one the model's own value is taken.
    #[derive(Debug, Default, ToSchema)]
    ModelOptions {
        applied {
            /// Largest number of tokens to generate; 0 or less: as many as the context leaves.
            num_predict: i32,
            /// Randomness, 0 to 2; 0 always takes the likeliest token.
            #[schema(minimum = 0, maximum = 2)]
            temperature: f64,
            /// Nucleus sampling, 0 to 1; 0 always takes the likeliest token.
            #[schema(minimum = 0, maximum = 1)]
            top_p: f64,
            /// Sample among this many likeliest tokens; 0 or -1: among all.
            #[schema(minimum = -1, maximum = 2147483647)]
            top_k: i64,
            /// Penalty on tokens seen before; 1 is none. 0.01 to 10.
            #[schema(minimum = 0.01, maximum = 10)]
            repeat_penalty: f64,
            /// Penalty on tokens that occurred at all, -2 to 2.
            #[schema(minimum = -2, maximum = 2)]
            presence_penalty: f64,
            /// Penalty on tokens by how often they occurred, -2 to 2.
            #[schema(minimum = -2, maximum = 2)]
            frequency_penalty: f64,
            /// Makes draws repeat where the runtime can; -1 asks for nothing.
            #[schema(value_type = Option<i64>, minimum = -9007199254740992_i64, maximum = 9007199254740992_i64)]
            seed: i128,
            /// Text that ends the answer and is not part of it.
            #[schema(schema_with = stop_schema)]
            stop: TextOrList<String>,
            /// The context in tokens. A model is loaded with its own; another one is not applied.
            num_ctx: i32,
            /// Leaves out tokens that are less likely than this part of the likeliest, 0 to 1, where the
            /// runtime can.
            #[schema(minimum = 0, maximum = 1)]
            min_p: f64,
            /// Not applied, unless it asks for nothing: 1.
            typical_p: f64,
            /// Not applied, unless it asks for nothing: 1.
            tfs_z: f64,
            /// Not applied, unless it asks for nothing: 0.
            mirostat: i32,
        }
        unread {
            /// Not applied.
            repeat_last_n: i32,
            /// Of a `context` that is cut, how many ids at its beginning stay, if no less than 0; else not applied.
            num_keep: i32,
            /// Not applied.
            mirostat_tau: f64,
            /// Not applied.
            mirostat_eta: f64,
            /// Not applied.
            penalize_newline: bool,
            /// Not applied.
            num_batch: i32,
            /// Not applied.
            num_gpu: i32,
            /// Not applied.
            main_gpu: i32,
            /// Not applied.
            num_thread: i32,
            /// Not applied.
            draft_num_predict: i32,
            /// Not applied.
            numa: bool,
            /// Not applied.
            low_vram: bool,
            /// Not applied.
            f16_kv: bool,
            /// Not applied.
            logits_all: bool,
            /// Not applied.
            vocab_only: bool,
            /// Not applied.
            use_mmap: bool,
            /// Not applied.
            use_mlock: bool,
            /// Not applied.
            embedding_only: bool,
        }
    }
}

impl<'de> Deserialize<'de> for ModelOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Together(known, Unknown { is_given }) = Together::deserialize(deserializer)?;
        Ok(Self {
            has_unknown: is_given,
            ..known
        })
    }
}

/// Whatever has a name that is not known. Null counts as absent.
#[derive(Default)]
struct Unknown {
    is_given: bool,
}

impl<'de> Fields<'de> for Unknown {
    fn place(_name: &str) -> Option<usize> {
        Some(0)
    }

    fn once(_place: usize) -> Option<&'static str> {
        None
    }

    fn take<A: MapAccess<'de>>(&mut self, _place: usize, map: &mut A) -> Result<(), A::Error> {
        self.is_given |= map.next_value::<Option<IgnoredAny>>()?.is_some();
        Ok(())
    }
}

/// Up to it a double is every integer, and a seed what its client meant.
const LARGEST_SEED: u128 = 1 << 53;

/// What the options come to.
pub(super) struct Asked {
    pub sampling: SamplingRequest,
    /// Values of it that the client did not ask for.
    pub implied: Vec<&'static str>,
    pub draws: DrawRequest,
    /// `None`: it does not say.
    pub max_new_tokens: Option<u32>,
    pub stop: Vec<String>,
    pub without: Without,
    pub not_applied: Vec<&'static str>,
}

impl ModelOptions {
    pub(super) fn read(
        self,
        state: &HttpState,
        model: &InstalledModel,
    ) -> Result<Asked, RequestError> {
        let not_applied = self.not_applied(state, model);
        if (self.seed).is_some_and(|seed| seed.unsigned_abs() > LARGEST_SEED) {
            return Err(RequestError::out_of_range(
                "options.seed",
                format!("must be an integer from -{LARGEST_SEED} to {LARGEST_SEED}"),
            ));
        }
        let is_seedless = self.seed == Some(-1);
        let shared = SharedParameters {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            repeat_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed.filter(|seed| *seed != -1),
            min_p: self.min_p,
            stop: self.stop,
            ..SharedParameters::default()
        };
        let without = Without {
            seed: is_seedless,
            ..shared.without()
        };
        Ok(Asked {
            sampling: shared.sampling().map_err(among_options)?,
            implied: match shared.top_k {
                None => vec!["top_k"],
                Some(_) => Vec::new(),
            },
            draws: shared.draws(state, model).map_err(among_options)?,
            max_new_tokens: match self.num_predict {
                None => None,
                Some(..=0) => Some(u32::MAX),
                // More than any context holds: as many as it leaves.
                Some(tokens) => Some(u32::try_from(tokens).unwrap_or(u32::MAX)),
            },
            stop: shared.stop(&state.chat).map_err(among_options)?,
            without,
            not_applied,
        })
    }

    /// How much of the beginning of a context stays.
    pub fn kept_tokens(&self) -> Option<usize> {
        usize::try_from(self.num_keep?).ok()
    }

    /// Where no run differs in anything, as for embeddings.
    pub fn not_applied(&self, state: &HttpState, model: &InstalledModel) -> Vec<&'static str> {
        let asks = |value: Option<f64>, neutral: f64| value.is_some_and(|value| value != neutral);
        let context = i64::from(context_tokens(state, model));
        let given = [
            (
                "num_ctx",
                self.num_ctx
                    .is_some_and(|asked| i64::from(asked) != context),
            ),
            ("typical_p", asks(self.typical_p, 1.0)),
            ("tfs_z", asks(self.tfs_z, 1.0)),
            ("mirostat", self.mirostat.is_some_and(|kind| kind != 0)),
        ];
        let given = given.into_iter().filter(|(_, is_given)| *is_given);
        let mut names: Vec<&'static str> = given.map(|(name, _)| name).collect();
        names.extend(self.unread());
        names.extend(self.has_unknown.then_some("options"));
        names
    }
}

/// What the model is loaded with, else what it would be.
pub(super) fn context_tokens(state: &HttpState, model: &InstalledModel) -> u32 {
    let status = state.engine.status().model(&model.id);
    context_length(model, status.as_ref())
}

/// The same error, of a field in `options`.
fn among_options(error: RequestError) -> RequestError {
    match error {
        RequestError::OutOfRange { param, requirement } => RequestError::OutOfRange {
            param: format!("options.{param}"),
            requirement,
        },
        other => other,
    }
}
