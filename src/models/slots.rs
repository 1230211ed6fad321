//! How many slots a model's worker has, and how many tokens they hold together. Pure.
//!
//! The CPU runtime's slots share the weights and one pool of cells, a cell for a token: what the pool
//! costs is what more slots cost. A slot that cannot hold its share of the pool is not opened. On the NPU
//! each slot is a handle that loads the weights again.

use std::fmt;

use serde::Serialize;
use utoipa::ToSchema;

use super::{InstalledModel, ModelKind};

/// A run is let in with at least so many cells ahead of it, so a slot with less is of no use.
const LEAST_POOL_TOKENS_A_SLOT: u32 = 256;

/// What a model's slots may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotLimits {
    /// Slots of a model that does not say (`models.parallel`).
    pub parallel: u8,
    /// Contexts that all slots together have room for (`models.pool-contexts`).
    pub pool_contexts: u8,
    /// A worker's soft limit of memory; `None`: none is known.
    pub memory_bytes: Option<u64>,
}

/// The slots of a model's worker and what they are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub struct SlotPlan {
    /// Slots that are asked for: `parallel`.
    pub parallel: u8,
    /// Slots that memory allows of these.
    pub slots: u8,
    /// They are sequences of one handle, whose answers begin together: `batch`.
    pub is_batch: bool,
    /// The longest context of each slot, in tokens.
    pub context_tokens: u32,
    /// Tokens that all slots hold together; absent where each slot has a context of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_tokens: Option<u32>,
    /// Bytes of one token's keys and values; absent where the model's file does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_bytes: Option<u64>,
    /// The weights and adapters, as often as they are loaded, and all tokens; absent where a token's bytes are not
    /// known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// What that is held to: a worker's soft limit of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
}

impl SlotPlan {
    /// For a worker whose context has so many tokens.
    pub fn of(model: &InstalledModel, context_tokens: u32, limits: SlotLimits) -> Self {
        let batch = model.facts.batch.filter(|batch| *batch > 1);
        let parallel = model.facts.parallel.unwrap_or(limits.parallel);
        let parallel = batch.unwrap_or(parallel).max(1);
        let weights = model
            .facts
            .size_bytes
            .saturating_add(model.adapters_bytes());
        let limit_bytes = limits.memory_bytes;
        let mut plan = Self {
            parallel,
            slots: 1,
            is_batch: batch.is_some(),
            context_tokens,
            pool_tokens: None,
            token_bytes: model.facts.shape.token_bytes,
            bytes: None,
            limit_bytes,
        };
        match model.facts.kind {
            _ if plan.is_batch => {
                // One handle loads the weights once, and has a context for each sequence.
                let context = plan.bytes_of(context_tokens);
                let each = context.unwrap_or(0).max(1);
                plan.slots = limit_bytes.map_or(parallel, |limit| {
                    at_most(parallel, limit.saturating_sub(weights) / each)
                });
                let sequences = u64::from(plan.slots);
                plan.bytes =
                    context.map(|each| weights.saturating_add(each.saturating_mul(sequences)));
            }
            ModelKind::Rkllm => {
                let context = plan.bytes_of(context_tokens).unwrap_or(0);
                let each = weights.saturating_add(context).max(1);
                plan.slots = limit_bytes.map_or(parallel, |limit| at_most(parallel, limit / each));
                let copies = u64::from(plan.slots);
                plan.bytes = plan
                    .bytes_of(context_tokens)
                    .map(|_| each.saturating_mul(copies));
            }
            ModelKind::Gguf => {
                let pool = plan.pool(weights, limits.pool_contexts);
                plan.slots = at_most(parallel, (pool / LEAST_POOL_TOKENS_A_SLOT).into());
                plan.pool_tokens = (plan.slots > 1).then_some(pool);
                let tokens = plan.pool_tokens.unwrap_or(context_tokens);
                plan.bytes = plan
                    .bytes_of(tokens)
                    .map(|bytes| weights.saturating_add(bytes));
            }
        }
        plan
    }

    /// Tokens of the pool: as many contexts as are wanted, as far as they fit beside the weights, and at
    /// least one.
    fn pool(&self, weights: u64, contexts: u8) -> u32 {
        let contexts = u32::from(contexts.min(self.parallel).max(1));
        let wanted = self.context_tokens.saturating_mul(contexts);
        let fitting = self.limit_bytes.zip(self.token_bytes).map(|(limit, each)| {
            let tokens = limit.saturating_sub(weights) / each.max(1);
            u32::try_from(tokens).unwrap_or(u32::MAX)
        });
        fitting
            .map_or(wanted, |fitting| wanted.min(fitting))
            .max(self.context_tokens)
    }

    fn bytes_of(&self, tokens: u32) -> Option<u64> {
        let each = self.token_bytes?;
        Some(each.saturating_mul(tokens.into()))
    }
}

/// As many as fit, and at least one.
fn at_most(slots: u8, fitting: u64) -> u8 {
    let fitting = u8::try_from(fitting).unwrap_or(u8::MAX);
    slots.min(fitting).max(1)
}

/// The formula with its figures, as `rkllmd models` tells it.
impl fmt::Display for SlotPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = self.context_tokens;
        write!(f, "{} of {} slots", self.slots, self.parallel)?;
        if self.is_batch {
            f.write_str(" in one batch")?;
        }
        match self.pool_tokens {
            Some(pool) => write!(f, " share a pool of {pool} tokens, {context} at most each")?,
            None => write!(f, " of {context} tokens each")?,
        }
        if let Some(each) = self.token_bytes {
            write!(f, "; {each} bytes a token")?;
        }
        if let Some(bytes) = self.bytes {
            write!(f, ", with the weights {} MiB", bytes >> 20)?;
        }
        match self.limit_bytes {
            Some(limit) => write!(f, "; {} MiB may be used", limit >> 20),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library_calls::ModelShape;
    use crate::models::ModelFacts;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;
    const CONTEXT: u32 = 4096;

    fn model(kind: ModelKind, parallel: u8, token_bytes: Option<u64>) -> InstalledModel {
        let facts = ModelFacts {
            kind,
            size_bytes: 100 * MIB,
            parallel: Some(parallel),
            shape: ModelShape {
                token_bytes,
                ..ModelShape::default()
            },
            ..ModelFacts::default()
        };
        InstalledModel {
            facts,
            ..InstalledModel::default()
        }
    }

    fn limits(memory_bytes: Option<u64>) -> SlotLimits {
        SlotLimits {
            parallel: 1,
            pool_contexts: 2,
            memory_bytes,
        }
    }

    #[test]
    fn a_batch_loads_its_weights_once() {
        let plan = |memory_bytes| {
            let mut model = model(ModelKind::Rkllm, 1, Some(MIB / 32));
            model.facts.parallel = None;
            model.facts.batch = Some(4);
            let limits = SlotLimits {
                parallel: 2,
                pool_contexts: 2,
                memory_bytes,
            };
            SlotPlan::of(&model, CONTEXT, limits)
        };
        let weights = plan(None).bytes.expect("known") - 4 * 128 * MIB;
        assert_eq!((plan(None).slots, plan(None).is_batch), (4, true));
        let less = plan(Some(weights + 3 * 128 * MIB));
        assert_eq!((less.slots, less.bytes), (3, Some(weights + 3 * 128 * MIB)));
        assert_eq!(plan(Some(0)).slots, 1);
    }

    fn gguf(parallel: u8, memory_bytes: Option<u64>) -> SlotPlan {
        let model = model(ModelKind::Gguf, parallel, Some(MIB / 32));
        SlotPlan::of(&model, CONTEXT, limits(memory_bytes))
    }

    #[test]
    fn slots_on_the_cpu_share_a_pool_of_two_contexts() {
        let plan = gguf(8, Some(1000 * MIB));
        assert_eq!((plan.slots, plan.pool_tokens), (8, Some(2 * CONTEXT)));
        assert_eq!(plan.bytes, Some(356 * MIB), "100 + 8192 / 32");
        assert_eq!(
            plan.to_string(),
            "8 of 8 slots share a pool of 8192 tokens, 4096 at most each; 32768 bytes a token, with the \
             weights 356 MiB; 1000 MiB may be used"
        );
    }

    #[test]
    fn a_pool_is_as_large_as_memory_allows_and_a_context_at_least() {
        let plan = gguf(8, Some(300 * MIB));
        assert_eq!((plan.slots, plan.pool_tokens), (8, Some(6400)));
        let plan = gguf(16, Some(0));
        assert_eq!((plan.slots, plan.pool_tokens), (16, Some(CONTEXT)));
        let short = model(ModelKind::Gguf, 16, Some(MIB / 32));
        let plan = SlotPlan::of(&short, 512, limits(Some(0)));
        assert_eq!((plan.slots, plan.pool_tokens), (2, Some(512)));
    }

    #[test]
    fn one_slot_has_its_own_context() {
        let plan = gguf(1, None);
        assert_eq!((plan.slots, plan.pool_tokens), (1, None));
        assert_eq!(plan.bytes, Some(228 * MIB), "100 + 4096 / 32");
    }

    #[test]
    fn on_the_npu_each_slot_loads_the_weights_again() {
        let npu = |limit| {
            let model = model(ModelKind::Rkllm, 8, None);
            SlotPlan::of(&model, CONTEXT, limits(limit))
        };
        assert_eq!(npu(Some(350 * MIB)).slots, 3);
        assert_eq!(npu(Some(50 * MIB)).slots, 1);
        assert_eq!(npu(None).slots, 8);
        assert_eq!(npu(None).bytes, None, "a token's bytes are not known");
        assert_eq!(
            npu(Some(350 * MIB)).to_string(),
            "3 of 8 slots of 4096 tokens each; 350 MiB may be used"
        );
    }

    proptest! {
        #[test]
        fn more_memory_never_means_less(
            parallel in 1u8..17,
            contexts in 1u8..17,
            context in 32u32..100_000,
            token_bytes in prop::option::of(0u64..1 << 20),
            memory in any::<[u32; 2]>(),
            is_npu in any::<bool>(),
        ) {
            let kind = if is_npu { ModelKind::Rkllm } else { ModelKind::Gguf };
            let model = model(kind, parallel, token_bytes);
            let plan = |kib: u32| {
                let memory_bytes = Some(u64::from(kib) << 10);
                let limits = SlotLimits { pool_contexts: contexts, memory_bytes, parallel: 1 };
                SlotPlan::of(&model, context, limits)
            };
            let [less, more] = [memory[0].min(memory[1]), memory[0].max(memory[1])].map(plan);
            prop_assert!(1 <= less.slots && less.slots <= more.slots && more.slots <= parallel);
            prop_assert!(less.pool_tokens <= more.pool_tokens);
            for plan in [less, more] {
                let pool = plan.pool_tokens;
                prop_assert!(pool.is_none_or(|pool| pool >= context), "a run may fill its context");
                prop_assert_eq!(pool.is_some(), kind == ModelKind::Gguf && plan.slots > 1);
            }
        }
    }
}
