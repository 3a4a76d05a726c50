//! Every order of a named scenario, walked exhaustively. A failing path is a bug report.

#[path = "interleavings/connect.rs"]
mod connect;
#[path = "interleavings/explorer.rs"]
mod explorer;
#[path = "interleavings/mutants.rs"]
mod mutants;
#[path = "interleavings/r01_late_selection.rs"]
mod r01_late_selection;
#[path = "interleavings/r02_not_busy_enough.rs"]
mod r02_not_busy_enough;
#[path = "interleavings/r03_same_name_new_pod.rs"]
mod r03_same_name_new_pod;
#[path = "interleavings/r04_stale_failure.rs"]
mod r04_stale_failure;
#[path = "interleavings/r05_one_error_many_waiters.rs"]
mod r05_one_error_many_waiters;
#[path = "interleavings/r06_ready_before_connected.rs"]
mod r06_ready_before_connected;
#[path = "interleavings/r07_slow_child.rs"]
mod r07_slow_child;
#[path = "interleavings/r08_facts_in_other_order.rs"]
mod r08_facts_in_other_order;
#[path = "interleavings/r09_return_read_backwards.rs"]
mod r09_return_read_backwards;
#[path = "interleavings/r10_vip_before_table.rs"]
mod r10_vip_before_table;
#[path = "interleavings/r11_credentials.rs"]
mod r11_credentials;
#[path = "interleavings/random.rs"]
mod random;
#[path = "interleavings/scenarios.rs"]
mod scenarios;
#[path = "interleavings/session.rs"]
mod session;
#[path = "interleavings/waiters.rs"]
mod waiters;
#[path = "interleavings/whole.rs"]
mod whole;
