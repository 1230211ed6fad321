//! Brings one file: asks for it, or for what is missing of it, until it is whole, and verifies it. What comes
//! twice is no more than the ends of connections that broke.
//!
//! No `If-Range` is sent: a part is named after the checksum of the whole, and a commit's file never changes,
//! so whatever does not belong together is found out in the end, and then the file is brought anew, once.

use std::io::Read;
use std::time::{Duration, Instant};

use ureq::http::StatusCode;

use super::answer::{HubAnswer, refusal};
use super::client::{Client, FileAddress};
use super::pace::Pace;
use super::part::{BUFFER_BYTES, NotWhole, Part, verified};
use super::plan::Wanted;
use super::staging::Staging;
use super::tries::{Tries, Trouble};
use super::{FileProgress, Hash, PullError, Told};

/// A pull that goes on by this much is not failing.
const PROGRESS_BYTES: u64 = 1 << 20;
/// How often progress is told at most.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// After so many bytes it is looked whether there is room still: others, such as another pull, write too.
const ROOM_EVERY_BYTES: u64 = 16 << 20;

/// A file whose size and checksum are known.
pub(super) struct Known<'a> {
    pub wanted: &'a Wanted,
    pub size: u64,
    pub hash: Hash,
}

pub(super) struct Fetch<'a> {
    pub client: &'a Client,
    pub staging: &'a Staging,
    pub tell: &'a mut dyn FnMut(Told),
}

impl Known<'_> {
    fn address(&self) -> FileAddress<'_> {
        FileAddress {
            repository: &self.wanted.repository,
            commit: &self.wanted.commit,
            path: &self.wanted.path,
        }
    }

    /// Bytes that are still to come.
    pub fn left(&self, staging: &Staging) -> u64 {
        let part = staging.bytes_of(&super::part::name_of(&self.hash));
        match staging.bytes_of(&self.wanted.name) == self.size {
            true => 0,
            false => self.size - part.min(self.size),
        }
    }
}

impl Fetch<'_> {
    /// Brings a file into the staging folder. Returns its SHA-256.
    pub fn bring(&mut self, file: &Known<'_>) -> Result<String, PullError> {
        let folder = self.staging.folder();
        let name = &file.wanted.name;
        // An earlier pull may have brought it and have been killed later.
        if let Some(sha256) = verified(&folder.join(name), &file.hash, file.size) {
            self.tell(file, file.size);
            return Ok(sha256);
        }
        let mut part = Part::open(folder, file.hash, file.size);
        let mut is_anew = false;
        loop {
            let mut open = part.map_err(|error| self.staging.failed(error, file.size))?;
            self.complete(file, &mut open)?;
            match open.is_pointer() {
                Ok(false) => {}
                Ok(true) => {
                    let restarted = open.restart();
                    restarted.map_err(|error| self.staging.failed(error, file.size))?;
                    let reason =
                        "a pointer of Git LFS came in its place; the file itself lies elsewhere";
                    return Err(corrupt(file, reason.to_owned()));
                }
                Err(error) => return Err(self.staging.failed(error, file.size)),
            }
            let is_joined = open.is_joined();
            match open.finish(folder, name) {
                Ok(sha256) => return Ok(sha256),
                Err(NotWhole::Io(error)) => return Err(self.staging.failed(error, file.size)),
                Err(NotWhole::Other(found)) => {
                    part = Part::open(folder, file.hash, file.size);
                    let restarted = part.as_mut().map(Part::restart);
                    if let Ok(Err(error)) = restarted {
                        return Err(self.staging.failed(error, file.size));
                    }
                    if !is_joined || is_anew {
                        let said = file.hash.hex();
                        let reason = format!("its checksum is {found}, and {said} was said");
                        return Err(corrupt(file, reason));
                    }
                    // Once: a hub that cuts and spoils each time would have it brought for ever.
                    is_anew = true;
                }
            }
        }
    }

    fn complete(&mut self, file: &Known<'_>, part: &mut Part) -> Result<(), PullError> {
        let mut tries = Tries::new(&self.client.hub, format!("bringing {}", file.wanted.name));
        // The most that there ever was: what is begun anew again and again is no progress.
        let mut most = part.len();
        loop {
            self.tell(file, part.len());
            if part.left() == 0 && file.size > 0 {
                return Ok(());
            }
            let trouble = match self.attempt(file, part) {
                Ok(()) => {
                    self.tell(file, part.len());
                    return Ok(());
                }
                Err(trouble) => trouble,
            };
            if part.len() >= most + PROGRESS_BYTES {
                tries.succeed();
            }
            tries.wait(trouble)?;
            most = most.max(part.len());
            part.join();
        }
    }

    /// Asks for what is missing, once.
    fn attempt(&mut self, file: &Known<'_>, part: &mut Part) -> Result<(), Trouble> {
        let address = file.address();
        let answer = self.client.file(&address, part.len())?;
        let restart = |part: &mut Part| {
            let restarted = part.restart();
            restarted.map_err(|error| self.staging.failed(error, file.size))
        };
        match answer.status {
            // Another file or a page of words, for which nothing that has come is thrown away.
            StatusCode::OK if answer.length().is_some_and(|it| it != file.size) => {
                let length = answer.length().unwrap_or_default();
                return Err(Trouble::Final(corrupt(
                    file,
                    format!("it has {length} bytes, and {} were said", file.size),
                )));
            }
            // The whole file, whatever was asked for.
            StatusCode::OK => restart(part)?,
            // Of what is coded a part is no part of the file.
            StatusCode::PARTIAL_CONTENT
                if !answer.is_coded() && continues(&answer, part.len(), file.size) => {}
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                restart(part)?;
                return Err(Trouble::again("the rest of the file was not given"));
            }
            _ => return Err(refusal(&answer, &address.what(), &file.wanted.repository)),
        }
        self.take(file, part, answer)
    }

    fn take(
        &mut self,
        file: &Known<'_>,
        part: &mut Part,
        answer: HubAnswer,
    ) -> Result<(), Trouble> {
        let hub = &self.client.hub;
        let mut body = answer.content()?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut pace = Pace::of(hub);
        let mut unchecked = 0;
        let mut told_at = Instant::now();
        loop {
            let read = match body.read(&mut buffer) {
                Ok(read) => read,
                Err(error) => return Err(Trouble::again(error.to_string())),
            };
            if read == 0 {
                return match part.left() {
                    0 => Ok(()),
                    _ => Err(Trouble::again("the connection ended")),
                };
            }
            if read as u64 > part.left() {
                let reason = format!("it is longer than the {} bytes that were said", file.size);
                return Err(Trouble::Final(corrupt(file, reason)));
            }
            let left = part.left();
            let written = part.write(&buffer[..read]);
            written.map_err(|error| self.staging.failed(error, left))?;
            if part.left() == 0 {
                // What may come behind it belongs to no file.
                return Ok(());
            }
            unchecked += read as u64;
            if unchecked >= ROOM_EVERY_BYTES {
                unchecked = 0;
                self.staging.check_room(part.left(), hub)?;
            }
            if told_at.elapsed() >= TELL_EVERY {
                told_at = Instant::now();
                self.tell(file, part.len());
            }
            if pace.is_too_slow(read) {
                return Err(Trouble::again("it came too slowly"));
            }
        }
    }

    fn tell(&mut self, file: &Known<'_>, completed: u64) {
        (self.tell)(Told::File(FileProgress {
            file: file.wanted.name.clone(),
            digest: file.hash.to_string(),
            total: file.size,
            completed,
        }));
    }
}

fn corrupt(file: &Known<'_>, reason: String) -> PullError {
    PullError::Corrupt {
        file: file.address().what(),
        reason,
    }
}

/// Whether an answer gives what is missing.
fn continues(answer: &HubAnswer, offset: u64, size: u64) -> bool {
    let range = answer.header("content-range").unwrap_or_default();
    begins_at(range) == Some((offset, size))
}

/// The offset and the size of the whole in `bytes 5-9/10`.
fn begins_at(range: &str) -> Option<(u64, u64)> {
    let (span, size) = range.strip_prefix("bytes ")?.split_once('/')?;
    let (from, _) = span.split_once('-')?;
    Some((from.trim().parse().ok()?, size.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_where_it_goes_on() {
        assert_eq!(begins_at("bytes 5-9/10"), Some((5, 10)));
        for wrong in ["", "bytes */10", "bytes 5-9/*", "5-9/10", "bytes x-9/10"] {
            assert_eq!(begins_at(wrong), None, "{wrong}");
        }
    }
}
