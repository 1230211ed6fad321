//! llama.cpp's own answers, by the shortest way there is: a fresh context, one `llama_decode` after
//! the other, every token with an output. Nothing of the library under test is used.

// Each test program uses a part of it.
#![allow(dead_code)]

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use llama_cpp_sys_2 as llama;

pub struct Reference {
    model: *mut llama::llama_model,
}

/// Row after row, `width` floats each.
pub struct Rows {
    pub width: usize,
    pub values: Vec<f32>,
}

impl Reference {
    pub fn open(path: &str) -> Reference {
        let path = CString::new(path).expect("a path has no NUL");
        // SAFETY: default parameters and a live C string.
        let model = unsafe {
            llama::llama_log_set(Some(quiet), ptr::null_mut());
            llama::llama_backend_init();
            let mut params = llama::llama_model_default_params();
            params.n_gpu_layers = 0;
            llama::llama_model_load_from_file(path.as_ptr(), params)
        };
        assert!(!model.is_null(), "llama.cpp loads the model");
        Reference { model }
    }

    pub fn tokenize(&self, text: &str) -> Vec<i32> {
        let mut tokens = vec![0; text.len()];
        // SAFETY: the vocabulary is the live model's; text and tokens have the lengths given.
        let count = unsafe {
            llama::llama_tokenize(
                llama::llama_model_get_vocab(self.model),
                text.as_ptr().cast(),
                text.len() as i32,
                tokens.as_mut_ptr(),
                tokens.len() as i32,
                false,
                true,
            )
        };
        tokens.truncate(usize::try_from(count).expect("there are no more tokens than bytes"));
        tokens
    }

    pub fn hidden_states(&self, tokens: &[i32]) -> Rows {
        self.rows(&[tokens], true, None)
    }

    /// Of a prompt, and of what follows it one by one.
    pub fn logits(&self, prompt: &[i32], following: &[i32]) -> Rows {
        self.logits_by(1, prompt, following)
    }

    /// Of a prompt, and of what follows it, `at_once` tokens at a time. Up to 63 at once have their
    /// attention rounded as one by itself has it, and take less time.
    pub fn logits_by(&self, at_once: usize, prompt: &[i32], following: &[i32]) -> Rows {
        let following = following.chunks(at_once);
        let steps: Vec<&[i32]> = std::iter::once(prompt).chain(following).collect();
        self.rows(&steps, false, None)
    }

    /// Logits with an adapter applied by llama.cpp itself.
    pub fn logits_with_adapter(&self, tokens: &[i32], adapter: &str, scale: f32) -> Rows {
        self.rows(&[tokens], false, Some((adapter, scale)))
    }

    fn rows(&self, steps: &[&[i32]], hidden: bool, adapter: Option<(&str, f32)>) -> Rows {
        // SAFETY: the model is alive; the context is freed at the end; the arrays of the batch
        // come from `llama_batch_init` with room for all tokens; each row that is read belongs to
        // a token that asked for an output in the decode before.
        unsafe {
            let mut params = llama::llama_context_default_params();
            params.n_ctx = 2048;
            params.n_threads = 1;
            params.n_threads_batch = 1;
            params.embeddings = hidden;
            params.pooling_type = llama::LLAMA_POOLING_TYPE_NONE;
            let context = llama::llama_init_from_model(self.model, params);
            assert!(!context.is_null());
            if let Some((path, mut scale)) = adapter {
                let path = CString::new(path).expect("a path has no NUL");
                let mut adapter = llama::llama_adapter_lora_init(self.model, path.as_ptr());
                assert!(!adapter.is_null(), "llama.cpp loads the adapter");
                llama::llama_set_adapters_lora(context, &mut adapter, 1, &mut scale);
            }
            let width = if hidden {
                llama::llama_model_n_embd_out(self.model)
            } else {
                llama::llama_vocab_n_tokens(llama::llama_model_get_vocab(self.model))
            } as usize;
            let mut values = Vec::new();
            let mut position = 0;
            for tokens in steps {
                let mut batch = llama::llama_batch_init(tokens.len() as i32, 0, 1);
                batch.n_tokens = tokens.len() as i32;
                for (at, &token) in tokens.iter().enumerate() {
                    *batch.token.add(at) = token;
                    *batch.pos.add(at) = position;
                    *batch.n_seq_id.add(at) = 1;
                    **batch.seq_id.add(at) = 0;
                    *batch.logits.add(at) = 1;
                    position += 1;
                }
                assert_eq!(llama::llama_decode(context, batch), 0);
                for at in 0..tokens.len() as i32 {
                    let row = if hidden {
                        llama::llama_get_embeddings_ith(context, at)
                    } else {
                        llama::llama_get_logits_ith(context, at)
                    };
                    assert!(!row.is_null());
                    values.extend_from_slice(std::slice::from_raw_parts(row, width));
                }
                llama::llama_batch_free(batch);
            }
            llama::llama_free(context);
            Rows { width, values }
        }
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // SAFETY: owned by this value, and every context on it is freed.
        unsafe { llama::llama_model_free(self.model) };
    }
}

unsafe extern "C" fn quiet(
    _level: llama::ggml_log_level,
    _text: *const std::ffi::c_char,
    _user_data: *mut std::ffi::c_void,
) {
}

/// `model` with its weights as they are computed with, in f32, written the first time. Quantised weights
/// have activations of eight bits, which make much of how sums are grouped: who else is in a step and
/// where cells lie then moves logits by more than a hundredth. With these a wrong cell shows.
pub fn unquantised(model: &str) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let name = Path::new(model).with_extension("f32.gguf");
    let path = folder.join(name.file_name().expect("a model has a name"));
    if !path.exists() {
        let unfinished = path.with_extension(format!("{}.new", std::process::id()));
        let c_path = |path: &Path| CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        let (from, to) = (c_path(Path::new(model)), c_path(&unfinished));
        // SAFETY: both paths and the parameters outlive the call.
        let code = unsafe {
            llama::llama_log_set(Some(quiet), ptr::null_mut());
            llama::llama_backend_init();
            let mut params = llama::llama_model_quantize_default_params();
            params.ftype = llama::LLAMA_FTYPE_ALL_F32;
            params.allow_requantize = true;
            llama::llama_model_quantize(from.as_ptr(), to.as_ptr(), &params)
        };
        assert_eq!(code, 0, "llama.cpp writes {}", unfinished.display());
        // Another test may have been as fast: theirs is the same.
        std::fs::rename(&unfinished, &path).expect("the target folder is writable");
    }
    path.to_string_lossy().into_owned()
}

/// The rows of the model's own embedding table, as f32.
pub fn token_embeddings(path: &str, tokens: &[i32]) -> Rows {
    let path = CString::new(path).expect("a path has no NUL");
    let mut tensors: *mut llama::ggml_context = ptr::null_mut();
    // SAFETY: gguf reads the whole file into `tensors`, which is freed after the rows are copied;
    // a row of the table has `ne[0]` values, and `nb[1]` bytes on is the next.
    unsafe {
        let file = llama::gguf_init_from_file(
            path.as_ptr(),
            llama::gguf_init_params {
                no_alloc: false,
                ctx: &mut tensors,
            },
        );
        assert!(!file.is_null() && !tensors.is_null());
        let table = llama::ggml_get_tensor(tensors, c"token_embd.weight".as_ptr());
        assert!(!table.is_null());
        let width = (*table).ne[0] as usize;
        let traits = llama::ggml_get_type_traits((*table).type_);
        let dequantise = (*traits).to_float.expect("the type can be read");
        let mut values = vec![0.0_f32; width * tokens.len()];
        for (at, &token) in tokens.iter().enumerate() {
            let row = (*table)
                .data
                .cast::<u8>()
                .add(token as usize * (*table).nb[1]);
            dequantise(row.cast(), values[at * width..].as_mut_ptr(), width as i64);
        }
        llama::gguf_free(file);
        llama::ggml_free(tensors);
        Rows { width, values }
    }
}

/// Both sides differ by no more than rounding.
pub fn assert_close(got: &[f32], wanted: &[f32], what: &str) {
    assert_eq!(got.len(), wanted.len(), "{what}: number of floats");
    assert!(wanted.iter().any(|v| v.abs() > 0.1), "{what}: not all zero");
    let largest = wanted.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    let error = got
        .iter()
        .zip(wanted)
        .fold(0.0_f32, |most, (g, w)| most.max((g - w).abs()));
    println!("{what}: largest value {largest}, largest difference {error}");
    assert!(
        error <= 2e-3 * largest,
        "{what}: differs by {error}, the largest value being {largest}"
    );
}
