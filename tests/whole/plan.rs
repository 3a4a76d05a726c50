//! `connect --dry-run`: what connecting would change, and that nothing is changed for it.

use std::collections::BTreeSet;

use podway::plan::{AgentAction, ConnectPlan};
use podway_minicluster::control::Request;
use serde_json::Value;

use crate::schema::Schema;
use crate::world::{Daemon, World, text};

const VIA: [&str; 2] = ["--proxy-via", "service=web"];
const STATE: &str = "/run/podway/state";

fn plan(podway: &Daemon<'_>, flags: &[&str]) -> ConnectPlan {
    let words = [["connect", "-n", "demo", "--dry-run", "-o", "json"].as_slice(), flags].concat();
    let mut document: Value = serde_json::from_str(&podway.expect(0, &words).out).unwrap();
    Schema::of_podway().check(&document);
    serde_json::from_value(document["plan"].take()).unwrap()
}

/// Every object that a connection could make or change, by kind, namespace and name, with its specification.
fn objects(world: &World) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for kind in ["pods", "jobs", "secrets", "configmaps", "services", "deployments", "roles", "rolebindings"] {
        // Not every kind is served.
        let Ok(list) = world.cluster.ask(Request::List { kind: kind.to_owned(), namespace: None }) else { continue };
        for object in list.as_array().into_iter().flatten() {
            let meta = &object["metadata"];
            found.insert(format!("{kind} {} {} {}", text(&meta["namespace"]), text(&meta["name"]), object["spec"]));
        }
    }
    assert!(found.iter().any(|object| object.starts_with("pods ")), "{found:?}");
    found
}

#[test]
fn a_dry_run_tells_what_connecting_does_and_changes_nothing() {
    let Some(world) = World::start() else { return };
    world.with_daemon(|podway| {
        let (objects_before, state_before) = (objects(&world), world.ws.list(STATE));
        let planned = plan(podway, &VIA);
        world.podway(&["connect", "-n", "demo", "--dry-run"]);
        assert_eq!(objects(&world), objects_before);
        world.assert_as_before();
        assert_eq!(world.ws.list(STATE), state_before, "no file");
        podway.expect(3, &["status"]);
        assert!(planned.agents.iter().all(|agent| agent.action == AgentAction::Place), "{:?}", planned.agents);
        assert!(planned.missing_rights.is_empty(), "{:?}", planned.missing_rights);

        // Connecting then does just that.
        podway.connect(&VIA);
        let status = podway.status();
        let routes: BTreeSet<String> = status.device.routes.iter().cloned().collect();
        assert_eq!(planned.device.routes.iter().cloned().collect::<BTreeSet<_>>(), routes);
        assert_eq!((&planned.device.name, &planned.ranges), (&status.device.name, &status.ranges));
        assert_eq!((&planned.virtual_ranges, &planned.dns.backend), (&status.vips.ranges, &status.dns.backend));
        assert!(planned.dns.servers.contains(&status.dns.server), "{:?}, {:?}", planned.dns, status.dns);
        let placed: BTreeSet<String> = planned.agents.iter().map(|agent| agent.pod.clone()).collect();
        let beside = world.agents().into_iter().filter(|(_, container)| !container.is_empty());
        beside.for_each(|(pod, _)| assert!(placed.contains(&pod), "{pod} is not in {placed:?}"));
        podway.expect(1, &["connect", "-n", "demo", "--dry-run"]);
        podway.disconnect(&[]);

        // What is there now would be used again.
        let again = plan(podway, &VIA);
        let used = |agent: &&podway::plan::PlannedAgent| agent.action == AgentAction::Use;
        assert!(again.agents.iter().any(|agent| used(&agent)), "{:?}", again.agents);
    });
}

#[test]
fn a_dry_run_of_what_cannot_work_fails_as_connecting_would() {
    let Some(world) = World::start() else { return };
    world.with_daemon(|podway| {
        let done = podway.expect(1, &["connect", "-n", "demo", "--dry-run", "--proxy-via", "service=wbe"]);
        assert!(done.err.contains("wbe") && done.err.contains("did you mean"), "{done:?}");
        // Nothing carries traffic then: the same words, planned or tried.
        let ephemeral = ["--agent", "ephemeral"];
        let planned = podway.expect(1, &[&["connect", "-n", "demo", "--dry-run"], &ephemeral[..]].concat()).err;
        let real = podway.connect_to(1, &ephemeral).err;
        assert!(real.ends_with(&planned), "{planned}, and really: {real}");
        let kubeconfig = world.cluster.kubeconfig("none").unwrap();
        let flags = ["connect", "-n", "demo", "--dry-run", "--kubeconfig", kubeconfig.as_str()];
        let done = podway.expect(1, &flags);
        assert!(done.err.contains("list and watch pods"), "{done:?}");
        world.assert_as_before();
    });
}

#[test]
fn the_log_of_a_connection_is_shown_and_its_documents_fit_the_schema() {
    let Some(world) = World::start() else { return };
    world.connected(&VIA, |podway| {
        let name = podway.status().name;
        let mut schema = Schema::of_podway();
        for words in [["status", "-o", "json"].as_slice(), &["list", "-o", "json"], &["version", "-o", "json"]] {
            schema.check(&serde_json::from_str(&podway.expect(0, words).out).unwrap());
        }
        schema.check(&serde_json::from_str(&podway.expect(0, &["config", "view", "-o", "json"]).out).unwrap());
        let lines = podway.expect(0, &["logs", &name, "-o", "json"]).out;
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.iter().for_each(|line| schema.check(line));
        for said in ["connecting", "the device is up", "adding an agent to a pod", "dialling an agent"] {
            assert!(lines.iter().any(|line| line["message"] == said), "{said} is not in {lines:#?}");
        }
    });
}

#[test]
fn a_dry_run_without_a_device_to_make_fails_as_connecting_does() {
    let Some(world) = World::start() else { return };
    world.with_daemon(|podway| {
        podway.stop();
        let covered = "mount -t tmpfs tmpfs /dev/net && exec \"$@\"";
        podway.launch.prefix = ["unshare", "-m", "sh", "-c", covered, "sh"].map(str::to_owned).into();
        podway.start();
        let planned = podway.expect(1, &["connect", "-n", "demo", "--dry-run"]).err;
        assert!(planned.contains("/dev/net/tun is missing") && planned.contains("modprobe tun"), "{planned}");
        let real = podway.connect_to(1, &[]).err;
        assert!(real.ends_with(&planned), "{planned}, and really: {real}");
    });
}
