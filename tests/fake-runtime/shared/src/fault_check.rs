//! Faults that cannot happen as they are written are refused when the model is loaded: a test that
//! asks for one would otherwise pass without it.

use crate::fault::{Call, Fault, Kind};

impl Fault {
    pub fn check(&self) -> Result<(), String> {
        self.check_call()?;
        self.check_conditions()?;
        self.check_keys()
    }

    fn refuse(&self, why: &str) -> Result<(), String> {
        Err(format!("a fault {:?} of {:?}: {why}", self.kind, self.call))
    }

    fn check_call(&self) -> Result<(), String> {
        let possible: &[Call] = match self.kind {
            Kind::LateCallback => &[Call::Run, Call::Destroy],
            kind if kind.needs_a_result() => &[Call::Run],
            Kind::GrowMemory => &[Call::Run, Call::Init],
            Kind::NullHandle => &[Call::Init],
            Kind::Ignore => &[Call::Abort],
            _ => return Ok(()),
        };
        if !possible.contains(&self.call) {
            return self.refuse(&format!("only {possible:?} can have it"));
        }
        Ok(())
    }

    fn check_conditions(&self) -> Result<(), String> {
        let of_runs =
            self.after_tokens.is_some() || self.when_prompt_contains.is_some() || self.in_prefill;
        if of_runs && self.call != Call::Run {
            return self.refuse("a condition that only a run can have");
        }
        if self.in_prefill && self.after_tokens.is_some() {
            return self.refuse("no token comes in prefill");
        }
        if self.in_prefill && (self.kind.is_about_tokens() || self.kind.is_about_the_end()) {
            return self.refuse("not in prefill, but among the results or at their end");
        }
        if self.once.is_some() && self.when_file.is_some() {
            return self.refuse("once or when-file, not both");
        }
        Ok(())
    }

    fn check_keys(&self) -> Result<(), String> {
        use Kind::{
            Delay, ErrorState, Exit, Fail, FloodStdout, GrowMemory, NullText, Print, PrintBytes,
            Reach, SpecialToken, TextAfterFinish, Wait,
        };
        let keys: [(&str, bool, &[Kind]); 8] = [
            ("code", self.code.is_some(), &[Exit, Fail, ErrorState]),
            (
                "text",
                self.text.is_some(),
                &[Print, Reach, TextAfterFinish, Wait],
            ),
            (
                "id",
                self.id.is_some(),
                &[NullText, SpecialToken, TextAfterFinish],
            ),
            ("bytes", self.bytes.is_some(), &[PrintBytes]),
            ("lines", self.lines.is_some(), &[FloodStdout]),
            ("ms", self.ms.is_some(), &[Delay]),
            ("mib", self.mib.is_some(), &[GrowMemory]),
            ("step-ms", self.step_ms.is_some(), &[GrowMemory]),
        ];
        for (key, given, kinds) in keys {
            if given && !kinds.contains(&self.kind) {
                return self.refuse(&format!("has no {key}"));
            }
        }
        let needed = match self.kind {
            Print | Reach | Wait => Some(("text", self.text.is_some())),
            PrintBytes => Some(("bytes", self.bytes.is_some())),
            Delay => Some(("ms", self.ms.is_some())),
            GrowMemory => Some(("mib", self.mib.is_some())),
            SpecialToken => Some(("id", self.id.is_some())),
            _ => None,
        };
        match needed {
            Some((key, false)) => self.refuse(&format!("needs {key}")),
            _ if self.text.as_ref().is_some_and(|text| text.contains('\0')) => {
                self.refuse("a text with a NUL in it")
            }
            _ => Ok(()),
        }
    }
}
