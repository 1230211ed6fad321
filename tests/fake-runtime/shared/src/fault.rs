//! What goes wrong, and when: a fault belongs to a call, may wait for an occasion of it, for a
//! prompt and for a number of tokens, and may be spent once for all processes.

use crate::console;
use serde::Deserialize;
use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
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
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
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
    /// rkllm_run: the ERROR state, then `code`.
    ErrorState,
    /// rkllm_run: returns 0 and FINISH never comes.
    NeverFinish,
    /// rkllm_run: after it has returned, one more token comes from another thread.
    LateCallback,
    /// `lines` lines on stdout, then goes on.
    FloodStdout,
    /// `text` on stdout, then goes on.
    Print,
    /// Goes on after `ms`.
    Delay,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Fault {
    pub call: Call,
    pub kind: Kind,
    /// The n-th such call in this process, from 1; absent: every one.
    occasion: Option<u32>,
    /// rkllm_run: when so many tokens have been handed over; absent: at the start.
    pub after_tokens: Option<u64>,
    /// rkllm_run: only for prompts with this text.
    when_prompt_contains: Option<String>,
    /// A file name beside the model: the fault happens for the process that creates it, once.
    once: Option<String>,
    code: Option<i32>,
    text: Option<String>,
    lines: Option<u32>,
    ms: Option<u64>,
}

/// How the call goes on after a fault that left the process alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    GoOn,
    Return(i32),
    NullHandle,
    ErrorState(i32),
    NeverFinish,
    LateCallback,
}

impl Fault {
    pub fn check(&self) -> Result<(), String> {
        let run_only = self.after_tokens.is_some()
            || self.when_prompt_contains.is_some()
            || matches!(
                self.kind,
                Kind::ErrorState | Kind::NeverFinish | Kind::LateCallback
            );
        if run_only && self.call != Call::Run {
            return Err(format!(
                "a fault of {:?} that only a run can have",
                self.call
            ));
        }
        if self.kind == Kind::NullHandle && self.call != Call::Init {
            return Err("only init can return no handle".to_owned());
        }
        if self.kind == Kind::Print && self.text.is_none() {
            return Err("a print without text".to_owned());
        }
        if self.kind == Kind::Delay && self.ms.is_none() {
            return Err("a delay without ms".to_owned());
        }
        Ok(())
    }

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

    /// Whether it happens before the run does anything; the others need its result or its end.
    pub fn precedes_the_run(&self) -> bool {
        self.after_tokens.is_none()
            && !matches!(
                self.kind,
                Kind::ErrorState | Kind::NeverFinish | Kind::LateCallback
            )
    }

    /// Does it. `folder` is the model's.
    pub fn happen(&self, folder: &Path) -> After {
        if let Some(name) = &self.once {
            let created = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(folder.join(name));
            if created.is_err() {
                return After::GoOn;
            }
        }
        let code = self.code.unwrap_or(-1);
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
            Kind::Fail => return After::Return(code),
            Kind::NullHandle => return After::NullHandle,
            Kind::ErrorState => return After::ErrorState(code),
            Kind::NeverFinish => return After::NeverFinish,
            Kind::LateCallback => return After::LateCallback,
            Kind::FloodStdout => {
                for line in 0..self.lines.unwrap_or(100_000) {
                    console::info(&format!("flood line {line}"));
                }
            }
            Kind::Print => console::line(self.text.as_deref().unwrap_or_default()),
            Kind::Delay => std::thread::sleep(Duration::from_millis(self.ms.unwrap_or(0))),
        }
        After::GoOn
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
