//! The files of prompt caches: a mark and the prompt, or the layout of the vendor's 1.3.1.
//!
//! ```text
//!   u32 0 · u32 8 · u32 tokens · token ids i32 … · for each token 64 bytes, in which the prompt's text stands
//! ```

use std::io::Write;
use std::time::Duration;

/// The first bytes of a prompt cache in the fake's own format.
const MARK: &[u8] = b"fake prompt cache\n";
const VENDORS_MARK: [u8; 8] = [0, 0, 0, 0, 8, 0, 0, 0];
const CELL_BYTES: usize = 64;

/// A whole one of a prompt of so many tokens.
pub fn of(prompt: &[u8], tokens: i32, is_vendors: bool) -> Vec<u8> {
    if !is_vendors {
        return [MARK, prompt].concat();
    }
    let count = u32::try_from(tokens).unwrap_or(0);
    let mut cells = prompt.to_vec();
    cells.resize(count as usize * CELL_BYTES, 0);
    let ids = (0..count).flat_map(u32::to_le_bytes);
    let head = VENDORS_MARK.into_iter().chain(count.to_le_bytes());
    head.chain(ids).chain(cells).collect()
}

/// The prompt of one, as far as it is there: as with the vendor's, nothing says that it is cut.
pub fn prompt_of(file: &[u8]) -> Option<String> {
    let text = match file.strip_prefix(MARK) {
        Some(prompt) => prompt,
        None => {
            let (count, rest) = file.strip_prefix(&VENDORS_MARK)?.split_first_chunk()?;
            let ids = u32::from_le_bytes(*count) as usize * 4;
            rest.get(ids..)?
        }
    };
    let text = String::from_utf8_lossy(text);
    Some(text.trim_end_matches('\0').to_owned())
}

/// Half of it after half of the time.
pub fn write_slowly(path: &str, bytes: &[u8], us_per_byte: u64) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    for half in bytes.chunks(bytes.len().div_ceil(2).max(1)) {
        file.write_all(half)?;
        let length = u64::try_from(half.len()).unwrap_or(u64::MAX);
        std::thread::sleep(Duration::from_micros(us_per_byte.saturating_mul(length)));
    }
    Ok(())
}
