//! The process that transfers a model for the daemon: hello, one job, its end. It is given no key and no
//! listener, opens no device, has little memory, and gives way to whoever computes.

use std::process::ExitCode;

use anyhow::Context;
use rustix::process::{Resource, Rlimit};

use super::messages::{TransferCommand, TransferEvent};
use super::{TransferKind, pull};
use crate::children::{ChildArguments, ChildKind, ChildLink, process_setup};
use crate::ipc::PROTOCOL_VERSION;

/// A pull takes a tenth of it, whatever it brings.
const MEMORY_BYTES: u64 = 256 << 20;
/// A handful of connections and files.
const DESCRIPTORS: u64 = 64;
/// How far it stands back in the turns for a processor.
const NICE: i32 = 10;

/// Transfers what the daemon says.
pub fn run(arguments: ChildArguments) -> ExitCode {
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("E rkllmd-transfer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: ChildArguments) -> anyhow::Result<()> {
    let socket = process_setup::prepare(arguments, c"rkllmd-transfer")?;
    limit().context("setting resource limits")?;
    let mut link = ChildLink::new(socket);
    let theirs = link.daemons_hello()?;
    link.send(&TransferEvent::Hello {
        protocol: PROTOCOL_VERSION,
    })?;
    theirs?;
    let Some(TransferCommand::Pull(job)) = link.receive()? else {
        return Ok(());
    };
    let mut sent = Ok(());
    let ended = pull(&job, &mut |told| {
        // Whoever is not heard any more is about to be killed.
        if sent.is_ok() {
            sent = link.send(&TransferEvent::Told(told));
        }
    });
    sent?;
    let ended = TransferEvent::Ended(ended);
    let fits = link.send_within(&ended, TransferKind::EVENT_LIMIT_BYTES)?;
    fits.map_err(|bytes| anyhow::anyhow!("the outcome has {bytes} bytes"))
}

fn limit() -> anyhow::Result<()> {
    for (resource, most) in [
        (Resource::Data, MEMORY_BYTES),
        (Resource::Nofile, DESCRIPTORS),
        (Resource::Memlock, 0),
    ] {
        let now = rustix::process::getrlimit(resource);
        // A limit that is lower already stays.
        let most = now.maximum.map_or(most, |maximum| maximum.min(most));
        let both = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        rustix::process::setrlimit(resource, both).with_context(|| format!("{resource:?}"))?;
    }
    rustix::process::nice(NICE).context("giving way to others")?;
    Ok(())
}
