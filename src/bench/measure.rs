//! The measurements. Each opens its own handles and closes them, so that none leaves another less memory.

use std::fmt::Display;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fact::{Fact, milliseconds, rate, without};
use super::figures::{
    AbortLatency, Batch, Decoding, HandleMemory, LogitsMode, Prefill, PrefillAbort, PrefixReuse,
    SeveralHandles, Told,
};
use super::made::{AbortAt, Made, run};
use crate::apart::{self, Subject};
use crate::board::Sysroot;
use crate::generation::{ClientKey, ModelId};
use crate::library_calls::{
    Call, CallbackThread, ExtendParam, InferMode, InferParam, Input, LibraryError, Param,
    RunRequest,
};
use crate::supervisor::{LibraryHandle, Supervisor};

pub(super) const MOST_HANDLES: usize = 2;
/// Tokens that a run makes at most.
const TOKENS: i32 = 32;
/// One measurement is waited for no longer, whatever the deadlines of its runs are.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// A file of the kernel's is waited for no longer.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
const ABORTS: usize = 5;
/// The token with which a run is aborted.
const ABORT_AT: u32 = 4;
/// Into the prefill of a long prompt.
const ABORT_PREFILL_AFTER: Duration = Duration::from_millis(100);
const SHORT_PROMPTS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
const REUSED: usize = 64;
const ADDED: usize = 8;
const BATCHES: [u8; 3] = [2, 4, 8];

const PROMPT: &str =
    "Tell a long story about a lighthouse keeper, his dog, and the winter in which the sea froze.";

pub(super) struct Bench {
    supervisor: Supervisor,
    model: ModelId,
    /// By which a failure may name the model.
    names: [String; 3],
}

type Measured<T> = Result<T, LibraryError>;

impl Bench {
    pub fn new(supervisor: Supervisor, model: ModelId, path: &Path) -> Self {
        let file = path.file_name().unwrap_or_default();
        let names = [
            path.to_string_lossy().into_owned(),
            file.to_string_lossy().into_owned(),
            model.to_string(),
        ];
        Self {
            supervisor,
            model,
            names,
        }
    }

    /// Within [`LIMIT`]. A reason does not name the model.
    async fn fact<T>(&self, measure: impl Future<Output = Measured<T>>) -> Fact<T> {
        let mut fact = match tokio::time::timeout(LIMIT, measure).await {
            Ok(measured) => Fact::of(measured),
            Err(_) => Fact::absent(format!("no end within {} s", LIMIT.as_secs())),
        };
        for name in &self.names {
            fact.reason = fact.reason.map(|reason| without(&reason, name));
        }
        fact
    }

    async fn open(&self, nth: usize, n_batch: Option<u8>) -> Measured<LibraryHandle> {
        let param = Param {
            max_new_tokens: Some(TOKENS),
            top_k: Some(1),
            extend_param: ExtendParam {
                n_batch,
                ..ExtendParam::default()
            },
            ..Param::default()
        };
        // Clients of their own, whose turns do not wait for each other.
        let client = ClientKey::new(format!("the bench's handle {nth}"));
        let model = ModelId::clone(&self.model);
        self.supervisor.open_handle(client, model, param).await
    }

    /// With a handle of its own, which is closed whatever happened.
    async fn with_handle<T, F: Future<Output = Measured<T>>>(
        &self,
        n_batch: Option<u8>,
        measure: impl FnOnce(Arc<LibraryHandle>) -> F,
    ) -> Measured<T> {
        let handle = Arc::new(self.open(0, n_batch).await?);
        let measured = measure(Arc::clone(&handle)).await;
        let closed = handle.close().await;
        let measured = measured?;
        closed.map(|()| measured)
    }

    pub async fn library(&self) -> Fact<(String, String)> {
        let model = Some(ModelId::clone(&self.model));
        self.fact(async {
            let told = self.supervisor.default_param(model).await?;
            Ok((told.library_version, told.abi_family))
        })
        .await
    }

    pub async fn decoding(&self) -> Fact<Decoding> {
        let measured = self.with_handle(None, |handle| async move {
            let made = run(
                &handle,
                generate(vec![Input::prompt(PROMPT)]),
                AbortAt::Never,
            )
            .await?;
            Ok(Decoding {
                tokens: made.tokens,
                tokens_per_second: rate(made.tokens.saturating_sub(1), made.decoding()),
                first_token_ms: made.first.map(milliseconds),
                library_told: told(&made),
            })
        });
        self.fact(measured).await
    }

    pub async fn logits_mode(&self) -> Fact<LogitsMode> {
        let measured = self.with_handle(None, |handle| async move {
            let request = RunRequest {
                infer: InferParam {
                    mode: InferMode::GetLogits,
                    ..InferParam::default()
                },
                generate_after_logits: true,
                ..generate(vec![Input::prompt(PROMPT)])
            };
            let made = run(&handle, request, AbortAt::Never).await?;
            Ok(LogitsMode {
                callbacks: made.callbacks,
                callbacks_with_logits: made.with_logits,
                callbacks_with_ids: made.with_ids,
                callbacks_with_texts: made.with_texts,
                vocabulary_tokens: made.vocabulary_tokens,
                callbacks_per_second: rate(made.callbacks.saturating_sub(1), made.decoding()),
            })
        });
        self.fact(measured).await
    }

    pub async fn short_prefills(&self) -> Fact<Vec<Prefill>> {
        let measured = self.with_handle(None, |handle| async move {
            let ids = ids(&handle).await?;
            let mut prefills = Vec::new();
            for count in SHORT_PROMPTS {
                clear(&handle).await?;
                prefills.push(prefill(&handle, cycle(&ids, count)).await?);
            }
            Ok(prefills)
        });
        self.fact(measured).await
    }

    pub async fn prefix_reuse(&self) -> Fact<PrefixReuse> {
        let measured = self.with_handle(None, |handle| async move {
            let ids = ids(&handle).await?;
            clear(&handle).await?;
            let longer = cycle(&ids, REUSED + ADDED);
            Ok(PrefixReuse {
                first: prefill(&handle, longer[..REUSED].to_vec()).await?,
                longer: prefill(&handle, longer.clone()).await?,
                again: prefill(&handle, longer).await?,
            })
        });
        self.fact(measured).await
    }

    pub async fn abort_latency(&self) -> Fact<AbortLatency> {
        let measured = self.with_handle(None, |handle| async move {
            let mut decoding_ms = Vec::new();
            for _ in 0..ABORTS {
                let request = generate(vec![Input::prompt(PROMPT)]);
                let made = run(&handle, request, AbortAt::Token(ABORT_AT)).await?;
                let Some(time) = made.aborted_for else {
                    return Err(not_measured("the answer ended before it was aborted"));
                };
                decoding_ms.push(milliseconds(time));
            }
            Ok(AbortLatency { decoding_ms })
        });
        self.fact(measured).await
    }

    pub async fn prefill_abort(&self) -> Fact<PrefillAbort> {
        let measured = self.with_handle(None, |handle| async move {
            let room = handle.context_tokens().unwrap_or(512) as usize / 2;
            // A word is a token at the least.
            let words = PROMPT.split(' ').cycle().take(room.clamp(32, 1024) / 2);
            let prompt = words.collect::<Vec<_>>().join(" ");
            let prompt_bytes = prompt.len();
            let request = generate(vec![Input::prompt(prompt)]);
            let made = run(&handle, request, AbortAt::Time(ABORT_PREFILL_AFTER)).await?;
            let Some(time) = made.aborted_for.filter(|_| made.tokens_before_abort == 0) else {
                return Err(not_measured("the prefill ended before it was aborted"));
            };
            // It may have been on no worker: one that has died is made up for by another.
            if !made.is_told_over {
                return Err(not_measured("the run ended without a word of the library"));
            }
            Ok(PrefillAbort {
                prefill_ms: milliseconds(time),
                aborted_after_ms: milliseconds(ABORT_PREFILL_AFTER),
                prompt_bytes,
            })
        });
        self.fact(measured).await
    }

    pub async fn batches(&self) -> Vec<Fact<Batch>> {
        let mut batches = Vec::new();
        for n_batch in BATCHES {
            let measured = self.with_handle(Some(n_batch), |handle| async move {
                let inputs = (0..n_batch).map(|nth| Input::prompt(format!("{nth}. {PROMPT}")));
                let made = run(&handle, generate(inputs.collect()), AbortAt::Never).await?;
                let firsts = u32::from(n_batch);
                Ok(Batch {
                    n_batch,
                    tokens: made.tokens,
                    tokens_per_second: rate(made.tokens.saturating_sub(firsts), made.decoding()),
                })
            });
            batches.push(self.fact(measured).await);
        }
        batches
    }

    pub async fn callback_threads(&self) -> Fact<CallbackThread> {
        let measured = self.with_handle(None, |handle| async move {
            let request = generate(vec![Input::prompt(PROMPT)]);
            let made = run(&handle, request, AbortAt::Never).await?;
            let called_back = made.called_back;
            called_back.ok_or_else(|| not_measured("the library did not call back"))
        });
        self.fact(measured).await
    }

    pub async fn handles(&self) -> (Vec<Fact<HandleMemory>>, Fact<SeveralHandles>) {
        let (mut open, mut memory) = (Vec::new(), Vec::new());
        for nth in 0..MOST_HANDLES {
            let measured = self.fact(self.open_measured(nth)).await;
            memory.push(match measured.value {
                Some((handle, told)) => {
                    open.push(handle);
                    Fact::of(Ok::<_, LibraryError>(told))
                }
                None => Fact::absent(measured.reason.unwrap_or_default()),
            });
        }
        let together = if open.len() == MOST_HANDLES {
            self.fact(together(&open)).await
        } else {
            Fact::absent("not as many handles could be opened")
        };
        for handle in open {
            // The worker's end is the deadlines' matter, and nothing is measured after it.
            let _ = tokio::time::timeout(LIMIT, handle.close()).await;
        }
        (memory, together)
    }

    async fn open_measured(&self, nth: usize) -> Measured<(LibraryHandle, HandleMemory)> {
        let available_before_bytes = available().await;
        let handle = self.open(nth, None).await?;
        let available_open_bytes = available().await;
        let request = generate(vec![Input::prompt(PROMPT)]);
        let made = run(&handle, request, AbortAt::Never).await?;
        let told = HandleMemory {
            available_before_bytes,
            available_open_bytes,
            available_after_run_bytes: available().await,
            library_told_mb: made.perf.map(|perf| perf.memory_usage_mb),
        };
        Ok((handle, told))
    }
}

async fn available() -> Option<u64> {
    let subject = Subject::Sensor("/proc/meminfo".into());
    let read = || Sysroot::own().memory_bytes("MemAvailable");
    apart::ask(subject, LOOK_LIMIT, read).await.flatten()
}

/// All at once.
async fn together(open: &[LibraryHandle]) -> Measured<SeveralHandles> {
    let begun = Instant::now();
    let runs = open.iter().map(|handle| async move {
        let started = begun.elapsed();
        let request = generate(vec![Input::prompt(PROMPT)]);
        let made = run(handle, request, AbortAt::Never).await?;
        Ok::<_, LibraryError>((started, made))
    });
    let mut tokens = 0;
    let (mut first, mut last) = (Duration::MAX, Duration::ZERO);
    for done in futures_util::future::join_all(runs).await {
        let (started, made) = done?;
        tokens += made.tokens;
        first = first.min(made.first.map_or(Duration::MAX, |at| started + at));
        last = last.max(made.last.map_or(Duration::ZERO, |at| started + at));
    }
    Ok(SeveralHandles {
        handles: open.len(),
        tokens,
        tokens_per_second: rate(
            tokens.saturating_sub(open.len() as u32),
            last.saturating_sub(first),
        ),
    })
}

fn generate(inputs: Vec<Input>) -> RunRequest {
    RunRequest {
        inputs,
        ..RunRequest::default()
    }
}

fn told(made: &Made) -> Option<Told> {
    made.perf.map(|perf| Told {
        prefill_tokens: perf.prefill_tokens,
        prefill_time_ms: perf.prefill_time_ms,
        generate_tokens: perf.generate_tokens,
        generate_time_ms: perf.generate_time_ms,
        memory_usage_mb: perf.memory_usage_mb,
    })
}

fn not_measured(why: impl Display) -> LibraryError {
    LibraryError::BadValue {
        what: "not measured".to_owned(),
        reason: why.to_string(),
    }
}

/// Ids that the model knows: those of an answer.
async fn ids(handle: &LibraryHandle) -> Measured<Vec<i32>> {
    let request = generate(vec![Input::prompt(PROMPT)]);
    let made = run(handle, request, AbortAt::Never).await?;
    if made.ids.is_empty() {
        return Err(not_measured("the library tells no ids of tokens"));
    }
    Ok(made.ids)
}

fn cycle(ids: &[i32], count: usize) -> Vec<i32> {
    ids.iter().copied().cycle().take(count).collect()
}

async fn clear(handle: &LibraryHandle) -> Measured<()> {
    let call = Call::ClearKvCache {
        keep_system_prompt: 0,
        start_pos: None,
        end_pos: None,
    };
    handle.call(call, None).await.map(|_| ())
}

/// A run of which one token is wanted.
async fn prefill(handle: &LibraryHandle, ids: Vec<i32>) -> Measured<Prefill> {
    let given_tokens = ids.len();
    let request = generate(vec![Input::tokens(ids)]);
    let made = run(handle, request, AbortAt::Token(1)).await?;
    Ok(Prefill {
        given_tokens,
        first_token_ms: made.first.map(milliseconds),
        library_told: told(&made),
    })
}
