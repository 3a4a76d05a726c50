//! What goes wrong, group by group.

mod agents;
mod api;
mod carriers;
mod connects;
mod credentials;
mod cycles;
mod host;
mod panics;
mod readers;
mod watches;

use std::time::Duration;

use crate::Asked;
use crate::row::Group;

/// All groups, in the order of the document.
pub fn all(asked: &Asked) -> Vec<Group> {
    vec![
        carriers::half_open(),
        carriers::cut(),
        agents::agents(),
        agents::replaced(),
        api::group(),
        watches::trouble(),
        watches::silence(),
        watches::of_one_namespace(),
        credentials::group(),
        panics::children(),
        panics::roots(),
        readers::group(),
        host::group(),
        connects::group(asked.connects),
        cycles::group(),
    ]
}

pub fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Through pods of `web`.
pub const VIA: &[&str] = &["--proxy-via", "service=web"];
/// So soon all is well again, unless a row says otherwise.
pub const HEALED: Duration = Duration::from_secs(5);
