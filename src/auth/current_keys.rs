//! The keys that count now, as all parts read them that do not follow the file.

use std::sync::{Arc, mpsc};

use tokio::sync::watch;

use super::Keyring;

/// What the thread that follows the file is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Look,
    End,
}

/// The keys that count now. Cheap to clone; reading them does not wait for the disk.
#[derive(Clone, Default)]
pub struct CurrentKeys {
    /// Has the file looked at without delay. `None`: no file is followed.
    looks: Option<mpsc::Sender<Order>>,
    keys: watch::Sender<Option<Arc<Keyring>>>,
    pub(super) trouble: watch::Sender<Option<Arc<str>>>,
}

impl CurrentKeys {
    /// Keys that never change.
    pub fn fixed(keyring: Option<Keyring>) -> Self {
        Self {
            looks: None,
            keys: watch::Sender::new(keyring.map(Arc::new)),
            trouble: watch::Sender::default(),
        }
    }

    /// Keys that who takes these orders sets.
    pub(super) fn followed(orders: mpsc::Sender<Order>) -> Self {
        Self {
            looks: Some(orders),
            ..Self::default()
        }
    }

    /// `None`: there never was a file of keys.
    pub fn get(&self) -> Option<Arc<Keyring>> {
        self.keys.borrow().clone()
    }

    /// Why the file of keys cannot be followed now, and what that means.
    pub fn trouble(&self) -> Option<Arc<str>> {
        self.trouble.borrow().clone()
    }

    /// The file was changed: its follower looks at it now. Waits for nothing.
    pub fn look_now(&self) {
        if let Some(looks) = &self.looks {
            // Who followed it may have ended with the daemon.
            let _ = looks.send(Order::Look);
        }
    }

    /// Resolves when `condition` holds for the keys, at once if it does now.
    pub async fn wait_for(&self, mut condition: impl FnMut(Option<&Keyring>) -> bool) {
        let mut keys = self.keys.subscribe();
        // No error: the sender is here.
        let _ = keys.wait_for(|keys| condition(keys.as_deref())).await;
    }

    /// Tells the keys now and whenever they have changed, as long as there are any.
    pub async fn follow(&self, mut told: impl FnMut(&Keyring)) {
        let mut keys = self.keys.subscribe();
        loop {
            if let Some(keyring) = &*keys.borrow_and_update() {
                told(keyring);
            }
            // No error: the sender is here.
            if keys.changed().await.is_err() {
                return;
            }
        }
    }

    pub(crate) fn set(&self, keyring: Keyring) {
        self.keys.send_replace(Some(Arc::new(keyring)));
    }
}
