//! Whether standard error leads to the journal: systemd says which stream it connected, and the
//! descriptor may have been redirected since.

use std::ffi::OsStr;

/// Compares `JOURNAL_STREAM` with standard error itself.
pub fn stderr_is_the_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(rustix::stdio::stderr())
        .is_ok_and(|stderr| names(&stream, stderr.st_dev, stderr.st_ino))
}

/// `stream` is `device:inode`, both decimal.
fn names(stream: &OsStr, device: u64, inode: u64) -> bool {
    stream
        .to_str()
        .and_then(|text| text.split_once(':'))
        .is_some_and(|(own_device, own_inode)| {
            own_device.parse() == Ok(device) && own_inode.parse() == Ok(inode)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_same_stream_counts() {
        assert!(names(OsStr::new("8:12"), 8, 12));
        for other in ["8:13", "9:12", "8", "8:", ":12", "8:12:1", "", "x:y"] {
            assert!(!names(OsStr::new(other), 8, 12), "{other}");
        }
    }
}
