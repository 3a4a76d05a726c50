//! Who may come in: a bounded number of connections, of which one user can take a part only.

use std::collections::BTreeMap;

use crate::error::{Reason, UserError};

/// The most connections at a time.
pub const MAX_CONNECTIONS: usize = 128;
/// The most connections of one user: others still get in when one user's scripts run wild. A keeper of each connection to
/// a cluster takes one of them.
pub const MAX_CONNECTIONS_OF_ONE: usize = 32;

/// The connections that are open, by user.
#[derive(Debug, Default)]
pub struct Admission {
    open: BTreeMap<u32, usize>,
}

impl Admission {
    /// Takes one more connection of `uid`.
    ///
    /// # Errors
    ///
    /// [`Reason::LimitReached`], to be told to the peer, when there are too many.
    pub fn enter(&mut self, uid: u32) -> Result<(), UserError> {
        let total: usize = self.open.values().sum();
        let own = self.open.get(&uid).copied().unwrap_or_default();
        if total >= MAX_CONNECTIONS || own >= MAX_CONNECTIONS_OF_ONE {
            return Err(UserError::new(
                Reason::LimitReached,
                format!("control socket: {total} connections are open, {own} of them by this user"),
                "end a `podway status -w` or `podway wait` that is no longer needed",
            ));
        }
        self.open.insert(uid, own + 1);
        Ok(())
    }

    /// Forgets one connection of `uid`.
    pub fn leave(&mut self, uid: u32) {
        let Some(own) = self.open.get_mut(&uid) else { return };
        *own -= 1;
        if *own == 0 {
            self.open.remove(&uid);
        }
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_every_place() {
        let mut admission = Admission::default();
        for _ in 0..MAX_CONNECTIONS_OF_ONE {
            admission.enter(1000).expect("there is room");
        }
        assert_eq!(admission.enter(1000).expect_err("too many").reason, Reason::LimitReached);
        admission.enter(1001).expect("another user gets in");
        admission.leave(1000);
        admission.enter(1000).expect("a place came free");
    }

    #[test]
    fn there_is_a_limit_for_all_together() {
        let mut admission = Admission::default();
        for uid in 0..MAX_CONNECTIONS {
            admission.enter(u32::try_from(uid).expect("small")).expect("there is room");
        }
        admission.enter(4000).expect_err("full");
        for uid in 0..MAX_CONNECTIONS {
            admission.leave(u32::try_from(uid).expect("small"));
        }
        assert!(admission.is_empty());
    }
}
