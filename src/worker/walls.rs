//! What the worker gives up before it has a second thread and before it opens the library: everything but the
//! system, its library, its model, and folders of its own. Looking for these waits for the disk, which no
//! process but this one then waits for.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::confinement::{Reach, Right};
use crate::ipc::{Command, WorkerWalls};

/// Where else a dynamic linker looks.
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// Gives up what this first command does not need.
pub fn give_up_for(first: &Command) -> anyhow::Result<()> {
    let (walls, library, model) = match first {
        Command::Load(spec) => (spec.walls.as_ref(), &spec.library, Some(&*spec.model)),
        Command::Describe { library, walls, .. } => (walls.as_deref(), library, None),
        Command::Slot { .. } | Command::Unload => return Ok(()),
    };
    let Some(WorkerWalls { reach, own }) = walls else {
        return Ok(());
    };
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
    let given_up = reach.enter();
    given_up.context("giving up with Landlock what a worker does not need (confinement.workers)")
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

/// A model's folder; of one that lies in a folder with others its file, and the further parts of it.
fn files_of(model: &Path, reach: &Reach) -> Vec<PathBuf> {
    // The file may be a link to anywhere.
    let mut files = vec![model.to_owned()];
    let Some(folder) = model.parent() else {
        return files;
    };
    if !reach.hides_something_in(folder) {
        files.push(folder.to_owned());
        return files;
    }
    let name = model.file_name().map(|name| name.to_string_lossy());
    // `X-00001-of-00003.gguf`
    let Some((stem, _)) = name
        .as_deref()
        .and_then(|name| name.rsplit_once("-00001-of-"))
    else {
        return files;
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
    files.extend(parts.map(|entry| entry.path()));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_of_a_folder_has_it_and_one_beside_others_has_its_parts() {
        let place = tempfile::tempdir().unwrap();
        let models = place.path();
        fs::create_dir(models.join("own")).unwrap();
        for name in [
            "own/m.gguf",
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
        assert_eq!(files("other.gguf"), [models.join("other.gguf")]);
        let parts = ["big-00001-of-00002.gguf", "big-00002-of-00002.gguf"];
        assert_eq!(
            files("big-00001-of-00002.gguf"),
            parts.map(|part| models.join(part))
        );
    }
}
