//! Models whose file has no embedding layer, which is then the host's (`embed_callback`). llama.cpp
//! loads no model without the table, so a second file beside the model's gives it one that has the
//! right shape and no content. Nothing is ever looked up there: every token reaches llama.cpp as a
//! row of the host's.

use std::ffi::{CStr, CString, c_char};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::{self, NonNull};

use llama_cpp_sys_2 as llama;

const TABLE: &CStr = c"token_embd.weight";
/// Without it llama.cpp would take the table for the output layer, too.
const OUTPUT: &CStr = c"output.weight";

/// What the model's file says of the table that it lacks.
#[derive(Debug, PartialEq, Eq)]
struct Missing {
    width: i64,
    tokens: i64,
    /// Tensors that there are.
    tensors: i64,
}

/// A model file's head, without the weights.
struct Head(NonNull<llama::gguf_context>);

impl Head {
    fn read(path: &CStr) -> Option<Head> {
        let params = llama::gguf_init_params {
            no_alloc: true,
            ctx: ptr::null_mut(),
        };
        // SAFETY: a live C string; without a place for tensors only the head is read.
        NonNull::new(unsafe { llama::gguf_init_from_file(path.as_ptr(), params) }).map(Head)
    }

    fn has_tensor(&self, name: &CStr) -> bool {
        // SAFETY: the head is alive.
        unsafe { llama::gguf_find_tensor(self.0.as_ptr(), name.as_ptr()) >= 0 }
    }

    /// None: there is no value of that type under this name.
    fn key(&self, name: &CStr, kind: llama::gguf_type) -> Option<i64> {
        // SAFETY: the head is alive, and the type is asked of a key that was found.
        unsafe {
            let key = llama::gguf_find_key(self.0.as_ptr(), name.as_ptr());
            (key >= 0 && llama::gguf_get_kv_type(self.0.as_ptr(), key) == kind).then_some(key)
        }
    }

    fn number(&self, name: &CStr) -> Option<u32> {
        let key = self.key(name, llama::GGUF_TYPE_UINT32)?;
        // SAFETY: the key is there and has this type.
        Some(unsafe { llama::gguf_get_val_u32(self.0.as_ptr(), key) })
    }

    fn missing(&self) -> Option<Missing> {
        if self.has_tensor(TABLE) || !self.has_tensor(OUTPUT) {
            return None;
        }
        let architecture = self.key(c"general.architecture", llama::GGUF_TYPE_STRING)?;
        // SAFETY: the key is there and has this type; the text lives as long as the head.
        let architecture =
            unsafe { CStr::from_ptr(llama::gguf_get_val_str(self.0.as_ptr(), architecture)) };
        let of_model = |name: &str| {
            let name = CString::new(format!("{}.{name}", architecture.to_str().ok()?)).ok()?;
            self.number(&name)
        };
        let listed = self
            .key(c"tokenizer.ggml.tokens", llama::GGUF_TYPE_ARRAY)
            // SAFETY: the key is there and has this type.
            .map(|key| unsafe { llama::gguf_get_arr_n(self.0.as_ptr(), key) } as i64);
        Some(Missing {
            width: of_model("embedding_length")?.into(),
            tokens: listed.or_else(|| of_model("vocab_size").map(i64::from))?,
            // SAFETY: the head is alive.
            tensors: unsafe { llama::gguf_get_n_tensors(self.0.as_ptr()) },
        })
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        // SAFETY: owned by this value.
        unsafe { llama::gguf_free(self.0.as_ptr()) };
    }
}

/// The second file, in memory and without content.
pub(crate) struct StandIn {
    file: File,
    tensors: i64,
}

impl StandIn {
    /// None: the model's file has an embedding layer, or more is wrong with it than that.
    pub(crate) fn for_model(path: &CStr) -> Option<StandIn> {
        let missing = Head::read(path)?.missing()?;
        Some(StandIn {
            file: file_of(&missing).ok()?,
            tensors: missing.tensors + 1,
        })
    }

    /// Loads the model with the table: to llama.cpp they are the two parts of a split file.
    pub(crate) fn load(
        &self,
        path: &CStr,
        mut params: llama::llama_model_params,
    ) -> *mut llama::llama_model {
        let Ok(own) = CString::new(format!("/proc/self/fd/{}", self.file.as_raw_fd())) else {
            return ptr::null_mut();
        };
        let end = llama::llama_model_kv_override {
            tag: llama::LLAMA_KV_OVERRIDE_TYPE_INT,
            key: [0; 128],
            __bindgen_anon_1: llama::llama_model_kv_override__bindgen_ty_1 { val_i64: 0 },
        };
        let number = |name: &str, value: i64| {
            let mut pair = end;
            for (to, from) in pair.key.iter_mut().zip(name.bytes()) {
                *to = from.cast_signed() as c_char;
            }
            pair.__bindgen_anon_1.val_i64 = value;
            pair
        };
        // An empty name is the list's end.
        let overrides = [
            number("split.no", 0),
            number("split.count", 2),
            number("split.tensors.count", self.tensors),
            end,
        ];
        let mut paths = [path.as_ptr(), own.as_ptr()];
        params.kv_overrides = overrides.as_ptr();
        // SAFETY: two live C strings; the overrides end with an empty name and live for the call.
        unsafe { llama::llama_model_load_from_splits(paths.as_mut_ptr(), paths.len(), params) }
    }
}

fn file_of(missing: &Missing) -> std::io::Result<File> {
    // SAFETY: a live C string; the descriptor is new and has no other owner.
    let mut file = unsafe {
        let descriptor = libc::memfd_create(c"rkllm-embeddings".as_ptr(), libc::MFD_CLOEXEC);
        if descriptor < 0 {
            return Err(std::io::Error::last_os_error());
        }
        File::from_raw_fd(descriptor)
    };
    let refused = || std::io::Error::other("ggml makes no such table");
    // SAFETY: the contexts are checked and freed; the tensor lives in its own, without data; the head
    // is written to a buffer of the size that it has.
    let (head, bytes) = unsafe {
        let tensors = llama::ggml_init(llama::ggml_init_params {
            mem_size: 2 * llama::ggml_tensor_overhead(),
            mem_buffer: ptr::null_mut(),
            no_alloc: true,
        });
        let gguf = llama::gguf_init_empty();
        let made = (!tensors.is_null() && !gguf.is_null() && missing.width % 32 == 0).then(|| {
            // The narrowest type that has any multiple of 32 columns.
            let kind = llama::GGML_TYPE_Q4_0;
            let table = llama::ggml_new_tensor_2d(tensors, kind, missing.width, missing.tokens);
            llama::ggml_set_name(table, TABLE.as_ptr());
            llama::gguf_set_val_u16(gguf, c"split.no".as_ptr(), 1);
            llama::gguf_add_tensor(gguf, table);
            let mut head = vec![0_u8; llama::gguf_get_meta_size(gguf)];
            llama::gguf_get_meta_data(gguf, head.as_mut_ptr().cast());
            (head, llama::ggml_nbytes(table))
        });
        llama::gguf_free(gguf);
        llama::ggml_free(tensors);
        made.ok_or_else(refused)?
    };
    file.write_all(&head)?;
    // Its pages are there when they are read, and zero.
    file.set_len((head.len() + bytes).next_multiple_of(32) as u64)?;
    Ok(file)
}
