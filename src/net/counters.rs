//! What the data plane counts. Never logged per packet.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters since the data plane started. Each stands for itself; they are not read at one instant.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        /// The counters as they were.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct CountersSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Reads them all.
            pub fn snapshot(&self) -> CountersSnapshot {
                CountersSnapshot { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// TCP flows open now.
    tcp_open,
    /// TCP flows ever begun, those that came to nothing too.
    tcp_total,
    /// UDP associations open now.
    udp_open,
    /// UDP associations ever opened.
    udp_total,
    /// DNS queries taken out of the packet path.
    dns_queries,
    /// Bytes from the workstation to the cluster, payload only.
    bytes_sent,
    /// Bytes from the cluster to the workstation, payload only.
    bytes_received,
    /// Flows refused, by the far side or by us.
    refused,
    /// Packets dropped: a source that is not the device's.
    dropped_source,
    /// Packets dropped: malformed, fragments, protocols not carried.
    dropped_other,
    /// Packets dropped: a queue was full.
    dropped_full,
}

/// Adds `amount`.
pub(crate) fn add(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(u64::try_from(amount).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Counts one thing as open for as long as it lives.
#[derive(Debug)]
pub(crate) struct Open<F: Fn(&Counters) -> &AtomicU64> {
    counters: std::sync::Arc<Counters>,
    which: F,
}

impl<F: Fn(&Counters) -> &AtomicU64> Open<F> {
    pub(crate) fn new(counters: std::sync::Arc<Counters>, which: F) -> Self {
        add(which(&counters), 1);
        Self { counters, which }
    }
}

impl<F: Fn(&Counters) -> &AtomicU64> Drop for Open<F> {
    fn drop(&mut self) {
        (self.which)(&self.counters).fetch_sub(1, Ordering::Relaxed);
    }
}
