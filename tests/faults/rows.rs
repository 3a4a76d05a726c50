//! What goes wrong, group by group.

mod carriers;

use std::time::Duration;

use crate::Asked;
use crate::row::Group;

/// All groups, in the order of the document.
pub fn all(_asked: &Asked) -> Vec<Group> {
    vec![carriers::half_open(), carriers::cut()]
}

pub fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Through pods of `web`.
pub const VIA: &[&str] = &["--proxy-via", "service=web"];
