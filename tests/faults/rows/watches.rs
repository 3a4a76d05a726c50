//! Watches: what podway knows of the cluster.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::api::{lists, relists};
use super::{HEALED, VIA, seconds};
use crate::rig::{PATIENCE, Rig};
use crate::row::{Case, Group, Row, case};
use crate::world::until;

const TROUBLE: Duration = Duration::from_secs(6);
/// More services than a page of a list has.
const PAGES: usize = 520;

fn watches() -> Value {
    json!({"verb": "watch"})
}

/// Watches are cut and meet that fault for a while; what changes meanwhile is known soon after. Carriers stay.
fn while_cut(fault: &str, bar: &'static str, rules: fn() -> Vec<Value>, lasts: Duration) -> Case {
    let name = format!("podway-cut-{}", fault.len());
    case(fault, bar, move |rig, row| {
        let (flows, fault) = (rig.flows("web"), rig.fault(&rules()));
        let since = fault.since;
        rig.cut(watches(), true);
        rig.seen(since, PATIENCE, row);
        row.within("seen", row.seen.unwrap(), seconds(1));
        rig.serve(&name);
        rig.lasts(since, lasts);
        let over = rig.end(fault);
        let known = rig.is_known(&name, over, PATIENCE);
        row.healed = Some(row.within("caught up", known.max(rig.well(over, PATIENCE)), HEALED));
        rig.note(since, row);
        kept(row, flows);
    })
}

fn kept(row: &mut Row, flows: crate::flows::Flows) {
    let came = flows.end();
    row.flows = came.told();
    row.holds(came.lost.is_empty(), || format!("lost: {:?}", came.lost));
}

/// A service comes and one goes, again and again; in the end what is known is what is there.
fn churn(rig: &Rig<'_, '_>, name: &str) {
    for round in 0..6 {
        rig.serve(&format!("{name}-{round}"));
        thread::sleep(Duration::from_millis(120));
        if round % 2 == 1 {
            rig.world.cluster.delete("services", "demo", &format!("{name}-{}", round - 1)).unwrap();
        }
    }
}

fn is_as_there(rig: &Rig<'_, '_>, name: &str) {
    for round in 0..6 {
        let name = format!("{name}-{round}");
        match round % 2 {
            1 => _ = rig.is_known(&name, Instant::now(), PATIENCE),
            _ => rig.is_unknown(&name, PATIENCE),
        }
    }
}

/// A service comes, and one goes, while the rules are in force: all is known within the bar.
fn events(fault: &str, bar: &'static str, rules: fn() -> Vec<Value>, most: u64) -> Case {
    let name = format!("podway-events-{}", fault.len());
    case(fault, bar, move |rig, row| {
        let (flows, before) = (rig.flows("web"), lists(rig));
        let fault = rig.fault(&rules());
        let since = fault.since;
        churn(rig, &name);
        let last = Instant::now();
        is_as_there(rig, &name);
        let well = rig.well(last, PATIENCE);
        rig.end(fault);
        row.healed = Some(row.within("all known", well, HEALED));
        relists(rig, row, before, most);
        row.figures.extend(rig.look.story_since(since));
        kept(row, flows);
    })
}

pub fn trouble() -> Group {
    let again = "what changed is known in 5 s";
    let refuse = |code: u16, more: Value| {
        let mut rule = json!({"fault": "refuse", "code": code});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    let at_start = case("each is refused once (410) and has to list anew", again, move |rig, row| {
        let (flows, before) = (rig.flows("web"), lists(rig));
        let fault = rig.fault(&[refuse(410, json!({"on": {"verb": "watch"}, "times": 6}))]);
        rig.cut(watches(), true);
        let since = fault.since;
        let known = rig.appears("podway-410", since, PATIENCE);
        row.healed = Some(row.within("known", known.max(rig.well(since, PATIENCE)), HEALED));
        rig.end(fault);
        relists(rig, row, before, 6);
        kept(row, flows);
    });
    let paging = case("history is forgotten (410) between two pages of a list", again, |rig, row| {
        let world = rig.world;
        for number in 0..PAGES {
            rig.serve(&format!("many-{number}"));
        }
        rig.is_known(&format!("many-{}", PAGES - 1), Instant::now(), PATIENCE);
        let flows = rig.flows("web");
        let before = rig.requests("list", "services");
        let services = |verb: &str| json!({"verb": verb, "resource": "services"});
        let slow = rig.fault(&[
            json!({"fault": "delay", "millis": 600, "on": services("list")}),
            json!({"fault": "gone", "on": services("watch"), "times": 1}),
        ]);
        until("the second page is asked for", PATIENCE, || {
            (rig.requests("list", "services") >= before + 2).then_some(())
        });
        let since = Instant::now();
        rig.serve("podway-paging");
        world.cluster.ask(podway_minicluster::control::Request::Compact).unwrap();
        let known = rig.is_known("podway-paging", since, PATIENCE);
        rig.end(slow);
        row.healed = Some(row.within("known", known.max(rig.well(since, PATIENCE)), HEALED));
        row.figure(format!("{} requests for pages of services", rig.requests("list", "services") - before));
        rig.note(since, row);
        kept(row, flows);
    });
    Group {
        title: "Watches",
        connect: Some(VIA),
        cases: vec![
            at_start,
            events("each ends with 410 in mid-stream", again, || vec![json!({"fault": "gone", "times": 6})], 6),
            events("every event comes twice", again, || vec![json!({"fault": "duplicate_events"})], 0),
            events("each two events come in the wrong order", again, || vec![json!({"fault": "swap_events"})], 0),
            events(
                "events are lost before a 410, and those after the new list come twice and in the wrong order",
                again,
                || {
                    vec![
                        json!({"fault": "lose_events", "count": 2, "times": 6}),
                        json!({"fault": "duplicate_events"}),
                        json!({"fault": "swap_events"}),
                    ]
                },
                6,
            ),
            paging,
            while_cut(
                "all requests are too many for 6 s (429 with Retry-After)",
                again,
                || vec![json!({"fault": "refuse", "code": 429, "retry_after": 1})],
                TROUBLE,
            ),
            while_cut(
                "all requests fail for 6 s (500)",
                again,
                || vec![json!({"fault": "refuse", "code": 500, "message": "etcdserver: request timed out"})],
                TROUBLE,
            ),
        ],
    }
}

pub fn silence() -> Group {
    let half_open = case("they are half open: nothing comes any more", "what changed is known in 45 s", |rig, row| {
        let flows = rig.flows("web");
        let count = rig.connections(watches());
        let fault = rig.fault(&[json!({"fault": "black_hole", "on": watches(), "times": count})]);
        let since = fault.since;
        let known = rig.appears("podway-half-open", since, seconds(60));
        row.seen = Some(row.within("known", known, seconds(45)));
        rig.end(fault);
        rig.well(since, PATIENCE);
        row.figures.extend(rig.look.story_since(since));
        kept(row, flows);
    });
    let deaf = while_cut(
        "requests are taken and never answered for 12 s",
        "what changed is known in 5 s",
        || vec![json!({"fault": "hang"})],
        seconds(12),
    );
    Group { title: "Watches", connect: Some(VIA), cases: vec![deaf, half_open] }
}

/// A user who may watch some namespaces only.
pub fn of_one_namespace() -> Group {
    let refused = case(
        "the rights on one namespace are taken away (403), and given back",
        "the other namespace goes on; healed in 45 s",
        |rig, row| {
            let world = rig.world;
            let printed = world.podway(&["rbac", "-n", "demo", "--user", "none"]);
            for document in printed.out.split("\n---\n") {
                world.cluster.apply(serde_saphyr::from_str(document).unwrap()).unwrap();
            }
            let kubeconfig = world.cluster.kubeconfig("none").unwrap();
            rig.podway.connect(&["--kubeconfig", &kubeconfig]);
            rig.well(Instant::now(), PATIENCE);
            let flows = rig.flows("web");
            let on = |resource: &str| json!({"user": "none", "namespace": "demo", "resource": resource});
            let rules = ["pods", "services", "endpointslices"]
                .map(|resource| json!({"fault": "refuse", "code": 403, "on": on(resource)}));
            let fault = rig.fault(&rules);
            let since = fault.since;
            rig.cut(json!({"verb": "watch", "namespace": "demo"}), true);
            rig.look.until("it is told", PATIENCE, |status| !crate::look::lines(status).is_empty());
            row.seen = Some(row.within("seen", since.elapsed(), seconds(15)));
            rig.lasts(since, seconds(14));
            // What was known stays known, and what is open stays open.
            row.holds(rig.world.ws.lookup("web.demo.svc.cluster.local").is_ok(), || "a name is lost".to_owned());
            rig.serve("podway-403");
            let over = rig.end(fault);
            let known = rig.is_known("podway-403", over, seconds(90));
            row.healed = Some(row.within("known", known, seconds(45)));
            rig.well(over, PATIENCE);
            rig.note(since, row);
            kept(row, flows);
            world.podway(&["disconnect", "--all"]);
        },
    );
    Group { title: "Watches", connect: None, cases: vec![refused] }
}
