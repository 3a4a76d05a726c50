//! A connection under every order of its children's facts, a disconnect, a panic, a teardown step that hangs.

use podway::actors::client_list::messages::WaiterOutcome;
use podway::cluster::Resolution;
use podway::error::{Reason, UserError};
use podway::status::ConnectOutcome;

use crate::support::explore::{World, assert_holds};
use crate::support::facts::target;
use crate::support::session_world::{SessionWorld, found, ready};

/// Walks to one end of the world, taking the first step each time.
fn one_end(mut world: SessionWorld) -> SessionWorld {
    while let Some(step) = world.steps().first().cloned() {
        world.take(&step);
    }
    world
}

#[test]
fn connect_ends_ready_in_every_order() {
    let world = SessionWorld::new(&["web", "db"], [found("web", 2), found("db", 1)], [ready("web"), ready("db")]);
    assert_eq!(one_end(world.clone()).outcome(), Some(&ConnectOutcome::Ready));
    assert_holds(world);
}

#[test]
fn s44_a_disconnect_at_any_moment_ends_in_an_ordered_teardown() {
    let world = SessionWorld::new(&["web"], [found("web", 2)], [ready("web")]).disconnects(&[1, 2]);
    assert_holds(world);
}

#[test]
fn our_pods_go_too_where_that_is_asked_at_any_moment_of_the_teardown() {
    let mut world = SessionWorld::new(&["web"], [found("web", 2)], [ready("web")]);
    assert_holds(world.clone().disconnects(&[1]).cleans(2));
    world.hanging_steps = 1;
    assert_holds(world.cleans(1));
}

#[test]
fn s48_a_panic_at_any_moment_ends_in_teardown_and_a_new_start() {
    let mut world = SessionWorld::new(&["web"], [found("web", 2)], [ready("web")]);
    world.panics = 1;
    assert_holds(world.clone());
    // And a disconnect that takes our pods as well, at any moment of it.
    world.watches_at_once = true;
    assert_holds(world.cleans(1));
}

#[test]
fn a_teardown_step_that_hangs_is_passed_over() {
    let mut world = SessionWorld::new(&["web"], [found("web", 2)], [ready("web")]).disconnects(&[1]);
    world.hanging_steps = 2;
    assert_holds(world);
}

#[test]
fn s04_error_names_the_missing_workload() {
    let missing = Resolution::NotFound { near: vec!["deployment/web".into()], namespace_missing: false };
    let resolutions = [found("db", 1), ("wbe".parse().expect("a reference"), missing)];
    let world = SessionWorld::new(&["db", "wbe"], resolutions, [ready("db")]);
    assert_holds(world.clone());
    let Some(ConnectOutcome::Failed(error)) = one_end(world).outcome().cloned() else { panic!("it cannot work") };
    assert_eq!(error.reason, Reason::WorkloadNotFound);
    assert!(error.message.contains("wbe") && error.message.contains("demo"), "{error}");
    assert!(error.hint.contains("deployment/web"), "{}", error.hint);
}

#[test]
fn the_cause_of_a_failed_connect_is_said_once() {
    let why = "pod web-1: image r.example/web:1 does not start: ErrImagePull: not found";
    let hopeless = WaiterOutcome::Hopeless { why: why.into() };
    let ended = one_end(SessionWorld::new(&["web"], [found("web", 1)], [(target("web"), hopeless)]));
    let Some(ConnectOutcome::Failed(error)) = ended.outcome() else { panic!("hopeless") };
    assert_eq!(error.message.matches("ErrImagePull").count(), 1, "{error}");
    assert!(!ended.steps_told().iter().any(|step| step.contains("ErrImagePull")), "{:?}", ended.steps_told());
}

#[test]
fn zero_replicas_leave_the_connection_up_and_name_the_workload() {
    let waiting = (target("idle"), WaiterOutcome::TimedOut);
    let world = SessionWorld::new(&["web", "idle"], [found("web", 1), found("idle", 0)], [ready("web"), waiting]);
    assert_holds(world.clone());
    let Some(ConnectOutcome::Degraded { pending }) = one_end(world).outcome().cloned() else {
        panic!("it is degraded")
    };
    assert!(pending.iter().any(|text| text.contains("demo/deployment/idle")), "{pending:?}");
}

#[test]
fn a_workload_that_does_not_come_in_time_is_named() {
    let waiting = (target("web"), WaiterOutcome::TimedOut);
    let world = SessionWorld::new(&["web"], [found("web", 1)], [waiting]);
    assert_holds(world.clone());
    let Some(ConnectOutcome::TimedOut { missing }) = one_end(world).outcome().cloned() else { panic!("time is over") };
    assert!(missing.iter().any(|text| text.contains("demo/deployment/web")), "{missing:?}");
}

#[test]
fn a_hopeless_waiter_and_an_unreachable_server_fail_the_connect_in_every_order() {
    let hopeless = WaiterOutcome::Hopeless { why: "missing right: create and get pods/portforward".into() };
    let world = SessionWorld::new(&["web"], [found("web", 1)], [(target("web"), hopeless)]);
    assert_holds(world.clone());
    let Some(ConnectOutcome::Failed(error)) = one_end(world.clone()).outcome().cloned() else { panic!("hopeless") };
    assert_eq!(error.reason, Reason::Forbidden);
    let error = UserError::new(Reason::ClusterUnreachable, "API server: refused", "");
    assert_holds(world.unreachable(error));
}

#[test]
fn a_connect_whose_time_is_over_goes_on_in_every_order_until_the_api_server_answers() {
    let world = SessionWorld::new(&["web"], [found("web", 1)], [ready("web")]).away(3);
    assert_holds(world.clone());
    let ended = one_end(world.clone());
    assert!(matches!(ended.outcome(), Some(ConnectOutcome::TimedOut { .. })), "{:?}", ended.outcome());
    assert_holds(world.clone().disconnects(&[1]));
    let mut falls = world;
    falls.panics = 1;
    assert_holds(falls);
}

#[test]
fn what_refuses_a_connect_ends_it_also_after_its_time_in_every_order() {
    let missing = Resolution::NotFound { near: Vec::new(), namespace_missing: false };
    let world = SessionWorld::new(&["wbe"], [("wbe".parse().expect("a reference"), missing)], []).away(1);
    assert_holds(world.clone());
    let Some(ConnectOutcome::Failed(error)) = one_end(world).outcome().cloned() else { panic!("it cannot work") };
    assert_eq!(error.reason, Reason::WorkloadNotFound);
}
