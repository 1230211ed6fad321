//! Who may have how many bytes. Pure: no clock, no lock, no allocator.
//!
//! The sum of all charges never passes the limit, one client's never pass half of it, and the last
//! part of it is given to administrators only. A charge that cannot be had is refused at once, and by
//! whose fault it is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::generation::ClientKey;

/// What is kept for administrators, unless that were more than a quarter.
const KEPT_BYTES: u64 = 16 * 1024 * 1024;

/// Whose bytes they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    #[default]
    Ordinary,
    /// May use what is kept back.
    Administrator,
}

/// Why bytes cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverBudget {
    #[error(
        "this needs more memory than a client may have, which is {limit_bytes} bytes; \
         `requests-limit-bytes` in the [memory] settings allows twice as much for all"
    )]
    NeverFits { limit_bytes: u64 },
    #[error(
        "requests of this client hold the memory that a client may have, {limit_bytes} bytes; \
         try again when one of them has ended"
    )]
    ClientsShare { limit_bytes: u64 },
    #[error(
        "requests hold the memory that there is for them, {limit_bytes} bytes \
         (`requests-limit-bytes` in the [memory] settings); try again"
    )]
    All { limit_bytes: u64 },
}

impl OverBudget {
    /// Whose bytes they are that are used, and how many there may be.
    pub fn parts(self) -> (&'static str, u64) {
        match self {
            Self::NeverFits { limit_bytes } | Self::ClientsShare { limit_bytes } => {
                ("one client", limit_bytes)
            }
            Self::All { limit_bytes } => ("all clients", limit_bytes),
        }
    }
}

#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    used: u64,
    by_client: HashMap<ClientKey, u64>,
}

impl Budget {
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            used: 0,
            by_client: HashMap::new(),
        }
    }

    pub fn used(&self) -> u64 {
        self.used
    }

    /// What one client may have.
    pub fn clients_limit(&self) -> u64 {
        self.limit / 2
    }

    fn limit_for(&self, standing: Standing) -> u64 {
        match standing {
            Standing::Administrator => self.limit,
            Standing::Ordinary => self.limit - KEPT_BYTES.min(self.limit / 4),
        }
    }

    /// Whether so much is used, of all or of what this client may have, that who holds bytes of it for
    /// long should hurry.
    pub fn is_scarce(&self, client: &ClientKey) -> bool {
        let has = self.by_client.get(client).copied().unwrap_or(0);
        self.used > self.limit_for(Standing::Ordinary) / 2 || has > self.clients_limit() / 2
    }

    /// Gives `more` bytes to a charge that has `held`.
    pub fn charge(
        &mut self,
        client: &ClientKey,
        standing: Standing,
        held: u64,
        more: u64,
    ) -> Result<(), OverBudget> {
        if more == 0 {
            return Ok(());
        }
        let share = self.clients_limit();
        if held.saturating_add(more) > share {
            return Err(OverBudget::NeverFits { limit_bytes: share });
        }
        let limit_bytes = self.limit_for(standing);
        let has = self.by_client.get(client).copied().unwrap_or(0);
        if has + more > share {
            return Err(OverBudget::ClientsShare { limit_bytes: share });
        }
        if self.used + more > limit_bytes {
            return Err(OverBudget::All { limit_bytes });
        }
        self.used += more;
        *self.by_client.entry(client.clone()).or_default() += more;
        Ok(())
    }

    /// Takes back bytes that were given to this client.
    pub fn release(&mut self, client: &ClientKey, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
        if let Entry::Occupied(mut entry) = self.by_client.entry(client.clone()) {
            let left = entry.get().saturating_sub(bytes);
            if left == 0 {
                entry.remove();
            } else {
                entry.insert(left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn client(number: u8) -> ClientKey {
        ClientKey::new(format!("client {number}"))
    }

    #[test]
    fn each_refusal_says_whose_fault_it_is() {
        let mut budget = Budget::new(128 * MIB);
        let mut charge =
            |who, standing, held, more| budget.charge(&client(who), standing, held, more);
        let ordinary = Standing::Ordinary;
        let share = 64 * MIB;
        assert_eq!(
            charge(1, ordinary, 0, share + 1),
            Err(OverBudget::NeverFits { limit_bytes: share })
        );
        assert_eq!(charge(1, ordinary, 0, share), Ok(()));
        assert_eq!(
            charge(1, ordinary, 0, 1),
            Err(OverBudget::ClientsShare { limit_bytes: share })
        );
        // It had them all itself, so no waiting will help.
        assert_eq!(
            charge(1, ordinary, share, 1),
            Err(OverBudget::NeverFits { limit_bytes: share })
        );
        assert_eq!(charge(2, ordinary, 0, 48 * MIB), Ok(()));
        let all = OverBudget::All {
            limit_bytes: 112 * MIB,
        };
        assert_eq!(charge(3, ordinary, 0, 1), Err(all));
        assert_eq!(charge(3, Standing::Administrator, 0, 16 * MIB), Ok(()));
        assert!(charge(3, Standing::Administrator, 0, 1).is_err());
        budget.release(&client(2), 48 * MIB);
        assert_eq!(budget.charge(&client(4), ordinary, 0, MIB), Ok(()));
    }

    #[test]
    fn who_uses_up_his_own_share_hurries_himself_only() {
        let mut budget = Budget::new(256 * MIB);
        let ordinary = Standing::Ordinary;
        budget.charge(&client(1), ordinary, 0, 64 * MIB).unwrap();
        assert!(!budget.is_scarce(&client(1)));
        budget.charge(&client(1), ordinary, 0, 1).unwrap();
        assert!(budget.is_scarce(&client(1)));
        assert!(!budget.is_scarce(&client(2)));
        budget.charge(&client(2), ordinary, 0, 57 * MIB).unwrap();
        assert!(
            budget.is_scarce(&client(3)),
            "more than half of all is used"
        );
    }

    proptest! {
        #[test]
        fn no_sum_is_ever_passed_and_everything_comes_back(
            limit in 0..1000_u64,
            steps in proptest::collection::vec(
                (0..4_u8, any::<bool>(), any::<bool>(), 0..400_u64, any::<prop::sample::Index>()),
                0..200,
            ),
        ) {
            let mut budget = Budget::new(limit);
            let mut held: Vec<(u8, u64)> = Vec::new();
            for (who, admin, release, bytes, which) in steps {
                if release && !held.is_empty() {
                    let (who, bytes) = held.swap_remove(which.index(held.len()));
                    budget.release(&client(who), bytes);
                } else {
                    let standing = if admin { Standing::Administrator } else { Standing::Ordinary };
                    let before = budget.used();
                    match budget.charge(&client(who), standing, 0, bytes) {
                        Ok(()) => {
                            held.push((who, bytes));
                            prop_assert!(budget.used() <= budget.limit_for(standing).max(before));
                        }
                        Err(_) => prop_assert_eq!(budget.used(), before),
                    }
                }
                let sum = |of: &dyn Fn(u8) -> bool| -> u64 {
                    held.iter().filter(|(who, _)| of(*who)).map(|(_, bytes)| bytes).sum()
                };
                prop_assert_eq!(budget.used(), sum(&|_| true));
                prop_assert!(budget.used() <= limit);
                for number in 0..4 {
                    prop_assert!(sum(&|who| who == number) <= limit / 2);
                }
            }
            for (who, bytes) in held {
                budget.release(&client(who), bytes);
            }
            prop_assert_eq!(budget.used(), 0);
            prop_assert!(budget.by_client.is_empty());
        }
    }
}
