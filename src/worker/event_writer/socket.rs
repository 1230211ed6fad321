//! Writing to the daemon's socket, with files or without, as much as has room or all of it.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::Write;

/// Without waiting. Returns whether that was all.
pub(super) fn write_what_has_room(socket: &UnixStream, write: &mut Write) -> io::Result<bool> {
    match write_on(socket, write, SendFlags::DONTWAIT) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        written => written.map(|()| true),
    }
}

pub(super) fn write_all(socket: &UnixStream, write: &mut Write) -> io::Result<()> {
    write_on(socket, write, SendFlags::empty())
}

fn write_on(socket: &UnixStream, write: &mut Write, how: SendFlags) -> io::Result<()> {
    let how = how | SendFlags::NOSIGNAL;
    while let Some(rest) = write.bytes.get(write.written..)
        && !rest.is_empty()
    {
        let sent = match write.files.is_empty() {
            true => rustix::net::send(socket, rest, how),
            false => send_with_files(socket, rest, &write.files, how),
        };
        match sent {
            Ok(count) => {
                write.written += count;
                write.files.clear();
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The files travel with the first byte of `bytes`, so they are there when the frame is.
fn send_with_files(
    socket: &UnixStream,
    bytes: &[u8],
    files: &[OwnedFd],
    how: SendFlags,
) -> rustix::io::Result<usize> {
    let files: Vec<BorrowedFd<'_>> = files.iter().map(OwnedFd::as_fd).collect();
    let room = SendAncillaryMessage::ScmRights(&files).size();
    let mut space = vec![MaybeUninit::uninit(); room];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(Errno::TOOMANYREFS);
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, how)
}
