//! A process that transfers a model. The daemon's: hello, one job, its end; it is given no key and no listener,
//! opens no device, has little memory, and gives way to what computes. Like the command line's, it reaches
//! the folder of pulls, what tells it how to find and trust a hub, and nothing else where the kernel has Landlock.

use std::process::ExitCode;

use anyhow::Context;
use rustix::process::{Resource, Rlimit};

use super::messages::{Pulled, Told, TransferCommand, TransferEvent};
use super::staging::HeldPulls;
use super::{Job, PullError, Reference, TransferKind, pull};
use crate::children::{ChildArguments, ChildKind, ChildLink, process_setup};
use crate::confinement::{Landlock, Reach, Right};
use crate::ipc::{PROTOCOL_VERSION, RawPath};

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
    let ended = pull_confined(&job, &mut |told| {
        // One that is not heard any more is about to be killed.
        if sent.is_ok() {
            sent = link.send(&TransferEvent::Told(told));
        }
    })?;
    sent?;
    let ended = TransferEvent::Ended(ended);
    let fits = link.send_within(&ended, TransferKind::EVENT_LIMIT_BYTES)?;
    fits.map_err(|bytes| anyhow::anyhow!("the outcome has {bytes} bytes"))
}

/// [`pull`], after which this process reaches nothing else any more where the kernel has Landlock. To be called
/// while it has one thread.
///
/// # Errors
///
/// A kernel that has Landlock did not do it; then nothing is pulled.
pub fn pull_confined(
    job: &Job,
    tell: &mut dyn FnMut(Told),
) -> anyhow::Result<Result<Pulled, PullError>> {
    let _held = confine(job).context("giving up what a pull does not need (confinement.pulls)")?;
    Ok(pull(job, tell))
}

/// Returns what keeps the folder of pulls where it is.
fn confine(job: &Job) -> anyhow::Result<Option<HeldPulls>> {
    let Some(hidden) = &job.hidden else {
        return Ok(None);
    };
    // Without the right to move what has come the pull could not end.
    if !Landlock::of_this_machine().lets_folders_move() {
        return Ok(None);
    }
    let models = job.models.to_path();
    let Ok(held) = HeldPulls::hold(&models) else {
        // The pull meets the same, and says what it is.
        return Ok(None);
    };
    let mut reach = Reach::of_client(hidden.iter().map(RawPath::to_path));
    reach.owns(models.as_path(), Right::Arrange);
    reach.owns(held.folder(), Right::Write);
    // Whether the model is there already.
    if let Ok(reference) = Reference::parse(&job.asked) {
        reach.owns(models.join(reference.owner), Right::Read);
    }
    reach.owns(job.npu_library.to_path(), Right::Read);
    let named = [&job.hub.token_file, &job.hub.ca_file];
    for file in named.into_iter().flatten() {
        reach.owns(file.to_path(), Right::Read);
    }
    reach.enter()?;
    Ok(Some(held))
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;

    use super::super::staging::Staging;
    use super::*;
    use crate::settings::Settings;

    /// A thread is confined for itself alone, as a transfer is.
    #[test]
    fn a_confined_pull_installs_its_model_and_reaches_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        for folder in ["models/owner/other", "models/b/model", "state"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        let secrets = ["keys.toml", "state/secret", "models/b/model/m.gguf"].map(at);
        for secret in &secrets {
            fs::write(secret, "secret").unwrap();
        }
        let there = at("models/owner/other/model.toml");
        fs::write(&there, "id = 'x'").unwrap();
        let mut settings = Settings::default();
        settings.models.dir = at("models");
        settings.http.keys_file = at("keys.toml");
        settings.library.state_dir = at("state");
        settings.hub.token_file = Some(at("token"));
        fs::write(at("token"), "token").unwrap();
        let job = Job::new("owner/name", &settings);
        let (models, token) = (at("models"), at("token"));
        let inside = std::thread::spawn(move || {
            let held = confine(&job).unwrap();
            let refused = |done: io::Result<()>| {
                done.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
            };
            match &held {
                Some(_) => {
                    for secret in &secrets {
                        assert!(refused(fs::read(secret).map(drop)), "{}", secret.display());
                        assert!(refused(fs::write(secret, "")), "{}", secret.display());
                    }
                    assert!(refused(fs::write(models.join("owner/other/new"), "")));
                    assert!(refused(fs::write(models.join("new.gguf"), "")));
                    let moved = fs::rename(models.join("b/model"), models.join("b/mine"));
                    assert!(moved.is_err());
                }
                None => eprintln!("NOT TESTED: pulls are not confined on this machine"),
            }
            assert!(fs::read(&there).is_ok() && fs::read(token).is_ok());
            let staging = Staging::begin(&models, "owner", "name").unwrap();
            staging.write("m.gguf", b"model").unwrap();
            let installed = staging.install().unwrap();
            (held.is_some(), installed)
        });
        let (was_confined, installed) = inside.join().unwrap();
        let may_be = Landlock::of_this_machine().lets_folders_move();
        assert_eq!(was_confined, may_be);
        assert_eq!(fs::read(installed.join("m.gguf")).unwrap(), b"model");
        settings.confinement.pulls = false;
        assert!(
            confine(&Job::new("owner/name", &settings))
                .unwrap()
                .is_none()
        );
    }
}
