//! What the worker gives up before it has a second thread and before it opens the library: everything but the
//! system, its library, its model, and folders of its own. Looking for these waits for the disk, which no
//! process but this one then waits for.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Context;

use crate::confinement::{Reach, Right, Rules};
use crate::ipc::{self, Command, Event, WorkerWalls};

/// Where else a dynamic linker looks.
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";
const GIVING_UP: &str = "giving up with Landlock what a worker does not need (confinement.workers)";

/// Gives up what this first command does not need. A disk that is slow to show its files is the time of
/// `deadlines.library-open`: the daemon hears meanwhile that the worker is scheduled.
pub fn give_up_for(first: &Command, daemon: UnixStream) -> anyhow::Result<()> {
    let interval = match first {
        Command::Load(spec) if spec.walls.is_some() => spec.deadlines.heartbeat,
        Command::Describe {
            deadlines,
            walls: Some(_),
            ..
        } => deadlines.heartbeat,
        _ => return Ok(()),
    };
    let rules = beating(daemon, interval, || rules_for(first)).context("starting a thread")??;
    enter(rules)
}

/// `None`: nothing is to be given up.
pub fn enter(rules: Option<Rules>) -> anyhow::Result<()> {
    rules.map_or(Ok(()), Rules::enter).context(GIVING_UP)
}

/// What is left to it once it is entered.
pub fn rules_for(first: &Command) -> anyhow::Result<Option<Rules>> {
    let (walls, library, model) = match first {
        Command::Load(spec) => (spec.walls.as_ref(), &spec.library, Some(&*spec.model)),
        Command::Describe { library, walls, .. } => (walls.as_deref(), library, None),
        Command::Slot { .. } | Command::BeginBatch | Command::Unload => return Ok(None),
    };
    let Some(WorkerWalls { reach, own }) = walls else {
        return Ok(None);
    };
    for path in reach.missing() {
        let path = path.display();
        eprintln!(
            "W rkllmd-worker: {path} of confinement.worker-reads or worker-writes is not there"
        );
    }
    let mut reach = reach.clone();
    see_library(&mut reach, library);
    let files = model.map(|model| files_of(model, &reach));
    for file in files.into_iter().flatten() {
        reach.owns(file, Right::Read);
    }
    for (folder, right) in own {
        // Where it cannot be made there is nothing in it that could be reached.
        if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(folder) {
            eprintln!("W rkllmd-worker: {}: {error}", folder.display());
        }
        reach.owns(folder, *right);
    }
    reach.rules().map(Some).context(GIVING_UP)
}

/// Tells the daemon so often while this works. The thread that does it has ended when this returns.
fn beating<T>(
    mut daemon: UnixStream,
    interval: Duration,
    work: impl FnOnce() -> T,
) -> io::Result<T> {
    let mut beat = Vec::new();
    ipc::encode(&Event::Heartbeat, &mut beat).map_err(io::Error::other)?;
    let (working, worked) = mpsc::channel::<()>();
    let heart = thread::Builder::new()
        .name("heart".to_owned())
        .spawn(move || {
            while worked.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                if daemon.write_all(&beat).is_err() {
                    return;
                }
            }
        })?;
    let result = work();
    drop(working);
    // It has nothing to panic about.
    let _ = heart.join();
    Ok(result)
}

/// With what lies beside it, and where its linker looks.
fn see_library(reach: &mut Reach, library: &Path) {
    reach.owns(library, Right::Run);
    let lies = fs::canonicalize(library).ok();
    let beside = [Some(library), lies.as_deref()];
    for folder in beside.into_iter().flatten().filter_map(Path::parent) {
        reach.sees(folder, Right::Run);
    }
    if let Some(more) = std::env::var_os(LIBRARY_PATH) {
        for folder in std::env::split_paths(&more) {
            reach.sees(folder, Right::Run);
        }
    }
}

/// A model's file and the further parts of it, each of which may be a link to anywhere, and its folder, unless others
/// lie there too.
fn files_of(model: &Path, reach: &Reach) -> Vec<PathBuf> {
    let mut files = vec![model.to_owned()];
    let Some(folder) = model.parent() else {
        return files;
    };
    files.extend(parts_of(model, folder));
    if !reach.hides_something_in(folder) {
        files.push(folder.to_owned());
    }
    files
}

/// Of `X-00001-of-00003.gguf` all that are called so.
fn parts_of(model: &Path, folder: &Path) -> Vec<PathBuf> {
    let name = model.file_name().map(|name| name.to_string_lossy());
    let stem = name
        .as_deref()
        .and_then(|name| name.rsplit_once("-00001-of-"));
    let Some((stem, _)) = stem else {
        return Vec::new();
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let parts = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let rest = name
            .strip_prefix(stem)
            .and_then(|rest| rest.strip_prefix('-'));
        rest.and_then(|rest| rest.split_once("-of-"))
            .is_some_and(|(part, _)| part.bytes().all(|byte| byte.is_ascii_digit()))
    });
    parts.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_daemon_hears_while_the_disk_is_waited_for_and_no_longer() {
        let (ours, mut daemons) = UnixStream::pair().unwrap();
        let mut beat = Vec::new();
        ipc::encode(&Event::Heartbeat, &mut beat).unwrap();
        let heard = beating(ours, Duration::from_millis(1), || {
            let mut heard = vec![0; 2 * beat.len()];
            daemons.read_exact(&mut heard).map(|()| heard)
        });
        assert_eq!(heard.unwrap().unwrap(), beat.repeat(2));
        let mut rest = Vec::new();
        daemons.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, beat.repeat(rest.len() / beat.len()));
    }

    #[test]
    fn a_model_of_a_folder_has_it_and_one_beside_others_has_its_parts() {
        let place = tempfile::tempdir().unwrap();
        let models = place.path();
        fs::create_dir(models.join("own")).unwrap();
        for name in [
            "own/m.gguf",
            "own/split-00001-of-00002.gguf",
            "own/split-00002-of-00002.gguf",
            "big-00001-of-00002.gguf",
            "big-00002-of-00002.gguf",
            "bigger-00001-of-00002.gguf",
            "big-tail-00001-of-00002.gguf",
            "other.gguf",
        ] {
            fs::write(models.join(name), "").unwrap();
        }
        let reach = Reach::of_library([models.to_owned()]);
        let files = |name: &str| {
            let mut files = files_of(&models.join(name), &reach);
            files.sort();
            files.dedup();
            files
        };
        assert_eq!(
            files("own/m.gguf"),
            ["own", "own/m.gguf"].map(|path| models.join(path))
        );
        let split = [
            "own",
            "own/split-00001-of-00002.gguf",
            "own/split-00002-of-00002.gguf",
        ];
        assert_eq!(
            files("own/split-00001-of-00002.gguf"),
            split.map(|path| models.join(path)),
            "parts may be links"
        );
        std::os::unix::fs::symlink(models, models.join("all")).unwrap();
        assert_eq!(
            files("all/other.gguf"),
            [models.join("all/other.gguf")],
            "that folder is one with others by another name"
        );
        assert_eq!(files("other.gguf"), [models.join("other.gguf")]);
        let parts = ["big-00001-of-00002.gguf", "big-00002-of-00002.gguf"];
        assert_eq!(
            files("big-00001-of-00002.gguf"),
            parts.map(|part| models.join(part))
        );
    }
}
