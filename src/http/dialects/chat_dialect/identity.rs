use crate::generation::{Fingerprint, ModelId, RequestId};

/// What the events of one stream, or one whole answer, have in common.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub id: RequestId,
    /// Seconds since the epoch; a clock before the epoch reads as the epoch.
    pub created: u64,
    pub model: ModelId,
    /// What makes it; `None`: that is not known.
    pub fingerprint: Option<Fingerprint>,
    /// Which of the answers it is; 0 where they are written as a whole.
    pub choice: usize,
}

impl Identity {
    /// `system_fingerprint`, of an answer that has gone on with another worker so often.
    pub fn fingerprint(&self, resumptions: u32) -> Option<String> {
        let fingerprint = self.fingerprint.as_ref();
        fingerprint.map(|fingerprint| fingerprint.text(resumptions))
    }
}
