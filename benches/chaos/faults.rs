//! Faults that wait in the scenarios for a file beside the model: when a call finds its file, it
//! removes it, notes its process in a record beside it, and does what it is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::plan::Moment;

/// How the process ends that has a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By this signal.
    Signal(&'static str),
    /// By itself.
    Exit,
    /// It hangs in a call until one of the deadlines passes.
    Hang,
    /// The call fails, and the worker ends itself or is ended.
    Failure,
}

#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Also the name of its file.
    pub name: &'static str,
    call: &'static str,
    kind: &'static str,
    /// Further keys of the scenario.
    when: &'static str,
    pub end: End,
}

const fn fault(
    name: &'static str,
    call: &'static str,
    kind: &'static str,
    when: &'static str,
    end: End,
) -> Fault {
    Fault {
        name,
        call,
        kind,
        when,
        end,
    }
}

const SEGV: End = End::Signal("SIGSEGV");
const ABRT: End = End::Signal("SIGABRT");
const ILL: End = End::Signal("SIGILL");

/// Everything a model can be told to do wrong.
pub const FAULTS: [Fault; 16] = [
    fault("hang-first", "run", "hang", "", End::Hang),
    fault(
        "hang-prefill",
        "run",
        "hang",
        "in-prefill = true",
        End::Hang,
    ),
    fault("hang-token", "run", "hang", "after-tokens = 3", End::Hang),
    fault("hang-late", "run", "hang", "after-tokens = 30", End::Hang),
    fault("segv-first", "run", "segv", "", SEGV),
    fault("segv-token", "run", "segv", "after-tokens = 4", SEGV),
    fault("abort-token", "run", "abort", "after-tokens = 20", ABRT),
    fault("ill-token", "run", "ill", "after-tokens = 7", ILL),
    fault("exit-token", "run", "exit", "after-tokens = 12", End::Exit),
    fault("hang-abort", "abort", "hang", "", End::Hang),
    fault("hang-kv-size", "get_kv_cache_size", "hang", "", End::Hang),
    fault("hang-destroy", "destroy", "hang", "", End::Hang),
    fault("hang-init", "init", "hang", "", End::Hang),
    fault("hang-template", "set_chat_template", "hang", "", End::Hang),
    fault("fail-init", "init", "fail", "", End::Failure),
    fault("segv-init", "init", "segv", "", SEGV),
];

/// The fault of that name.
pub fn named(name: &str) -> &'static Fault {
    let found = FAULTS.iter().find(|fault| fault.name == name);
    found.unwrap_or_else(|| panic!("no fault is called {name}"))
}

impl Fault {
    pub fn toml(&self) -> String {
        let Self {
            name,
            call,
            kind,
            when,
            ..
        } = self;
        format!(
            "\n[[fault]]\ncall = \"{call}\"\nkind = \"{kind}\"\nwhen-file = \"{name}\"\n\
             record = \"{name}.record\"\n{when}\n"
        )
    }
}

/// A fault that has been asked for.
pub struct Armed {
    pub fault: &'static Fault,
    trigger: PathBuf,
    record: PathBuf,
    /// Lines that were in the record before.
    before: usize,
}

/// It happened, in this process, at this time.
#[derive(Clone, Copy)]
pub struct Happened {
    pub pid: u32,
    pub at: Moment,
}

impl Armed {
    /// Asks for `fault` in the model whose file is in `folder`. One of a kind at a time.
    pub fn arm(folder: &Path, fault: &'static Fault) -> Self {
        let armed = Self {
            fault,
            trigger: folder.join(fault.name),
            record: folder.join(format!("{}.record", fault.name)),
            before: 0,
        };
        let before = armed.lines().len();
        fs::write(&armed.trigger, "").expect("a file beside the model");
        Self { before, ..armed }
    }

    /// Whether it has happened.
    pub fn happened(&self) -> Option<Happened> {
        let lines = self.lines();
        let line = lines.get(self.before)?;
        let pid = line.split_whitespace().next()?.parse().ok()?;
        let written = fs::metadata(&self.record).and_then(|metadata| metadata.modified());
        Some(Happened {
            pid,
            at: Moment::of(written.unwrap_or_else(|_| SystemTime::now())),
        })
    }

    /// Takes it back; `false` when it is too late.
    pub fn disarm(&self) -> bool {
        fs::remove_file(&self.trigger).is_ok()
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.record).unwrap_or_default();
        // A line that is being written has no end yet.
        text.split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .map(str::to_owned)
            .collect()
    }
}
