//! llama.cpp's own embeddings, for tests that hold others to them: nothing of this crate's
//! library is used, and the pooling is llama.cpp's. A question comes on stdin as JSON,
//! `{"model": PATH, "pooling": "last" | "mean", "texts": [...]}`; the answer is a line of JSON on
//! stdout, `[{"tokens": [...], "embedding": [...]}, ...]`, an entry for each text, not normalised.

use std::error::Error;
use std::ffi::CString;
use std::ptr;

use llama_cpp_sys_2 as llama;
use serde_json::{Value, json};

/// Of a text; also the largest batch, as llama.cpp pools within one.
const MAX_TOKENS: u32 = 512;

fn main() -> Result<(), Box<dyn Error>> {
    let question: Value = serde_json::from_reader(std::io::stdin())?;
    let pooling = match question["pooling"].as_str() {
        Some("last") => llama::LLAMA_POOLING_TYPE_LAST,
        Some("mean") => llama::LLAMA_POOLING_TYPE_MEAN,
        _ => return Err("`pooling` is neither \"last\" nor \"mean\"".into()),
    };
    let model = Model::open(question["model"].as_str().ok_or("no `model`")?)?;
    let texts = question["texts"].as_array().ok_or("no `texts`")?;
    let answer = texts.iter().map(|text| {
        let tokens = model.tokenize(text.as_str().ok_or("a text is no string")?)?;
        let embedding = model.embedding(&tokens, pooling)?;
        Ok(json!({"tokens": tokens, "embedding": embedding}))
    });
    let answer: Result<Vec<Value>, Box<dyn Error>> = answer.collect();
    println!("{}", Value::Array(answer?));
    Ok(())
}

struct Model(*mut llama::llama_model);

impl Model {
    fn open(path: &str) -> Result<Model, Box<dyn Error>> {
        let path = CString::new(path)?;
        // SAFETY: default parameters and a live C string.
        let model = unsafe {
            llama::llama_log_set(Some(quiet), ptr::null_mut());
            llama::llama_backend_init();
            let mut params = llama::llama_model_default_params();
            params.n_gpu_layers = 0;
            llama::llama_model_load_from_file(path.as_ptr(), params)
        };
        if model.is_null() {
            return Err(format!("llama.cpp does not load {path:?}").into());
        }
        Ok(Model(model))
    }

    /// As llama.cpp's own programs tokenise what they embed: with the tokens that the vocabulary
    /// wants before and after every text.
    fn tokenize(&self, text: &str) -> Result<Vec<i32>, Box<dyn Error>> {
        let mut tokens = vec![0; MAX_TOKENS as usize];
        // SAFETY: the vocabulary is the live model's; text and tokens have the lengths given.
        let count = unsafe {
            llama::llama_tokenize(
                llama::llama_model_get_vocab(self.0),
                text.as_ptr().cast(),
                i32::try_from(text.len())?,
                tokens.as_mut_ptr(),
                tokens.len() as i32,
                true,
                true,
            )
        };
        match usize::try_from(count) {
            Ok(count @ 1..) => tokens.truncate(count),
            _ => return Err(format!("{text:?} is not 1 to {MAX_TOKENS} tokens").into()),
        }
        Ok(tokens)
    }

    fn embedding(
        &self,
        tokens: &[i32],
        pooling: llama::llama_pooling_type,
    ) -> Result<Vec<f32>, Box<dyn Error>> {
        let context = Context::with_pooling(self, pooling)?;
        let mut tokens = tokens.to_vec();
        // SAFETY: model and context are alive; the batch refers to `tokens`, which outlive the
        // decode; the pooled row of sequence 0 has as many floats as the model's output is wide and
        // is copied before the context is freed.
        unsafe {
            let width = llama::llama_model_n_embd_out(self.0) as usize;
            let batch = llama::llama_batch_get_one(tokens.as_mut_ptr(), tokens.len() as i32);
            let code = llama::llama_decode(context.0, batch);
            if code != 0 {
                return Err(format!("llama_decode returned {code}").into());
            }
            let row = llama::llama_get_embeddings_seq(context.0, 0);
            if row.is_null() {
                return Err("llama.cpp has no embedding of the sequence".into());
            }
            Ok(std::slice::from_raw_parts(row, width).to_vec())
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: owned by this value, and no context on it outlives the call that made it.
        unsafe { llama::llama_model_free(self.0) };
    }
}

struct Context(*mut llama::llama_context);

impl Context {
    fn with_pooling(
        model: &Model,
        pooling: llama::llama_pooling_type,
    ) -> Result<Context, Box<dyn Error>> {
        // SAFETY: the model is alive, and its borrower frees the context before it.
        let context = unsafe {
            let mut params = llama::llama_context_default_params();
            params.n_ctx = MAX_TOKENS;
            params.n_batch = MAX_TOKENS;
            params.n_ubatch = MAX_TOKENS;
            params.n_threads = 1;
            params.n_threads_batch = 1;
            params.embeddings = true;
            params.pooling_type = pooling;
            llama::llama_init_from_model(model.0, params)
        };
        if context.is_null() {
            return Err("llama.cpp makes no context".into());
        }
        Ok(Context(context))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: owned by this value.
        unsafe { llama::llama_free(self.0) };
    }
}

unsafe extern "C" fn quiet(
    _level: llama::ggml_log_level,
    _text: *const std::ffi::c_char,
    _user_data: *mut std::ffi::c_void,
) {
}
