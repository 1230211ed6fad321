//! What a check found, and how a report of them is told.

use std::fmt;

use serde::Serialize;

use crate::printable::{printable, printable_json};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It cannot be told, or does not concern this machine.
    Skip,
    Ok,
    /// The daemon serves, but slower or less safely than it could.
    Warn,
    /// The daemon, or the NPU, does not work.
    Fail,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stays the same from release to release.
    pub id: &'static str,
    pub status: Status,
    pub observed: String,
    /// `null`: there is nothing to compare with.
    pub expected: Option<String>,
    /// What to type. `null`: nothing is to be done.
    pub remedy: Option<String>,
    /// Where docs/troubleshooting.md says more.
    pub doc: String,
}

impl Check {
    fn new(status: Status, observed: impl Into<String>) -> Self {
        Self {
            id: "",
            status,
            observed: observed.into(),
            expected: None,
            remedy: None,
            doc: String::new(),
        }
    }

    pub fn ok(observed: impl Into<String>) -> Self {
        Self::new(Status::Ok, observed)
    }

    /// `why` it cannot be told.
    pub fn skip(why: impl Into<String>) -> Self {
        Self::new(Status::Skip, why)
    }

    pub fn warn(observed: impl Into<String>) -> Self {
        Self::new(Status::Warn, observed)
    }

    pub fn fail(observed: impl Into<String>) -> Self {
        Self::new(Status::Fail, observed)
    }

    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    pub(super) fn named(mut self, id: &'static str) -> Self {
        self.id = id;
        self.doc = format!("troubleshooting.md#{}", id.replace('.', ""));
        self
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub checks: Vec<Check>,
}

impl Report {
    pub fn worst(&self) -> Status {
        let all = self.checks.iter().map(|check| check.status);
        all.max().unwrap_or(Status::Ok)
    }

    /// As `rkllmd doctor --json` prints it.
    pub fn to_json(&self) -> String {
        let json = serde_json::to_string_pretty(self).unwrap_or_default();
        printable_json(&json).into_owned() + "\n"
    }

    fn count(&self, status: Status) -> usize {
        let of = |check: &&Check| check.status == status;
        self.checks.iter().filter(of).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|check| check.id.len()).max();
        let width = width.unwrap_or(0);
        for check in &self.checks {
            let status = match check.status {
                Status::Ok => "ok  ",
                Status::Warn => "WARN",
                Status::Fail => "FAIL",
                Status::Skip => "skip",
            };
            writeln!(
                f,
                "{status}  {:width$}  {}",
                check.id,
                printable(&check.observed)
            )?;
            let indent = 6 + width + 2;
            if let Some(expected) = &check.expected {
                writeln!(f, "{:indent$}wanted: {}", "", printable(expected))?;
            }
            if let Some(remedy) = &check.remedy {
                writeln!(f, "{:indent$}remedy: {}", "", printable(remedy))?;
            }
            if matches!(check.status, Status::Warn | Status::Fail) {
                writeln!(f, "{:indent$}see:    docs/{}", "", check.doc)?;
            }
        }
        writeln!(
            f,
            "\n{} ok, {} to look at, {} wrong, {} not told",
            self.count(Status::Ok),
            self.count(Status::Warn),
            self.count(Status::Fail),
            self.count(Status::Skip),
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Programs read it.
    #[test]
    fn the_form_in_json_stays() {
        let checks = vec![
            Check::ok("here").named("a.b"),
            Check::warn("little").expected("much").named("c"),
            Check::fail("none").remedy("type this").named("d"),
            Check::skip("a PC").named("e"),
        ];
        let json: serde_json::Value =
            serde_json::from_str(&Report { checks }.to_json()).expect("JSON");
        let expected = json!({"checks": [
            {"id": "a.b", "status": "ok", "observed": "here", "expected": null, "remedy": null,
                "doc": "troubleshooting.md#ab"},
            {"id": "c", "status": "warn", "observed": "little", "expected": "much", "remedy": null,
                "doc": "troubleshooting.md#c"},
            {"id": "d", "status": "fail", "observed": "none", "expected": null, "remedy": "type this",
                "doc": "troubleshooting.md#d"},
            {"id": "e", "status": "skip", "observed": "a PC", "expected": null, "remedy": null,
                "doc": "troubleshooting.md#e"},
        ]});
        assert_eq!(json, expected);
    }
}
