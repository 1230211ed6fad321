//! Copies of boards, written from short descriptions: `path = text`, where \n and \0 stand for
//! themselves, `path := library VERSION` and `path := model TOOLKIT BYTES`.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// One on which all is well.
pub const GOOD: &str = "invented-rk3588-vendor-6.1";

pub struct Board {
    folder: tempfile::TempDir,
}

pub fn descriptions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/boards")
}

impl Board {
    pub fn of(name: &str) -> Self {
        let description = descriptions().join(format!("{name}.tree"));
        let folder = tempfile::tempdir().unwrap();
        // The user of the service must get in.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let board = Self { folder };
        let description = fs::read_to_string(description).unwrap();
        for line in description.lines().filter(|line| !line.starts_with('#')) {
            board.write(line);
        }
        board
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, of_board: &str) -> PathBuf {
        self.root().join(of_board.trim_start_matches('/'))
    }

    /// One line of a description.
    pub fn write(&self, line: &str) {
        if let Some((path, made)) = line.split_once(" := ") {
            let path = self.new_file(path);
            match made.split(' ').collect::<Vec<_>>()[..] {
                ["library", version] => fs::write(&path, library(version)).unwrap(),
                ["model", toolkit, bytes] => model(&path, toolkit, bytes.parse().unwrap()),
                _ => panic!("{line}"),
            }
            // Whatever the test's umask is.
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        } else {
            let (path, text) = line.split_once(" = ").expect(line);
            let text = text.replace("\\n", "\n").replace("\\0", "\0");
            let path = self.new_file(path);
            fs::write(&path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        }
    }

    fn new_file(&self, path: &str) -> PathBuf {
        let path = self.path(path);
        let folder = path.parent().unwrap();
        fs::create_dir_all(folder).unwrap();
        let mode = fs::Permissions::from_mode(0o755);
        let below = folder
            .ancestors()
            .take_while(|folder| *folder != self.root());
        for folder in below {
            fs::set_permissions(folder, mode.clone()).unwrap();
        }
        path
    }

    pub fn remove(&self, path: &str) {
        let path = self.path(path);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
}

/// The least that is a library for aarch64: an ELF header, one loaded part, and the version in it.
fn library(version: &str) -> Vec<u8> {
    let text = format!("RKLLM SDK (version: {version} | target: Linux)");
    let mut elf = vec![0; 64 + 56];
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    let whole = (64 + 56 + text.len()) as u64;
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &3u16.to_le_bytes());
    put(18, &183u16.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &1u16.to_le_bytes());
    put(64, &1u32.to_le_bytes());
    put(64 + 32, &whole.to_le_bytes());
    elf.extend_from_slice(text.as_bytes());
    elf
}

/// As large as asked, without the disk it would need.
fn model(path: &Path, toolkit: &str, bytes: u64) {
    let footer = format!("rkllm-toolkit version: {toolkit}\0\0");
    let mut file = File::create(path).unwrap();
    file.write_all(&[0xda, 0xee, 0xb3, 0x36, 3, 0, 0, 0])
        .unwrap();
    file.set_len(bytes - footer.len() as u64).unwrap();
    let mut end = fs::OpenOptions::new().append(true).open(path).unwrap();
    end.write_all(footer.as_bytes()).unwrap();
}

/// The check of a report in JSON.
pub fn check<'a>(report: &'a Value, id: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["id"] == id);
    found.unwrap_or_else(|| panic!("no check {id}"))
}
