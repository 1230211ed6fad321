//! What a client is told of why a model cannot be served. A client with a key reads the whole reason.
//! Others read it without the runtime's own lines, which hold what its vendor likes, and without
//! folders of this machine.

use crate::admission::EmbeddingError;
use crate::generation::GenerationError;
use crate::http::request::access::Caller;
use crate::library_calls::LibraryError;

/// What stands before a line of the runtime.
const RUNTIME_LINE: &str = "; the runtime said: ";

impl Caller {
    /// `reason` as this caller may read it.
    pub fn may_read(&self, reason: String) -> String {
        match self {
            Self::Key(_) => reason,
            Self::Trusted | Self::Stranger => for_strangers(&reason),
        }
    }

    /// `error` as this caller may read it.
    pub fn may_read_error(&self, error: GenerationError) -> GenerationError {
        use GenerationError as E;
        match error {
            E::ModelUnavailable {
                model,
                reason,
                retry_after,
            } => E::ModelUnavailable {
                model,
                reason: self.may_read(reason),
                retry_after,
            },
            E::WorkerDied { cause } => E::WorkerDied {
                cause: self.may_read(cause),
            },
            E::PoisonRequest { cause } => E::PoisonRequest {
                cause: self.may_read(cause),
            },
            E::ModelFailed { model, cause } => E::ModelFailed {
                model,
                cause: self.may_read(cause),
            },
            E::AnswerInterrupted { cause, reason } => E::AnswerInterrupted {
                cause: self.may_read(cause),
                reason,
            },
            E::Internal(reason) => E::Internal(self.may_read(reason)),
            other => other,
        }
    }
}

impl Caller {
    /// `error` as this caller may read it.
    pub fn may_read_of_embeddings(&self, error: EmbeddingError) -> EmbeddingError {
        match error {
            EmbeddingError::Generation(error) => self.may_read_error(error).into(),
            EmbeddingError::Input { index, error } => EmbeddingError::Input {
                index,
                error: self.may_read_of_library(error),
            },
            EmbeddingError::Refused { index, error } => EmbeddingError::Refused {
                index,
                error: self.may_read_of_library(error),
            },
            other => other,
        }
    }

    /// `error` as this caller may read it.
    pub fn may_read_of_library(&self, error: LibraryError) -> LibraryError {
        use LibraryError as E;
        match error {
            E::Failed { function, code, .. } if self.key().is_none() => E::Failed {
                function,
                code,
                reason: None,
            },
            E::WorkerDied { function, cause } => E::WorkerDied {
                function,
                cause: self.may_read(cause),
            },
            E::Unavailable(error) => E::Unavailable(self.may_read_error(error)),
            E::Internal(reason) => E::Internal(self.may_read(reason)),
            other => other,
        }
    }
}

fn for_strangers(reason: &str) -> String {
    let (own, cut) = match reason.split_once(RUNTIME_LINE) {
        Some((own, _)) => (own, true),
        None => (reason, false),
    };
    let mut shown = String::with_capacity(own.len());
    let mut rest = own;
    while let Some(start) = start_of_path(rest) {
        let path = &rest[start..];
        let end = path.find(ends_path).unwrap_or(path.len());
        shown.push_str(&rest[..start]);
        shown.push_str(path[..end].rsplit('/').next().unwrap_or_default());
        rest = &path[end..];
    }
    shown.push_str(rest);
    if cut {
        shown.push_str("; the daemon's log has the runtime's reason");
    }
    shown
}

/// Where an absolute path begins: a slash with nothing of a word before it.
fn start_of_path(text: &str) -> Option<usize> {
    text.match_indices('/').map(|(at, _)| at).find(|&at| {
        let before = text[..at].chars().next_back();
        before.is_none_or(|before| before.is_whitespace() || "`'\"(=:[<".contains(before))
    })
}

fn ends_path(c: char) -> bool {
    c.is_whitespace() || "`'\"):,;]>".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_the_runtimes_lines_are_for_keys() {
        for (reason, shown) in [
            ("no memory", "no memory"),
            (
                "opening /usr/lib/librkllmrt.so: no such file",
                "opening librkllmrt.so: no such file",
            ),
            (
                "`/var/lib/rkllmd/models/m/model.rkllm` (from /srv) is 3/4 read",
                "`model.rkllm` (from srv) is 3/4 read",
            ),
            (
                "rkllm_init returned -1; the runtime said: E rkllm: cannot open /secret/place",
                "rkllm_init returned -1; the daemon's log has the runtime's reason",
            ),
        ] {
            for stranger in [Caller::Trusted, Caller::Stranger] {
                assert_eq!(stranger.may_read(reason.to_owned()), shown);
            }
        }
    }
}
