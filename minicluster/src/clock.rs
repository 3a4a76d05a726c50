//! The machine's clock. Everything else gets the time as an argument.
#![expect(clippy::disallowed_methods, reason = "this is the one shell that reads the wall clock")]

use std::time::{SystemTime, UNIX_EPOCH};

use crate::time::Time;

/// Now.
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Now, as objects carry it; what [`Store::new`](crate::store::Store::new) wants.
pub fn rfc3339() -> String {
    now().rfc3339()
}
