//! Watches.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Lines;
use crate::world::World;

fn service(name: &str, labels: Value) -> Value {
    let spec = json!({"clusterIP": "None", "selector": {"app": "x"}, "ports": [{"port": 80}]});
    json!({"metadata": {"name": name, "labels": labels}, "spec": spec})
}

async fn version(world: &World) -> String {
    let list = world.client.get(&world.path("services")).await.json();
    list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned()
}

fn show(world: &mut World, event: &Value) {
    let (object, labels) = (&event["object"]["metadata"]["name"], &event["object"]["metadata"]["labels"]);
    world.log.say(&format!("{} {object} {labels}", event["type"]));
}

async fn tell(world: &mut World, watch: &mut Lines, count: usize) -> Vec<Value> {
    let mut events = Vec::new();
    for _ in 0..count {
        let event = watch.next().await.expect("an event");
        show(world, &event);
        events.push(event);
    }
    events
}

fn number(event: &Value) -> u64 {
    event["object"]["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a version")
}

pub async fn changes_are_told_in_order(world: &mut World) {
    let path = world.path("services");
    let at = version(world).await;
    let mut watch = world.client.watch(&format!("{path}?watch=true&resourceVersion={at}&unknown=x")).await;
    world.log.say(&format!("{}", watch.code));
    world.make("services", &service("a", json!({"n": "1"}))).await;
    let change = json!({"metadata": {"labels": {"n": "2"}}});
    world.client.patch("merge", &format!("{path}/a"), &change).await;
    // The same again changes nothing.
    world.client.patch("merge", &format!("{path}/a"), &change).await;
    world.client.delete(&format!("{path}/a")).await;
    let events = tell(world, &mut watch, 3).await;
    world.log.value(&events[0]);
    let versions: Vec<u64> = events.iter().map(number).collect();
    world.log.say(&format!("versions rise: {}", versions.is_sorted_by(|one, other| one < other)));
    let quiet = watch.soon(Duration::from_millis(200)).await.is_none();
    world.log.say(&format!("nothing more: {quiet}"));
    world.log.say("again from the first one:");
    let mut again = world.client.watch(&format!("{path}?watch=1&resourceVersion={}", versions[0])).await;
    tell(world, &mut again, 2).await;
}

pub async fn what_leaves_the_selection_is_deleted(world: &mut World) {
    let path = world.path("services");
    let at = version(world).await;
    let from = format!("{path}?watch=1&resourceVersion={at}");
    let mut watch = world.client.watch(&format!("{from}&labelSelector=a%3D1")).await;
    let mut named = world.client.watch(&format!("{from}&fieldSelector=metadata.name%3Dy")).await;
    world.make("services", &service("x", json!({"a": "0"}))).await;
    for (value, n) in [("1", "1"), ("1", "2"), ("2", "3"), ("1", "4")] {
        let change = json!({"metadata": {"labels": {"a": value, "n": n}}});
        world.client.patch("merge", &format!("{path}/x"), &change).await;
    }
    world.make("services", &service("y", json!({"a": "1"}))).await;
    world.client.delete(&format!("{path}/x")).await;
    tell(world, &mut watch, 6).await;
    world.log.say("of one name:");
    tell(world, &mut named, 1).await;
}

pub async fn a_watch_begins_with_what_there_is(world: &mut World) {
    world.make("services", &service("a", json!({"n": "1"}))).await;
    world.make("services", &service("b", json!({"n": "2"}))).await;
    let path = world.path("services");
    for query in ["watch=1", "watch=1&resourceVersion=0", "watch=1&resourceVersion="] {
        let mut watch = world.client.watch(&format!("{path}?{query}")).await;
        world.log.say(query);
        let mut events = vec![watch.next().await.expect("an event"), watch.next().await.expect("an event")];
        events.sort_by_key(|event| event["object"]["metadata"]["name"].to_string());
        for event in &events {
            show(world, event);
        }
    }
}

pub async fn a_watch_ends_in_time_and_says_how_far_it_is(world: &mut World) {
    let path = world.path("services");
    let at = version(world).await;
    let begun = Instant::now();
    let mut watch = world.client.watch(&format!("{path}?watch=1&resourceVersion={at}&timeoutSeconds=1")).await;
    let end = watch.next().await;
    let lasted = begun.elapsed();
    world.log.say(&format!("it ends in order after a second: {}", (0.9..2.5).contains(&lasted.as_secs_f64())));
    world.log.say(&format!("without an event: {}", end.is_none()));
    let query = format!("watch=1&resourceVersion={at}&timeoutSeconds=4&allowWatchBookmarks=true");
    let mut watch = world.client.watch(&format!("{path}?{query}")).await;
    world.make("services", &service("a", json!({}))).await;
    let added = watch.next().await.expect("an event");
    world.log.say(&format!("{}", added["type"]));
    let bookmark = watch.next().await.expect("a bookmark");
    let object = &bookmark["object"];
    world.log.say(&format!("{} {} {}", bookmark["type"], object["kind"], object["apiVersion"]));
    world.log.say(&format!("it is as far as the event: {}", number(&bookmark) >= number(&added)));
    let mut rest = Vec::new();
    while let Some(event) = watch.next().await {
        rest.push(event["type"].clone());
    }
    // There may be another one before the end.
    world.log.say(&format!("then it ends: {}", rest.iter().all(|kind| kind == "BOOKMARK")));
}

pub async fn a_watch_from_long_ago_is_gone(world: &mut World) {
    let first = world.forgotten_version().await;
    let mut watch = world.client.watch(&first).await;
    world.log.say(&format!("{}", watch.code));
    let event = watch.next().await.expect("an event");
    world.log.value(&event);
    world.log.say(&format!("then it ends: {}", watch.next().await.is_none()));
}

pub async fn initial_events_end_with_a_bookmark(world: &mut World) {
    world.make("services", &service("a", json!({}))).await;
    let path = world.path("services");
    let query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = world.client.watch(&format!("{path}?{query}")).await;
    let added = watch.next().await.expect("an event");
    show(world, &added);
    let bookmark = watch.next().await.expect("a bookmark");
    world.log.say(&format!("{} {}", bookmark["type"], bookmark["object"]["metadata"]["annotations"]));
}
