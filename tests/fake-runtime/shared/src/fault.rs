//! What goes wrong, and when: a fault belongs to a call, may wait for an occasion of it, for a
//! prompt, for a place in the run and for a file, and may be spent once for all processes. What a
//! scenario says of one is checked when the model is loaded, by `fault_check`.

use crate::console;
use crate::memory::{MIB, Memory};
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

#[derive(Deserialize, Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    Init,
    Run,
    Abort,
    IsRunning,
    Destroy,
    ClearKvCache,
    GetKvCacheSize,
    SetChatTemplate,
    LoadLora,
    LoadPromptCache,
    ReleasePromptCache,
    SetFunctionTools,
    SetCrossAttnParams,
}

#[derive(Deserialize, Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Never returns, whatever is asked.
    Hang,
    Segv,
    Abort,
    Ill,
    Exit,
    /// Returns `code` and calls nothing back.
    Fail,
    /// rkllm_init: 0 without a handle.
    NullHandle,
    /// rkllm_abort: 0, and nothing is aborted.
    Ignore,
    /// rkllm_run: the ERROR state, then `code`.
    ErrorState,
    /// rkllm_run: returns 0 and FINISH never comes.
    NeverFinish,
    /// rkllm_run: FINISH comes twice.
    FinishTwice,
    /// rkllm_run: a NORMAL with `text` and `id` between FINISH and the return.
    TextAfterFinish,
    /// rkllm_run, rkllm_destroy: after it has returned, one result comes from another thread.
    LateCallback,
    /// rkllm_run: a NORMAL with `id` whose text is NULL, then goes on.
    NullText,
    /// rkllm_run: a NORMAL with `id` whose text is empty, then goes on.
    SpecialToken,
    /// `mib` more memory, 1 MiB every `step-ms`, then goes on.
    GrowMemory,
    /// `lines` lines on stdout, then goes on.
    FloodStdout,
    /// `text` on stdout, then goes on.
    Print,
    /// `bytes` on stdout without a newline, then goes on.
    PrintBytes,
    /// Goes on after `ms`.
    Delay,
    /// Goes on once there is a file named `text` beside the model.
    Wait,
    /// Tries to read and to write what the lines of the file named `text` beside the model name, says what
    /// came of it, and goes on.
    Reach,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Fault {
    pub call: Call,
    pub kind: Kind,
    /// The n-th such call in this process, from 1; absent: every one.
    pub occasion: Option<u32>,
    /// rkllm_run: when so many tokens have been handed over; absent: at the start.
    pub after_tokens: Option<u64>,
    /// rkllm_run: in the middle of the time that prefill takes.
    #[serde(default)]
    pub in_prefill: bool,
    /// rkllm_run: only for prompts with this text.
    pub when_prompt_contains: Option<String>,
    /// A file name beside the model: the fault happens for the process that creates it, once.
    pub once: Option<String>,
    /// A file name beside the model: the fault happens for the process that removes it.
    pub when_file: Option<String>,
    /// A file name beside the model: gets a line before the fault happens.
    pub record: Option<String>,
    pub code: Option<i32>,
    pub text: Option<String>,
    pub id: Option<i32>,
    pub bytes: Option<Vec<u8>>,
    pub lines: Option<u32>,
    pub ms: Option<u64>,
    pub mib: Option<u32>,
    pub step_ms: Option<u64>,
}

/// Where a fault happens.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// That of the model file.
    pub folder: &'a Path,
    /// The model's.
    pub memory: &'a Memory,
}

/// How the call goes on after a fault that left the process alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    GoOn,
    Return(i32),
    NullHandle,
    ErrorState(i32),
    NeverFinish,
    FinishTwice,
    TextAfterFinish { text: String, id: i32 },
    LateCallback,
    NullText { id: i32 },
    SpecialToken { id: i32 },
}

impl Fault {
    /// Whether this is the fault's call. `prompt` is empty where there is none.
    pub fn applies(&self, call: Call, occasion: u32, prompt: &[u8]) -> bool {
        self.call == call
            && self.occasion.is_none_or(|wanted| wanted == occasion)
            && self.when_prompt_contains.as_ref().is_none_or(|text| {
                !text.is_empty()
                    && prompt
                        .windows(text.len())
                        .any(|part| part == text.as_bytes())
            })
    }

    /// Whether it happens before the run does anything; the others need its place or its end.
    pub fn precedes_the_run(&self) -> bool {
        self.after_tokens.is_none() && !self.in_prefill && !self.kind.needs_a_result()
    }

    /// Does it, if the files that it depends on say so.
    pub fn happen(&self, scene: Scene<'_>) -> After {
        if !self.is_due(scene.folder) {
            return After::GoOn;
        }
        if let Some(name) = &self.record {
            self.write_down(&scene.folder.join(name));
        }
        let code = self.code.unwrap_or(-1);
        let id = self.id.unwrap_or(1);
        match self.kind {
            Kind::Hang => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            Kind::Segv => touch_an_unmapped_page(),
            // SAFETY: ends the process.
            Kind::Abort => unsafe { libc::abort() },
            Kind::Ill => illegal_instruction(),
            // SAFETY: ends the process, running its exit handlers as the vendor's code would.
            Kind::Exit => unsafe { libc::exit(self.code.unwrap_or(1)) },
            Kind::Fail => After::Return(code),
            Kind::NullHandle => After::NullHandle,
            Kind::Ignore => After::Return(0),
            Kind::ErrorState => After::ErrorState(code),
            Kind::NeverFinish => After::NeverFinish,
            Kind::FinishTwice => After::FinishTwice,
            Kind::TextAfterFinish => After::TextAfterFinish {
                text: self.text.clone().unwrap_or("after FINISH".to_owned()),
                id,
            },
            Kind::LateCallback => After::LateCallback,
            Kind::NullText => After::NullText { id },
            Kind::SpecialToken => After::SpecialToken { id },
            Kind::GrowMemory => {
                self.grow(scene.memory);
                After::GoOn
            }
            Kind::FloodStdout => {
                for line in 0..self.lines.unwrap_or(100_000) {
                    console::info(&format!("flood line {line}"));
                }
                After::GoOn
            }
            Kind::Print => {
                console::line(self.text.as_deref().unwrap_or_default());
                After::GoOn
            }
            Kind::PrintBytes => {
                console::bytes(self.bytes.as_deref().unwrap_or_default());
                After::GoOn
            }
            Kind::Delay => {
                std::thread::sleep(Duration::from_millis(self.ms.unwrap_or(0)));
                After::GoOn
            }
            Kind::Reach => {
                self.reach(scene.folder);
                After::GoOn
            }
            Kind::Wait => {
                let file = scene.folder.join(self.text.as_deref().unwrap_or_default());
                while !file.exists() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                After::GoOn
            }
        }
    }

    fn reach(&self, folder: &Path) {
        let name = self.text.as_deref().unwrap_or_default();
        let paths = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        for path in paths.lines().map(Path::new) {
            let told = |done: std::io::Result<()>| match done {
                Ok(()) => "yes".to_owned(),
                Err(error) => format!("{:?}", error.kind()),
            };
            let (read, written) = if path.is_dir() {
                let new = path.join(format!("reached-{}", std::process::id()));
                let made = OpenOptions::new().write(true).create_new(true).open(&new);
                drop(std::fs::remove_file(&new));
                (std::fs::read_dir(path).map(drop), made.map(drop))
            } else {
                let opened = OpenOptions::new().append(true).open(path);
                (std::fs::read(path).map(drop), opened.map(drop))
            };
            console::line(&format!(
                "reach {} read: {} written: {}",
                path.display(),
                told(read),
                told(written)
            ));
        }
    }

    /// Of processes that come here at the same time, creating or removing the file makes one the
    /// fault's.
    fn is_due(&self, folder: &Path) -> bool {
        if let Some(name) = &self.when_file {
            return std::fs::remove_file(folder.join(name)).is_ok();
        }
        if let Some(name) = &self.once {
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(folder.join(name));
            return file.is_ok();
        }
        true
    }

    /// In one write, so that lines of several processes do not mix.
    fn write_down(&self, path: &Path) {
        let name = |value: serde_json::Result<String>| {
            let quoted = value.expect("a name");
            quoted.trim_matches('"').to_owned()
        };
        let line = format!(
            "{} {} {}\n",
            std::process::id(),
            name(serde_json::to_string(&self.call)),
            name(serde_json::to_string(&self.kind))
        );
        let written = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            console::error(&format!("record {}: {error}", path.display()));
        }
    }

    fn grow(&self, memory: &Memory) {
        let mib = self.mib.unwrap_or(0);
        let Some(step) = self.step_ms.map(Duration::from_millis) else {
            return memory.grow(mib as usize * MIB);
        };
        for _ in 0..mib {
            memory.grow(MIB);
            std::thread::sleep(step);
        }
    }
}

impl Kind {
    /// Whether it is something in the run's results, or in place of them.
    pub fn needs_a_result(self) -> bool {
        matches!(self, Kind::ErrorState | Kind::NeverFinish)
            || self.is_about_tokens()
            || self.is_about_the_end()
    }

    /// Whether it is a token of its own.
    pub fn is_about_tokens(self) -> bool {
        matches!(self, Kind::NullText | Kind::SpecialToken)
    }

    /// Whether it shows when the run ends, and not when it is due.
    pub fn is_about_the_end(self) -> bool {
        matches!(
            self,
            Kind::FinishTwice | Kind::TextAfterFinish | Kind::LateCallback
        )
    }
}

fn touch_an_unmapped_page() -> ! {
    let address: *const u8 = std::hint::black_box(std::ptr::without_provenance(8));
    // A real fault and not raise(3): Rust's handler for stack overflows, if it is installed,
    // expects the faulting instruction to be executed again.
    // SAFETY: never: nothing is mapped there and the process ends, which is what is asked for.
    let byte = unsafe { address.read_volatile() };
    unreachable!("page zero is mapped and holds {byte}");
}

fn illegal_instruction() -> ! {
    // SAFETY: ends the process with SIGILL, which is what is asked for.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("ud2", options(noreturn));
    }
    // SAFETY: ends the process with SIGILL, which is what is asked for.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("udf #0", options(noreturn));
    }
}
