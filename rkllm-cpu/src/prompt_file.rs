//! Saved prompts: the tokens in the cache and the state behind them, in a file that says which model
//! and which adapter computed it. A file for another model is refused when it is loaded; one that is
//! cut short or changed is, too, because llama.cpp would read from it what it takes for sizes.
//!
//! ```text
//!   magic 16 · model u64 · adapter u64 · tokens u64 · of these prompted u64 · in one way u64
//!   · among many u64 · state bytes u64 · tokens i32… · state …
//!   · FNV-1a of all before it u64                                              (little-endian)
//! ```

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fingerprint::Fingerprint;
use crate::log::{error, info};
use crate::rounding::Origins;
use crate::vocabulary::Token;

const MAGIC: &[u8; 16] = b"rkllm-cpu cache2";
const NUMBERS: usize = 7;
const HEADER: usize = 16 + 8 * NUMBERS;

/// A prompt that is read, with the model that computed it.
pub(crate) struct PromptCache {
    pub(crate) adapter: u64,
    pub(crate) tokens: Vec<Token>,
    pub(crate) origins: Origins,
    pub(crate) state: Vec<u8>,
}

/// A prompt on its way to a file. Writing needs no context, so that a shared one computes meanwhile.
pub(crate) struct SavedPrompt {
    pub(crate) path: PathBuf,
    pub(crate) model: u64,
    pub(crate) adapter: u64,
    pub(crate) tokens: Vec<Token>,
    pub(crate) origins: Origins,
    pub(crate) state: Vec<u8>,
}

impl SavedPrompt {
    /// A failure is told and the run goes on.
    pub(crate) fn write(self) {
        match self.try_write() {
            Ok(()) => info!("saved a prompt cache of {} tokens", self.tokens.len()),
            Err(reason) => error!(
                "failed to save the prompt cache {}: {reason}",
                self.path.display()
            ),
        }
    }

    fn try_write(&self) -> std::io::Result<()> {
        if self.tokens.iter().any(|&token| token < 0) {
            return Err(std::io::Error::other("it holds embedding rows, not tokens"));
        }
        let bytes = self.bytes();
        // The name belongs to a whole file at every moment.
        let (mut file, unfinished) = self.unfinished()?;
        file.write_all(&bytes)
            .and_then(|()| std::fs::rename(&unfinished, &self.path))
            .inspect_err(|_| drop(std::fs::remove_file(&unfinished)))
    }

    /// A new file beside the path, which no other run or process writes to. It holds what a user wrote.
    fn unfinished(&self) -> std::io::Result<(File, PathBuf)> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{}-{number}.new", std::process::id()));
            let name = PathBuf::from(name);
            let mut options = File::options();
            match options.write(true).create_new(true).mode(0o600).open(&name) {
                // Left by a process of the same number that was killed.
                Err(reason) if reason.kind() == ErrorKind::AlreadyExists => {}
                opened => return Ok((opened?, name)),
            }
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let length = HEADER + self.tokens.len() * 4 + self.state.len() + 8;
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(MAGIC);
        let numbers: [u64; NUMBERS] = [
            self.model,
            self.adapter,
            self.tokens.len() as u64,
            self.origins.prompted as u64,
            self.origins.in_one_way as u64,
            u64::from(self.origins.among_many),
            self.state.len() as u64,
        ];
        for number in numbers {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for token in &self.tokens {
            bytes.extend_from_slice(&token.to_le_bytes());
        }
        bytes.extend_from_slice(&self.state);
        let mut checksum = Fingerprint::new();
        checksum.add(&bytes);
        bytes.extend_from_slice(&checksum.value().to_le_bytes());
        bytes
    }
}

/// The model's fingerprint and the prompt; none if the file is not whole.
pub(crate) fn parse(bytes: &[u8]) -> Option<(u64, PromptCache)> {
    let (content, checksum) = bytes.split_last_chunk::<8>()?;
    let mut expected = Fingerprint::new();
    expected.add(content);
    if u64::from_le_bytes(*checksum) != expected.value() {
        return None;
    }
    let (magic, rest) = content.split_first_chunk::<16>()?;
    let (numbers, rest) = rest.split_first_chunk::<{ 8 * NUMBERS }>()?;
    let number = |at: usize| {
        numbers
            .as_chunks()
            .0
            .get(at)
            .map(|n| u64::from_le_bytes(*n))
    };
    let size = |at: usize| usize::try_from(number(at)?).ok();
    let tokens = size(2)?;
    let origins = Origins {
        by_all: 0,
        prompted: size(3)?,
        in_one_way: size(4)?,
        among_many: number(5)? != 0,
    };
    let state = size(6)?;
    let token_bytes = tokens.checked_mul(4)?;
    if magic != MAGIC || rest.len() != token_bytes.checked_add(state)? {
        return None;
    }
    let (tokens, state) = rest.split_at(token_bytes);
    let tokens = tokens.as_chunks().0.iter();
    let cache = PromptCache {
        adapter: number(1)?,
        tokens: tokens.map(|four| Token::from_le_bytes(*four)).collect(),
        origins,
        state: state.to_vec(),
    };
    Some((number(0)?, cache))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    const ORIGINS: Origins = Origins {
        by_all: 0,
        prompted: 2,
        in_one_way: 1,
        among_many: true,
    };

    fn file_of(tokens: &[Token], state: &[u8]) -> Vec<u8> {
        let prompt = SavedPrompt {
            path: PathBuf::new(),
            model: 7,
            adapter: 9,
            tokens: tokens.to_vec(),
            origins: ORIGINS,
            state: state.to_vec(),
        };
        prompt.bytes()
    }

    #[test]
    fn what_is_written_is_read() {
        let file = file_of(&[1, 2, 3], b"state");
        let Some((model, cache)) = parse(&file) else {
            panic!("a whole file is read");
        };
        assert_eq!((model, cache.adapter), (7, 9));
        assert_eq!(cache.tokens, [1, 2, 3]);
        assert_eq!(cache.origins, ORIGINS);
        assert_eq!(cache.state, b"state");
    }

    #[test]
    fn a_file_that_is_cut_or_changed_anywhere_is_refused() {
        let file = file_of(&[1, 2, 3], b"state");
        for length in 0..file.len() {
            assert!(parse(&file[..length]).is_none(), "cut to {length}");
        }
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(parse(&changed).is_none(), "changed at {at}");
        }
    }

    #[test]
    fn two_runs_that_save_to_one_path_leave_a_whole_file_that_is_their_users_alone() {
        let folder = std::env::temp_dir().join(format!("rkllm-cpu-saves-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("there is room for a folder");
        let path = folder.join("prompt_cache.bin");
        let save = |tokens: &[Token], state: &[u8]| {
            let prompt = SavedPrompt {
                path: path.clone(),
                model: 7,
                adapter: 9,
                tokens: tokens.to_vec(),
                origins: ORIGINS,
                state: state.to_vec(),
            };
            prompt.try_write().expect("the folder is writable");
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| (0..200).for_each(|_| save(&[4; 90], &[5; 90_000])));
            for _ in 0..200 {
                save(&[1, 2, 3], &[6; 70_000]);
                let file = std::fs::read(&path).expect("the name belongs to a file");
                assert!(parse(&file).is_some(), "a mixture");
            }
            other.join().expect("each of its saves succeeds");
        });
        let mode = std::fs::metadata(&path).expect("it is there").mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = std::fs::read_dir(&folder).expect("it is there");
        assert_eq!(files.count(), 1, "nothing is left beside it");
        std::fs::remove_dir_all(&folder).expect("it was made here");
    }

    #[test]
    fn numbers_that_overflow_are_refused() {
        let mut file = file_of(&[], b"");
        file.truncate(HEADER);
        file[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        let mut checksum = Fingerprint::new();
        checksum.add(&file);
        file.extend_from_slice(&checksum.value().to_le_bytes());
        assert!(parse(&file).is_none());
    }
}
