//! The only files that a client's names reach: adapters that an administrator put there, and prompt caches
//! that runs saved. A name is one plain file name; nothing in it leads out of its folder. Everything
//! here waits for the disk.

use std::fs;
use std::path::{Path, PathBuf};

use super::prompt_cache_file;
use super::saved_prompt::{self, SavedPrompt, is_unfinished};
use crate::library_calls::LibraryError;

/// Of adapters that an administrator put there.
pub(in crate::supervisor) const ADAPTERS: &str = "adapters";
/// Of prompt caches that runs saved.
pub(in crate::supervisor) const PROMPT_CACHES: &str = "prompt-caches";

/// Bytes of a name.
const LONGEST_NAME: usize = 128;

#[derive(Clone, Debug)]
pub(super) struct StateFolder {
    dir: PathBuf,
}

impl StateFolder {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The path of an adapter that is there.
    pub fn adapter(&self, name: &str) -> Result<String, LibraryError> {
        self.file("lora_adapter_path", ADAPTERS, name)
    }

    /// The path of a prompt cache that is there. One that is not whole is removed: the library would
    /// read what is not there.
    pub fn prompt_cache(&self, name: &str) -> Result<String, LibraryError> {
        let path = self.file("prompt_cache_path", PROMPT_CACHES, name)?;
        let _names = saved_prompt::names();
        match prompt_cache_file::check(Path::new(&path)) {
            Ok(Ok(())) => Ok(path),
            Ok(Err(reason)) => {
                let reason = match fs::remove_file(&path) {
                    Ok(()) => reason,
                    Err(error) => format!("{reason}; it cannot be removed: {error}"),
                };
                let name = name.to_owned();
                Err(LibraryError::PromptCacheBroken { name, reason })
            }
            Err(error) => Err(bad(
                "prompt_cache_path",
                format!("`{name}` cannot be read: {error}"),
            )),
        }
    }

    /// A place where the run of this number may save its prompt's cache, as long as those of other
    /// names have less than `limit_bytes`.
    pub fn new_prompt_cache(
        &self,
        name: &str,
        run: u64,
        limit_bytes: u64,
    ) -> Result<SavedPrompt, LibraryError> {
        let what = "prompt_cache_path";
        let path = self.path(what, PROMPT_CACHES, name)?;
        let folder = self.dir.join(PROMPT_CACHES);
        fs::create_dir_all(&folder)
            .map_err(|error| bad(what, format!("its folder cannot be made: {error}")))?;
        if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(bad(what, format!("`{name}` is there and no file")));
        }
        let others = bytes_beside(&folder, name)
            .map_err(|error| bad(what, format!("its folder cannot be read: {error}")))?;
        if others >= limit_bytes {
            return Err(LibraryError::TooLarge {
                what: "the daemon's folder prompt-caches/".to_owned(),
                bytes: others,
                limit_bytes,
            });
        }
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        let place = SavedPrompt::begin(folder, name.to_owned(), run)
            .map_err(|error| bad(what, format!("it cannot be written: {error}")))?;
        text(what, &place.path())?;
        Ok(place)
    }

    fn file(&self, what: &str, folder: &str, name: &str) -> Result<String, LibraryError> {
        let path = self.path(what, folder, name)?;
        // Of the entry itself: a link could lead anywhere.
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => text(what, &path),
            _ => Err(bad(
                what,
                format!("there is no file `{name}` in the daemon's folder {folder}/"),
            )),
        }
    }

    fn path(&self, what: &str, folder: &str, name: &str) -> Result<PathBuf, LibraryError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty()
            || name.len() > LONGEST_NAME
            || name.starts_with('.')
            || !name.chars().all(is_plain)
        {
            return Err(bad(
                what,
                "a name has 1 to 128 letters, digits, `.`, `_` or `-` and does not begin with `.`"
                    .to_owned(),
            ));
        }
        Ok(self.dir.join(folder).join(name))
    }
}

/// Bytes of the files in `folder` but for that of `name`; those that are being written count.
fn bytes_beside(folder: &Path, name: &str) -> std::io::Result<u64> {
    let mut bytes = 0_u64;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // One that has gone meanwhile takes no room.
        if is_unfinished(&entry.file_name()) {
            let unfinished = bytes_beside(&entry.path(), "").unwrap_or(0);
            bytes = bytes.saturating_add(unfinished);
        } else if entry.file_name() != name
            && let Ok(file) = entry.metadata()
        {
            bytes = bytes.saturating_add(file.len());
        }
    }
    Ok(bytes)
}

fn text(what: &str, path: &Path) -> Result<String, LibraryError> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.into_os_string().into_string().map_err(|_| {
        bad(
            what,
            "the daemon's folder has a name that is no UTF-8".to_owned(),
        )
    })
}

fn bad(what: &str, reason: String) -> LibraryError {
    LibraryError::BadValue {
        what: what.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reaches_its_folder_and_nothing_else() {
        let outside = tempfile::tempdir().unwrap();
        let secret = outside.path().join("secret");
        fs::write(&secret, "x").unwrap();
        let dir = outside.path().join("state");
        let adapters = dir.join("adapters");
        fs::create_dir_all(&adapters).unwrap();
        fs::write(adapters.join("style.rkllm"), "abc").unwrap();
        std::os::unix::fs::symlink(&secret, adapters.join("link")).unwrap();
        let folder = StateFolder::new(dir.clone());
        let found = folder.adapter("style.rkllm").unwrap();
        assert_eq!(Path::new(&found), adapters.join("style.rkllm"));
        for name in [
            "",
            ".",
            "..",
            "../secret",
            "/etc/passwd",
            "a/b",
            "link",
            "none",
            "a\0b",
        ] {
            assert!(folder.adapter(name).is_err(), "{name:?}");
        }
        let place = folder.new_prompt_cache("p1", 7, 1).unwrap();
        let unfinished = dir.join("prompt-caches/.saving-7/p1");
        assert_eq!(place.path(), unfinished);
        fs::write(&unfinished, "cache").unwrap();
        assert!(folder.prompt_cache("p1").is_err(), "not saved yet");
        assert!(folder.prompt_cache(".saving-7/p1").is_err());
        let saved = dir.join("prompt-caches/p1");
        fs::write(&saved, "cache").unwrap();
        assert_eq!(folder.prompt_cache("p1").unwrap(), saved.to_str().unwrap());
        std::os::unix::fs::symlink(&secret, dir.join("prompt-caches/l")).unwrap();
        assert!(folder.new_prompt_cache("l", 8, 1 << 20).is_err());
    }

    #[test]
    fn a_broken_cache_that_is_removed_takes_no_whole_one_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = StateFolder::new(dir.path().to_owned());
        let caches = dir.path().join(PROMPT_CACHES);
        fs::create_dir(&caches).unwrap();
        let (named, written) = (caches.join("p"), caches.join("written"));
        for _ in 0..3000 {
            fs::write(&named, "").unwrap();
            fs::write(&written, "a whole cache of another format").unwrap();
            let both = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    both.wait();
                    let _ = folder.prompt_cache("p");
                });
                both.wait();
                saved_prompt::give_name(&written, &named).unwrap();
            });
            assert!(named.exists(), "what was saved last is there");
        }
    }

    #[test]
    fn a_full_folder_takes_what_it_holds_again_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let folder = StateFolder::new(dir.path().to_owned());
        fs::create_dir(dir.path().join("prompt-caches")).unwrap();
        fs::write(dir.path().join("prompt-caches/first"), "cache").unwrap();
        let error = folder.new_prompt_cache("other", 1, 5).unwrap_err();
        assert!(
            matches!(
                error,
                LibraryError::TooLarge {
                    bytes: 5,
                    limit_bytes: 5,
                    ..
                }
            ),
            "{error}"
        );
        folder.new_prompt_cache("first", 2, 5).unwrap();
        let place = folder.new_prompt_cache("other", 3, 6).unwrap();
        fs::write(place.path(), "x").unwrap();
        assert!(folder.new_prompt_cache("third", 4, 6).is_err());
    }
}
