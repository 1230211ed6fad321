//! Reads a small file at a path where anything may lie. Nothing that lies there holds the reader up
//! or fills its memory: only a regular file is read, and no more of it than a limit.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// The text of the file, following links.
///
/// # Errors
///
/// There is none, it is something else than a regular file, it is longer than `limit_bytes`, or it
/// is no UTF-8 text.
pub fn read_text(path: &Path, limit_bytes: u64) -> io::Result<String> {
    // Looked at first, because opening a device may do something.
    check(fs::metadata(path)?.file_type())?;
    let file = open(path)?;
    // What was opened may not be what was looked at.
    check(file.metadata()?.file_type())?;
    let mut bytes = Vec::new();
    file.take(limit_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is longer than {limit_bytes} bytes"),
        ));
    }
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-8 text"))
}

/// Opens for reading without waiting, where a pipe would wait for a writer.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

fn check(found: FileType) -> io::Result<()> {
    let what = if found.is_file() {
        return Ok(());
    } else if found.is_dir() {
        "a folder"
    } else if found.is_fifo() {
        "a named pipe"
    } else if found.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("it is {what} and not a file"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType as Kind, Mode};
    use std::os::unix::net::UnixListener;

    const LIMIT: u64 = 8;

    #[test]
    fn a_file_is_read_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "12345678").unwrap();
        assert_eq!(read_text(&path, LIMIT).unwrap(), "12345678");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(read_text(&link, LIMIT).unwrap(), "12345678");
        fs::write(&path, "123456789").unwrap();
        let error = read_text(&path, LIMIT).unwrap_err();
        assert!(error.to_string().contains("8 bytes"), "{error}");
        fs::write(&path, b"\xff").unwrap();
        assert!(read_text(&path, LIMIT).is_err());
    }

    #[test]
    fn what_is_no_file_is_named_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("folder")).unwrap();
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, path("pipe"), Kind::Fifo, mode, 0).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        for (name, what) in [
            ("folder", "a folder"),
            ("pipe", "a named pipe"),
            ("socket", "a socket"),
        ] {
            let error = read_text(&path(name), LIMIT).unwrap_err();
            assert!(error.to_string().contains(what), "{name}: {error}");
        }
        let error = read_text(Path::new("/dev/zero"), LIMIT).unwrap_err();
        assert!(error.to_string().contains("a device"), "{error}");
        std::os::unix::fs::symlink(path("loop"), path("loop")).unwrap();
        assert!(read_text(&path("loop"), LIMIT).is_err());
        let error = read_text(&path("none"), LIMIT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
