//! What a `.rkllm` file says in plain: how it begins, and in a footer which toolkit made it. All else in it is
//! masked (docs/vendor-library.md §7). Hints only: the vendor's format is not documented, and its library has the
//! last word.

use std::fs::File;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

const MAGIC: [u8; 4] = [0xDA, 0xEE, 0xB3, 0x36];
/// Where the version and the number of tensors stand.
const VERSION_AT: u64 = 4;
const TENSORS_AT: u64 = 8;
/// In which the footer tells the toolkit.
const FOOTER_BYTES: u64 = 4096;
const TOOLKIT: &[u8] = b"rkllm-toolkit version: ";
const MOST_VERSION_BYTES: usize = 32;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RkllmFile {
    /// It begins as such files do.
    pub starts_right: bool,
    /// Of the format; `None`: it does not begin so, or ends before.
    pub version: Option<u32>,
    /// How many tensors it says it has.
    pub tensors: Option<u64>,
    /// The version of the toolkit that made it; `None`: its end does not tell.
    pub toolkit: Option<String>,
}

impl RkllmFile {
    /// Reads the beginning and the end of a file of `length` bytes.
    pub fn read(file: &File, length: u64) -> Self {
        let starts_right = bytes_at(file, 0) == Some(MAGIC);
        let version = bytes_at(file, VERSION_AT).map(u32::from_le_bytes);
        let tensors = bytes_at(file, TENSORS_AT).map(u64::from_le_bytes);
        Self {
            starts_right,
            version: version.filter(|_| starts_right),
            tensors: tensors.filter(|_| starts_right),
            toolkit: toolkit_of(file, length),
        }
    }
}

fn bytes_at<const N: usize>(file: &File, offset: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

/// The version of the toolkit that made a file of `length` bytes, where its end tells.
pub fn toolkit_of(file: &File, length: u64) -> Option<String> {
    let start = length.saturating_sub(FOOTER_BYTES);
    let mut footer = vec![0; usize::try_from(length - start).ok()?];
    file.read_exact_at(&mut footer, start).ok()?;
    let mut places = footer.windows(TOOLKIT.len());
    let at = places.rposition(|text| text == TOOLKIT)? + TOOLKIT.len();
    let version = footer[at..].iter().take(MOST_VERSION_BYTES);
    let version = version.take_while(|b| b.is_ascii_alphanumeric() || **b == b'.');
    let version = String::from_utf8(version.copied().collect()).ok()?;
    (!version.is_empty()).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn of(bytes: &[u8]) -> RkllmFile {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        RkllmFile::read(&file, bytes.len() as u64)
    }

    #[test]
    fn a_file_says_its_format_and_its_toolkit() {
        let mut file = MAGIC.to_vec();
        file.extend(3u32.to_le_bytes());
        file.extend(310u64.to_le_bytes());
        file.extend([0; 8000]);
        let whole = RkllmFile {
            starts_right: true,
            version: Some(3),
            tensors: Some(310),
            toolkit: None,
        };
        assert_eq!(of(&file), whole);
        file.extend(b"rkllm-toolkit version: 1.2.1b1\0\0");
        let with_footer = RkllmFile {
            toolkit: Some("1.2.1b1".to_owned()),
            ..whole
        };
        assert_eq!(of(&file), with_footer);
    }

    #[test]
    fn files_that_are_none_say_nothing() {
        assert_eq!(of(b""), RkllmFile::default());
        assert_eq!(of(b"GGUF............."), RkllmFile::default());
        let short = RkllmFile {
            starts_right: true,
            ..RkllmFile::default()
        };
        assert_eq!(of(&MAGIC), short);
        let wrong = of(b"nothing rkllm-toolkit version: \xff");
        assert_eq!(wrong.toolkit, None);
    }
}
