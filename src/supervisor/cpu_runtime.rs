//! Where the CPU runtime is: the setting, else beside the program, else in the lib folder of the
//! install the program belongs to.

use std::path::{Path, PathBuf};

const FILE_NAME: &str = "librkllmrt.so";

/// The first place that has it.
pub fn find(configured: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = configured {
        return Some(path.to_owned());
    }
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    candidates(folder).into_iter().find(|path| path.is_file())
}

fn candidates(program_folder: &Path) -> [PathBuf; 2] {
    [
        program_folder.join("lib/rkllmd").join(FILE_NAME),
        program_folder.join("../lib/rkllmd").join(FILE_NAME),
    ]
}
