//! The Unix-domain socket for local use. No client can connect before its group and permissions are what
//! the settings say: it begins to listen after that.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::unistd::Group;
use tokio::net::{UnixListener, UnixSocket};

use crate::settings::FileMode;

/// The socket's file; removed when this is dropped, unless another has taken its place.
#[derive(Debug)]
pub struct UnixSocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Drop for UnixSocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on `path`. A socket without a server, left by a daemon that was killed, is
/// replaced.
///
/// # Errors
///
/// Another process serves it, something else has that name, there is no such group, or the daemon may
/// not do one of these things.
pub fn bind(
    path: &Path,
    mode: FileMode,
    group: Option<&str>,
    backlog: u32,
) -> io::Result<(UnixListener, UnixSocketFile)> {
    let group = group.map(group_id).transpose()?;
    remove_stale(path)?;
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    let file = UnixSocketFile {
        path: path.to_owned(),
        identity: identity(path)?,
    };
    if group.is_some() {
        std::os::unix::fs::lchown(path, None, group)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode.bits()))?;
    Ok((socket.listen(backlog)?, file))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file of that name that is no socket",
            ));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        // No server listens any more.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process serves it",
        )),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

fn group_id(name: &str) -> io::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    match Group::from_name(name)? {
        Some(group) => Ok(group.gid.as_raw()),
        None => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no group named `{name}`"),
        )),
    }
}
