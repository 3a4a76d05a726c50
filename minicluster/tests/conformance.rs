//! The same requests to minicluster and to a real cluster give the same observations.
//!
//! What a real cluster says is committed in `conformance/observations`. Each test compares minicluster with it. With
//! `PODWAY_CONFORMANCE_KUBECONFIG`, the kubeconfig of an administrator of a cluster for tests, it compares that cluster
//! instead; and with `PODWAY_CONFORMANCE_RECORD=1` it writes what it saw. The real cluster needs the sample workloads of
//! docs/testing.md; tests work in namespaces of their own, which they delete.

#![expect(
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "a test says what it expects, and times what it sees"
)]

#[path = "conformance/client.rs"]
mod client;
#[path = "conformance/observe.rs"]
mod observe;
#[path = "conformance/pods.rs"]
mod pods;
#[path = "conformance/world.rs"]
mod world;

#[path = "conformance/cases"]
mod cases {
    pub mod changes;
    pub mod deletion;
    pub mod discovery;
    pub mod ephemeral;
    pub mod forms;
    pub mod lists;
    pub mod objects;
    pub mod portforward;
    pub mod rights;
    pub mod watches;
}

/// A test for each case: its name is a sentence, its function takes a world and tells what it sees.
macro_rules! cases {
    ($($module:ident: $($name:ident),* $(,)?);* $(;)?) => {
        $(mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let name = concat!(stringify!($module), "/", stringify!($name));
                    crate::world::check(name, |world| Box::pin(crate::cases::$module::$name(world))).await;
                }
            )*
        })*
    };
}

cases! {
    discovery:
        health_and_versions_are_told,
        kinds_are_told,
        what_is_not_there_is_refused;
    objects:
        a_service_is_made_once,
        names_are_generated,
        what_cannot_be_is_refused,
        what_cannot_be_read_is_refused,
        nothing_is_made_on_trial;
    lists:
        objects_are_selected,
        nonsense_is_refused,
        pages_show_one_state,
        versions_are_asked_for,
        what_is_forgotten_is_gone;
    watches:
        changes_are_told_in_order,
        what_leaves_the_selection_is_deleted,
        a_watch_begins_with_what_there_is,
        a_watch_ends_in_time_and_says_how_far_it_is,
        a_watch_from_long_ago_is_gone,
        initial_events_end_with_a_bookmark;
    changes:
        a_replacement_needs_the_newest_version,
        patches_of_each_kind_apply,
        patches_that_do_not_fit_are_refused,
        what_is_fixed_stays,
        status_is_written_apart,
        a_workload_is_scaled,
        a_workload_is_restarted;
    deletion:
        some_kinds_are_shown_when_gone,
        preconditions_are_kept,
        a_finalizer_holds_an_object,
        many_are_deleted_at_once,
        a_pod_gets_its_time,
        a_namespace_that_goes_takes_nothing_new;
    ephemeral:
        containers_are_added_and_stay,
        what_cannot_be_is_refused;
    forms:
        metadata_alone,
        tables,
        unknown_forms_are_refused;
    rights:
        strangers_are_refused,
        refusals_name_user_and_right,
        rights_can_be_asked_for,
        a_missing_role_is_named,
        being_somebody_else_is_a_right;
    portforward:
        the_protocol_is_agreed_on,
        nonsense_is_refused,
        bytes_go_there_and_back,
        several_ports_share_a_connection,
        a_refusal_is_told_as_text,
        the_pods_end_is_told_after_a_second,
        a_reset_is_told_as_text,
        a_pod_that_does_not_run_is_refused;
}
