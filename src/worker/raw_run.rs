//! A raw run on the NPU thread: what a client asked for in the words of the library, and what came
//! back of it.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::thread;

use rkllm_sys::{
    CallError, Handle, History, Images, Multimodal, PerRunValues, PromptCache, RunExtras, RunId,
    RunInput, RunItem, RunMode, RunOptions, Sampling, Sounds, Tags, Videos,
};

use super::library_call::{self, failure};
use super::model::Model;
use super::raw_sink::{RawSink, SharedRawRecord};
use super::run_progress::RunProgress;
use super::slot_events::SlotEvents;
use super::utf8_assembly::Utf8Assembly;
use crate::ipc::RawRunSpec;
use crate::library_calls::{
    CallFailure, CallbackThread, InferMode, InferParam, Input, InputPayload, MultimodalInput,
};

/// How a raw run came back.
#[derive(Debug)]
pub struct RawReturned {
    pub result: Result<(), CallFailure>,
    pub reported_error: bool,
    pub called_back: Option<CallbackThread>,
}

/// Blocks until the run has ended.
pub fn run(
    model: &Model,
    spec: &RawRunSpec,
    progress: &Arc<RunProgress>,
    events: &SlotEvents,
) -> RawReturned {
    let record = SharedRawRecord::default();
    let result = start(model, spec, progress, &record, events);
    let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
    let result = match record.failure.take() {
        Some(failure) => Err(failure),
        None => result,
    };
    RawReturned {
        result,
        reported_error: record.reported_error,
        called_back: record.called_back,
    }
}

fn start(
    model: &Model,
    spec: &RawRunSpec,
    progress: &Arc<RunProgress>,
    record: &SharedRawRecord,
    events: &SlotEvents,
) -> Result<(), CallFailure> {
    let handle = model.handle();
    let shape = model.shape().get();
    spec.inputs
        .iter()
        .try_for_each(|input| shape.check(input))?;
    let items = spec
        .inputs
        .iter()
        .map(item)
        .collect::<Result<Vec<_>, _>>()?;
    let infer = &spec.infer;
    let options = RunOptions {
        history: match infer.keep_history {
            0 => History::Forget,
            _ => History::Keep,
        },
        mode: match infer.mode {
            InferMode::Generate => RunMode::Generate,
            InferMode::GetLastHiddenLayer => RunMode::LastHiddenLayer,
            InferMode::GetLogits => RunMode::Logits,
        },
        per_run: per_run(handle, infer)?,
    };
    let extras = RunExtras {
        lora: infer
            .lora_params
            .as_ref()
            .map(|lora| lora.lora_adapter_name.as_str()),
        prompt_cache: infer.prompt_cache_params.as_ref().map(|cache| PromptCache {
            path: Path::new(&cache.prompt_cache_path),
            save: cache.save_prompt_cache != 0,
        }),
    };
    if spec.clear_kv_cache {
        handle.clear_kv_cache(false).map_err(failure)?;
    }
    let id = RunId::new(spec.run).ok_or_else(|| CallFailure::Other {
        reason: "a run needs an id other than 0".to_owned(),
    })?;
    // An abort that came before this point finds no run in the library.
    if progress.abort_requested() {
        return Ok(());
    }
    let control = handle.control();
    let sink = RawSink {
        run: spec.run,
        caller: thread::current().id(),
        progress: Arc::clone(progress),
        record: Arc::clone(record),
        events: events.clone(),
        abort: Box::new(move || control.abort()),
        release: handle.release_buffer(),
        rows: spec.rows,
        shape: model.shape().clone(),
        abort_after_logits: !spec.generate_after_logits,
        tensor_limit_bytes: spec.tensor_limit_bytes,
        ended: false,
        awaits_matrix: infer.mode == InferMode::GetLastHiddenLayer,
        texts: items.iter().map(|_| Utf8Assembly::default()).collect(),
    };
    handle
        .run_batch(&items, &options, &extras, id, Box::new(sink))
        .map_err(failure)
}

fn per_run(handle: &Handle, infer: &InferParam) -> Result<Option<PerRunValues>, CallFailure> {
    let what = match (infer.sampling_params, infer.max_new_tokens) {
        (None, None) => return Ok(None),
        (Some(_), _) => "sampling_params",
        (None, Some(_)) => "max_new_tokens of a run",
    };
    let Some(per_run) = handle.per_run() else {
        return Err(failure(CallError::NotInLibrary {
            what,
            version: handle.library().version().to_owned(),
        }));
    };
    let sampling = infer
        .sampling_params
        .map_or_else(Sampling::default, library_call::sampling);
    Ok(Some(per_run.values(sampling, infer.max_new_tokens)))
}

fn item(input: &Input) -> Result<RunItem<'_>, CallFailure> {
    let payload = input.payload().map_err(|error| CallFailure::BadValue {
        what: "input".to_owned(),
        reason: error.to_string(),
    })?;
    Ok(RunItem {
        role: input.role.as_deref().unwrap_or("user"),
        enable_thinking: input.enable_thinking,
        input: match payload {
            InputPayload::Prompt(text) => RunInput::Prompt(text),
            InputPayload::Token(tokens) => RunInput::Tokens(&tokens.input_ids),
            InputPayload::Embed(embed) => RunInput::Embeddings {
                values: &embed.embed,
                n_tokens: embed.n_tokens,
            },
            InputPayload::Multimodal(input) => RunInput::Multimodal(multimodal(input)),
        },
    })
}

fn multimodal(input: &MultimodalInput) -> Multimodal<'_> {
    Multimodal {
        prompt: &input.prompt,
        image: input.image.as_ref().map(|part| Images {
            embed: &part.image_embed,
            n_image_tokens: part.n_image_tokens,
            n_image: part.n_image,
            tags: Tags {
                start: part.image_start.as_deref(),
                end: part.image_end.as_deref(),
                content: part.image_content.as_deref(),
            },
            width: part.image_width,
            height: part.image_height,
        }),
        video: input.video.as_ref().map(|part| Videos {
            embed: &part.video_embed,
            n_frame_tokens: part.n_frame_tokens,
            n_frame_per_video: part.n_frame_per_video,
            n_video: part.n_video,
            tags: Tags {
                start: part.video_start.as_deref(),
                end: part.video_end.as_deref(),
                content: part.video_content.as_deref(),
            },
            width: part.frame_width,
            height: part.frame_height,
        }),
        audio: input.audio.as_ref().map(|part| Sounds {
            embed: &part.audio_embed,
            n_audio_tokens: part.n_audio_tokens,
            n_audio: part.n_audio,
            tags: Tags {
                start: part.audio_start.as_deref(),
                end: part.audio_end.as_deref(),
                content: part.audio_content.as_deref(),
            },
        }),
    }
}
