//! The clients that are let in: API keys with a name, a role and, if so wished, a list of models.
//!
//! A key's plaintext exists where it is shown and nowhere else. Its SHA-256 is stored and compared. The
//! file of keys is replaced as a whole or not at all, at whatever moment the power goes. A file that
//! cannot be read locks. Nothing that happens to the file opens a door while the daemon runs.

mod current_keys;
mod first_key;
mod key;
mod keyring;
mod keys_file;
mod keys_watch;
mod sealing_key;
mod secret;

pub use current_keys::CurrentKeys;
pub use first_key::{FirstKey, FirstKeyError};
pub use key::{ApiKey, KeyName, Role, creation_time};
pub use keyring::{Keyring, KeyringError};
pub use keys_file::{KeysFile, KeysFileError};
pub use keys_watch::KeysWatch;
pub use sealing_key::{SEAL_BYTES, SealingKey, SealingKeyError};
pub use secret::{KeyDigest, Secret};
