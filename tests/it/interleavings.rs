//! Every order of a named scenario, walked exhaustively. A failing path is a bug report.

#[path = "interleavings/connect.rs"]
mod connect;
#[path = "interleavings/r01_late_selection.rs"]
mod r01_late_selection;
#[path = "interleavings/session.rs"]
mod session;
#[path = "interleavings/waiters.rs"]
mod waiters;
