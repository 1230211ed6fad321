//! Whether a prompt cache is whole, as far as its own first bytes tell. A format that is not known
//! says nothing of its length, so that only an empty file of it is refused.
//!
//! ```text
//!   vendor's 1.3.1   u32 0 · u32 8 · u32 tokens · token ids i32 … · keys and values f16 …
//!   rkllm-cpu        "rkllm-cpu cache2" · model u64 · adapter u64 · tokens u64 · prompted u64
//!                    · in one way u64 · among many u64 · state bytes u64 · token ids i32 … · state …
//!                    · checksum u64                                          (all little-endian)
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

const CPU_MAGIC: &[u8; 16] = b"rkllm-cpu cache2";
const CPU_HEADER_BYTES: usize = 72;
const CPU_CHECKSUM_BYTES: u64 = 8;
const VENDOR_START: [u8; 8] = [0, 0, 0, 0, 8, 0, 0, 0];
const VENDOR_HEADER_BYTES: usize = 12;
const TOKEN_BYTES: u64 = 4;

/// `Err`: the file is there and is not whole, in words. The outer error: it cannot be read.
pub(in crate::supervisor) fn check(path: &Path) -> io::Result<Result<(), String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut start = Vec::new();
    file.by_ref()
        .take(CPU_HEADER_BYTES as u64)
        .read_to_end(&mut start)?;
    Ok(check_start(&start, length))
}

/// Bytes of the keys and values that each token has in a file, where its format tells. `Err`: they are not
/// as many for each token, so that it was cut short.
pub(in crate::supervisor) fn cell_bytes(path: &Path) -> io::Result<Result<Option<u64>, String>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut start = Vec::new();
    file.take(VENDOR_HEADER_BYTES as u64)
        .read_to_end(&mut start)?;
    Ok(cell_bytes_of(&start, length))
}

fn cell_bytes_of(start: &[u8], length: u64) -> Result<Option<u64>, String> {
    let (Some(count), true) = (
        start.get(VENDOR_START.len()..VENDOR_HEADER_BYTES),
        start.starts_with(&VENDOR_START),
    ) else {
        return Ok(None);
    };
    let tokens = u64::from(u32::from_le_bytes([count[0], count[1], count[2], count[3]]));
    let cells = length.checked_sub(VENDOR_HEADER_BYTES as u64 + tokens * TOKEN_BYTES);
    match cells {
        Some(cells) if tokens > 0 && cells > 0 && cells.is_multiple_of(tokens) => {
            Ok(Some(cells / tokens))
        }
        _ => Err(format!(
            "it has {length} bytes, which are not as many for each of its {tokens} tokens"
        )),
    }
}

fn check_start(start: &[u8], length: u64) -> Result<(), String> {
    if length == 0 {
        return Err("it is empty".to_owned());
    }
    let is_begun = |whole: &[u8]| start.len() < whole.len() && whole.starts_with(start);
    if is_begun(CPU_MAGIC) || is_begun(&VENDOR_START) {
        return Err("it ends in its header".to_owned());
    }
    if start.starts_with(CPU_MAGIC) {
        let numbers = start
            .get(32..CPU_HEADER_BYTES)
            .ok_or("it ends in its header")?;
        let tokens = u64_at(numbers, 0);
        let expected = tokens
            .checked_mul(TOKEN_BYTES)
            .and_then(|bytes| bytes.checked_add(u64_at(numbers, 32)))
            .and_then(|bytes| bytes.checked_add(CPU_HEADER_BYTES as u64 + CPU_CHECKSUM_BYTES));
        return match expected {
            Some(expected) if expected == length => Ok(()),
            Some(expected) => Err(format!("it has {length} bytes of {expected}")),
            None => Err("its header is damaged".to_owned()),
        };
    }
    if start.starts_with(&VENDOR_START) {
        let count = start
            .get(VENDOR_START.len()..VENDOR_HEADER_BYTES)
            .ok_or("it ends in its header")?;
        let tokens = u64::from(u32::from_le_bytes([count[0], count[1], count[2], count[3]]));
        let ids_end = VENDOR_HEADER_BYTES as u64 + tokens * TOKEN_BYTES;
        if tokens == 0 {
            return Err("it holds no token".to_owned());
        }
        if length <= ids_end {
            return Err(format!(
                "it ends before the keys and values of its {tokens} tokens"
            ));
        }
        if !(length - ids_end).is_multiple_of(2) {
            return Err("it ends within a number".to_owned());
        }
    }
    Ok(())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vendors(tokens: u32) -> Vec<u8> {
        let mut bytes = VENDOR_START.to_vec();
        bytes.extend(tokens.to_le_bytes());
        bytes.extend((0..tokens).flat_map(u32::to_le_bytes));
        bytes.extend(vec![0; tokens as usize * 64]);
        bytes
    }

    fn of_the_cpu() -> Vec<u8> {
        let mut bytes = CPU_MAGIC.to_vec();
        for number in [1_u64, 2, 3, 3, 3, 0, 100] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(vec![7; 3 * 4 + 100 + 8]);
        bytes
    }

    fn verdict(bytes: &[u8]) -> Result<(), String> {
        check_start(
            &bytes[..bytes.len().min(CPU_HEADER_BYTES)],
            bytes.len() as u64,
        )
    }

    #[test]
    fn whole_files_are_whole() {
        for bytes in [
            vendors(1),
            vendors(300),
            of_the_cpu(),
            b"another format".to_vec(),
        ] {
            assert_eq!(verdict(&bytes), Ok(()));
        }
    }

    #[test]
    fn a_file_cut_off_where_its_format_tells_is_not() {
        let cpu = of_the_cpu();
        for length in 0..cpu.len() {
            assert!(verdict(&cpu[..length]).is_err(), "cut to {length}");
        }
        assert!(verdict(&[&cpu[..], b"x"].concat()).is_err(), "longer");
        let vendors = vendors(10);
        for length in 0..=VENDOR_HEADER_BYTES + 40 {
            assert!(verdict(&vendors[..length]).is_err(), "cut to {length}");
        }
        assert!(verdict(&vendors[..vendors.len() - 1]).is_err());
    }

    #[test]
    fn a_file_cut_off_anywhere_has_less_for_each_token() {
        let whole = vendors(10);
        let cell = |bytes: &[u8]| cell_bytes_of(&bytes[..bytes.len().min(12)], bytes.len() as u64);
        assert_eq!(cell(&whole), Ok(Some(64)));
        for length in VENDOR_HEADER_BYTES..whole.len() {
            let cut = cell(&whole[..length]);
            assert!(
                cut.is_err() || cut.is_ok_and(|it| it < Some(64)),
                "{length}"
            );
        }
        for other in [of_the_cpu(), b"another format".to_vec(), Vec::new()] {
            assert_eq!(cell(&other), Ok(None));
        }
    }

    #[test]
    fn numbers_that_overflow_are_refused() {
        let mut bytes = of_the_cpu();
        bytes[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(verdict(&bytes).is_err());
        let mut bytes = vendors(1);
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(verdict(&bytes).is_err());
        bytes[8..12].copy_from_slice(&0_u32.to_le_bytes());
        assert!(verdict(&bytes).is_err());
    }
}
