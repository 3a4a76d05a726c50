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
    /// Packets of the device looked at. Each was taken, answered by the reader itself, or dropped.
    packets,
    /// Packets given to a flow, to our DNS or to an echo; parts that wait for others.
    packets_taken,
    /// Packets answered at once: with a reset, or with an ICMP error.
    packets_answered,
    /// Flows refused because there were too many.
    over_limit,
    /// Packets dropped: a source that is not the device's.
    dropped_source,
    /// Packets dropped: another host sent them through this one, or a program chose their hop limit.
    dropped_forwarded,
    /// Packets dropped: not what their headers say.
    dropped_malformed,
    /// Packets dropped: parts of packets whose others did not come, or do not fit.
    dropped_fragment,
    /// Packets dropped: neither TCP, UDP nor an echo request.
    dropped_protocol,
    /// Packets dropped: to a multicast or broadcast address.
    dropped_multicast,
    /// Packets dropped: resets of connections that are not there.
    dropped_stray,
    /// Packets dropped: too many waited for their flow.
    dropped_flow_full,
    /// Queries dropped: too many waited for an answer.
    dropped_dns_full,
    /// Echo requests dropped: too many waited for an answer.
    dropped_echo_full,
    /// Datagrams dropped: no room on the way to the agent.
    dropped_udp_full,
    /// Datagrams from the cluster dropped: longer than a packet can be.
    dropped_too_long,
    /// Packets to the workstation dropped: the device's queue was full.
    dropped_device_full,
    /// Packets to the workstation dropped: the device did not take them.
    dropped_device_refused,
}

/// Adds `amount`.
pub(crate) fn add(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(u64::try_from(amount).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Takes `amount` back.
pub(crate) fn take_back(counter: &AtomicU64, amount: usize) {
    counter.fetch_sub(u64::try_from(amount).unwrap_or(u64::MAX), Ordering::Relaxed);
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
