//! What a handle's next worker must be told to be like its last one. Pure.
//!
//! A call that a later one of its kind undoes is not kept; the order of the rest is, because tools
//! need the template that was there when they were set.

use crate::library_calls::Call;
use crate::memory::Charge;

#[derive(Debug, Default)]
pub(super) struct Journal {
    calls: Vec<Kept>,
    /// A run was kept as context of the next one.
    has_history: bool,
}

#[derive(Debug)]
struct Kept {
    call: Call,
    /// For as long as it is kept.
    _charge: Option<Charge>,
}

impl Journal {
    /// Takes in a call that succeeded, with what is charged for it. Its paths are as they were given to
    /// the library.
    pub fn record(&mut self, call: Call, charge: Option<Charge>) {
        match &call {
            Call::GetKvCacheSize => return,
            Call::ClearKvCache { start_pos, .. } => {
                // A range leaves the rest.
                self.has_history &= start_pos.is_some();
                return;
            }
            Call::ReleasePromptCache => {
                return self.forget(|kept| matches!(kept, Call::LoadPromptCache { .. }));
            }
            Call::LoadPromptCache { .. } => {
                self.forget(|kept| matches!(kept, Call::LoadPromptCache { .. }));
            }
            Call::SetChatTemplate { .. } => {
                // It clears the cache, and turns tools off.
                self.has_history = false;
                self.forget(|kept| {
                    matches!(
                        kept,
                        Call::SetChatTemplate { .. } | Call::SetFunctionTools { .. }
                    )
                });
            }
            Call::SetFunctionTools { .. } => {
                self.forget(|kept| matches!(kept, Call::SetFunctionTools { .. }));
            }
            Call::SetCrossAttnParams(_) => {
                self.forget(|kept| matches!(kept, Call::SetCrossAttnParams(_)));
            }
            // Adapters cannot be unloaded, and a name not be taken twice.
            Call::LoadLora(_) => {}
        }
        self.calls.push(Kept {
            call,
            _charge: charge,
        });
    }

    /// Takes in a run that was handed to the library.
    pub fn ran(&mut self, keep_history: bool) {
        // A run that is not kept forgets what was.
        self.has_history = keep_history;
    }

    /// The call to make again after so many others.
    pub fn after(&self, others: usize) -> Option<&Call> {
        self.calls.get(others).map(|kept| &kept.call)
    }

    /// The worker is gone, and its cache with it. Whether that loses something.
    pub fn worker_lost(&mut self) -> bool {
        std::mem::take(&mut self.has_history)
    }

    fn forget(&mut self, undone: impl Fn(&Call) -> bool) {
        self.calls.retain(|kept| !undone(&kept.call));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library_calls::LoraAdapter;

    fn template(system: &str) -> Call {
        Call::SetChatTemplate {
            system_prompt: system.to_owned(),
            prompt_prefix: String::new(),
            prompt_postfix: String::new(),
        }
    }

    fn tools() -> Call {
        Call::SetFunctionTools {
            system_prompt: String::new(),
            tools: "[]".to_owned(),
            tool_response_str: String::new(),
        }
    }

    fn lora(name: &str) -> Call {
        Call::LoadLora(LoraAdapter {
            lora_adapter_path: name.to_owned(),
            lora_adapter_name: name.to_owned(),
            scale: 1.0,
        })
    }

    fn cache(path: &str) -> Call {
        Call::LoadPromptCache {
            prompt_cache_path: path.to_owned(),
        }
    }

    fn kept(journal: &Journal) -> Vec<Call> {
        (0..)
            .map_while(|others| journal.after(others).cloned())
            .collect()
    }

    fn journal(calls: &[Call]) -> Journal {
        let mut journal = Journal::default();
        for call in calls {
            journal.record(call.clone(), None);
        }
        journal
    }

    #[test]
    fn what_is_undone_is_not_replayed() {
        let calls = [
            template("a"),
            tools(),
            cache("one"),
            lora("x"),
            template("b"),
            lora("y"),
            cache("two"),
        ];
        let expected = [lora("x"), template("b"), lora("y"), cache("two")];
        assert_eq!(kept(&journal(&calls)), expected);
        let released = [cache("one"), Call::ReleasePromptCache, tools(), tools()];
        assert_eq!(kept(&journal(&released)), [tools()]);
    }

    #[test]
    fn history_is_lost_once_and_only_if_it_was_kept() {
        let mut journal = Journal::default();
        assert!(!journal.worker_lost());
        journal.ran(true);
        assert!(journal.worker_lost());
        assert!(!journal.worker_lost(), "told once");
        journal.ran(true);
        journal.ran(false);
        assert!(!journal.worker_lost());
        let clear = |start_pos: Option<Vec<i32>>| Call::ClearKvCache {
            keep_system_prompt: 0,
            end_pos: start_pos.clone(),
            start_pos,
        };
        journal.ran(true);
        journal.record(clear(Some(vec![1])), None);
        assert!(journal.worker_lost(), "a range leaves the rest");
        for call in [clear(None), template("")] {
            journal.ran(true);
            journal.record(call, None);
            assert!(!journal.worker_lost());
        }
    }
}
