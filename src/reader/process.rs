//! A reader's life: hello, one command that opens, the sandbox, and then what is asked until the link
//! closes. It has one thread.

use std::os::fd::AsRawFd;
use std::process::ExitCode;

use anyhow::Context;

use super::ReaderKind;
use super::answers::Model;
use super::files;
use super::open_model::{self, Contents, Unusable};
use super::read_model::Unread;
use super::sandbox;
use crate::children::{ChildArguments, ChildKind, ChildLink, process_setup};
use crate::constraint;
use crate::ipc::{
    ModelLocation, PROTOCOL_VERSION, RawPath, ReaderCommand, ReaderEvent, ReaderLimits, ReaderWork,
};

/// Answers until the daemon closes the connection.
pub fn run(arguments: ChildArguments) -> ExitCode {
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("E rkllmd-reader: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: ChildArguments) -> anyhow::Result<()> {
    let socket = process_setup::prepare(arguments, c"rkllmd-reader")?;
    let descriptor = socket.as_raw_fd();
    let mut link = ChildLink::new(socket);
    let theirs = link.daemons_hello()?;
    link.send(&ReaderEvent::Hello {
        protocol: PROTOCOL_VERSION,
    })?;
    theirs?;
    // No thread may be started later.
    tokenizers::utils::parallelism::set_parallelism(false);
    match link.receive::<ReaderCommand>()? {
        Some(ReaderCommand::List { folder, limits }) => {
            let listed = list(&folder);
            sandbox::enter(descriptor, limits)?;
            link.send(&listed)
        }
        Some(ReaderCommand::Open {
            location,
            limits,
            work,
        }) => Reader { link, descriptor }.open(&location, limits, work),
        Some(_) => anyhow::bail!("a question before anything was opened"),
        None => Ok(()),
    }
}

fn list(folder: &RawPath) -> ReaderEvent {
    let listed = files::open_folder(&folder.to_path()).and_then(|folder| files::list(&folder));
    match listed {
        Ok((entries, more)) => ReaderEvent::Listed { entries, more },
        Err(error) => ReaderEvent::NotListed {
            os_error: error.raw_os_error(),
            reason: error.to_string(),
        },
    }
}

struct Reader {
    link: ChildLink,
    descriptor: i32,
}

impl Reader {
    fn open(
        mut self,
        location: &ModelLocation,
        limits: ReaderLimits,
        work: ReaderWork,
    ) -> anyhow::Result<()> {
        if work == ReaderWork::Grammars {
            // Its priority cannot be raised again, so nothing else is asked of it.
            rustix::process::nice(constraint::NICE).context("giving way to others")?;
        }
        let opened = open_model::open(location);
        sandbox::enter(self.descriptor, limits)?;
        let unusable = |Unusable { file, problem }| ReaderEvent::Unusable { file, problem };
        let read = match opened {
            Contents::Model(model) => model.read(),
            Contents::Folders(folders) => return self.link.send(&ReaderEvent::Folders(folders)),
            Contents::Nothing => return self.link.send(&ReaderEvent::Nothing),
            Contents::Unusable(reason) => return self.link.send(&unusable(reason)),
        };
        let read = match read {
            Ok(read) => read,
            Err(Unread::Unusable(reason)) => return self.link.send(&unusable(reason)),
            Err(Unread::NeedsFile(name)) => {
                return self.link.send(&ReaderEvent::NeedsFile { name });
            }
        };
        let bytes = read.control_token_bytes();
        if bytes > limits.control_token_bytes {
            let problem = format!(
                "its control tokens have {bytes} bytes; `control-tokens-limit-bytes` in the [reader] \
                 settings allows {}",
                limits.control_token_bytes
            );
            return self.link.send(&unusable(Unusable::folder(problem)));
        }
        // Said before the template is tried, which may be the end of this process.
        self.link.send(&ReaderEvent::Facts {
            json: serde_json::to_string(&read.report)?,
        })?;
        let with_template = work == ReaderWork::Prompts;
        let (mut model, state, replies) = Model::new(read, with_template, limits.render);
        if let Some(found) = replies {
            self.link.send(&ReaderEvent::Replies {
                json: serde_json::to_string(&found)?,
            })?;
        }
        self.link.send(&ReaderEvent::Template(state))?;
        while let Some(command) = self.link.receive::<ReaderCommand>()? {
            let event = model.answer(command).unwrap_or_else(failed);
            match self.link.send_within(&event, ReaderKind::EVENT_LIMIT_BYTES) {
                Ok(Ok(())) => {}
                Ok(Err(bytes)) => self.link.send(&ReaderEvent::TooLarge { bytes })?,
                Err(error) => self.link.send(&failed(error))?,
            }
            if used_more_than_half(limits) {
                // Before its limit takes it in the middle of an answer.
                break;
            }
        }
        Ok(())
    }
}

fn used_more_than_half(limits: ReaderLimits) -> bool {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let used = u64::try_from(used.tv_sec).unwrap_or(u64::MAX);
    used >= limits.cpu.as_secs() / 2
}

fn failed(error: anyhow::Error) -> ReaderEvent {
    ReaderEvent::Failed {
        reason: format!("{error:#}"),
    }
}
