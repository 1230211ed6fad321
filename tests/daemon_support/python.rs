//! Packages from PyPI, each in a folder of its own in the cache.

use std::path::PathBuf;
use std::process::Command;

use super::cache_folder;

/// Where `package` (`name==version`) is, with what it needs; it is installed once.
pub fn python_package(package: &str) -> PathBuf {
    let folder = cache_folder().join(package);
    if !folder.is_dir() {
        let parent = folder.parent().expect("a parent");
        std::fs::create_dir_all(parent).expect("the cache folder");
        let unfinished = tempfile::tempdir_in(parent).expect("a folder beside it");
        let installed = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet"])
            .args(["--disable-pip-version-check", "--target"])
            .arg(unfinished.path())
            .arg(package)
            .status()
            .expect("python3 with pip");
        assert!(installed.success(), "pip cannot install {package}");
        // Another test may have been faster.
        let renamed = std::fs::rename(unfinished.path(), &folder);
        assert!(renamed.is_ok() || folder.is_dir(), "{renamed:?}");
    }
    folder
}
