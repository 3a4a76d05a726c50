//! What ten thousand pods cost in memory once their list is done.
//!
//! In a binary of its own: the allocator counts everything that the process allocates.
#![expect(unsafe_code, reason = "a global allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use podway::actors::pod_watcher::core::{Effect, Input, PodWatcherCore};
use podway::actors::pod_watcher::decode::{Names, Object};
use podway::actors::pod_watcher::facts::{Event, Kind, WatchId};
use podway::actors::shell::Core as _;
use podway::ids::{Attempt, Millis};
use serde_json::{Value, json};

const PODS: usize = 10_000;
const PAGE: usize = 500;
const MOST: usize = 12 << 20;

struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

/// What glibc takes for a request: a header of 8 bytes, multiples of 16, 32 at least.
fn chunk(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call goes to the system's allocator unchanged; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(chunk(layout), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(chunk(layout), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A pod as a cluster with a service mesh shows it.
fn pod(n: usize) -> Value {
    let app = format!("service-{}", n / 4);
    let hash = format!("{:09x}", n / 4);
    let namespace = format!("team-{}", n % 50);
    let name = format!("{app}-{hash}-{:05x}", n * 7919 % 0xf_ffff);
    let uid = format!("{n:08x}-1c2d-4e3f-8a9b-{n:012x}");
    let image = format!("registry.example/team/{app}:1.{}.0", n % 9);
    let container = |name: &str| {
        let env: Vec<Value> = (0..12).map(|e| json!({"name": format!("SETTING_{e}"), "value": "some value"})).collect();
        json!({
            "name": name, "image": image, "args": ["--port", "8080", "--verbose"], "env": env,
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "resources": {"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10},
            "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/token", "readOnly": true}],
        })
    };
    let status = |name: &str| {
        json!({
            "name": name, "ready": true, "restartCount": 0, "image": image, "imageID": format!("{image}@sha256:{n:064x}"),
            "containerID": format!("containerd://{n:064x}"), "started": true,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        })
    };
    let condition = |name: &str| json!({"type": name, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let conditions = Value::from(["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition).to_vec());
    let mut ephemeral = json!([]);
    if n.is_multiple_of(100) {
        ephemeral = json!([{"name": "podway-agent-1a2b3c4d-1", "image": "registry.example/podway-agent:1",
            "args": ["serve", "--listen", "127.0.0.1:20000", "--authorized-key", "a".repeat(44)]}]);
    }
    json!({
        "metadata": {
            "name": name, "namespace": namespace, "uid": uid, "resourceVersion": n.to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app.kubernetes.io/name": app, "pod-template-hash": hash, "team": "a", "version": "1"},
            "annotations": {
                "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z",
                "mesh.example/status": "x".repeat(400),
            },
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-{hash}"),
                "uid": uid, "controller": true, "blockOwnerDeletion": true}],
            "managedFields": [{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
                "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {".": {}, "f:image": {}, "f:env": {}}}}}}],
        },
        "spec": {
            "nodeName": format!("node-{}", n % 200), "serviceAccountName": "default", "restartPolicy": "Always",
            "containers": [container("app"), container("proxy"), container("logs")],
            "ephemeralContainers": ephemeral,
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
            "volumes": [{"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
        },
        "status": {
            "phase": "Running", "hostIP": "192.0.2.1", "qosClass": "Burstable",
            "podIP": format!("10.{}.{}.{}", 1 + n / 65_536, n / 256 % 256, n % 256),
            "podIPs": [{"ip": format!("10.{}.{}.{}", 1 + n / 65_536, n / 256 % 256, n % 256)}],
            "conditions": conditions,
            "containerStatuses": [status("app"), status("proxy"), status("logs")],
        },
    })
}

/// Handles an input and returns the effects, as the shell does.
fn drive(core: &mut PodWatcherCore, now: u64, input: Input) -> Vec<Effect> {
    core.handle(Millis(now), input);
    std::iter::from_fn(|| core.poll_effect()).collect()
}

fn tasks(effects: &[Effect]) -> Vec<(WatchId, Attempt)> {
    let start = |effect: &Effect| match effect {
        Effect::Start(id, attempt) => Some((id.clone(), *attempt)),
        Effect::Resume(_)
        | Effect::End(_)
        | Effect::AskRights(..)
        | Effect::TellPods(..)
        | Effect::TellInfo(..)
        | Effect::TellRecords(..)
        | Effect::TellRights(..)
        | Effect::TellHealth(..) => None,
    };
    effects.iter().filter_map(start).collect()
}

#[test]
fn ten_thousand_pods_fit() {
    let size = pod(1).to_string().len();
    assert!((3_000..9_000).contains(&size), "{size} bytes of JSON are not like a pod");
    let before = ALLOCATED.load(Ordering::Relaxed);

    let mut core = PodWatcherCore::new();
    let mut names = Names::default();
    let effects = drive(&mut core, 0, Input::Watch(["team-1".into()].into()));
    let mut published = None;
    for (id, attempt) in tasks(&effects) {
        // The worst case for what is derived: without nodes, each pod's address is a range of its own.
        let pages = if id.kind == Kind::Pods { PODS / PAGE } else { 0 };
        drive(&mut core, 1, Input::Observed(id.clone(), attempt, vec![Event::Init]));
        for page in 0..pages {
            let text = Value::from((page * PAGE..(page + 1) * PAGE).map(pod).collect::<Vec<_>>()).to_string();
            let objects: Vec<Object> = serde_json::from_str(&text).expect("pods");
            let events = objects.iter().map(|object| {
                let (key, fact) = object.entry(id.kind, &mut names);
                Event::InitApply(key, fact.expect("a pod"))
            });
            let events = events.collect();
            drive(&mut core, 1, Input::Observed(id.clone(), attempt, events));
        }
        for effect in drive(&mut core, 1, Input::Observed(id, attempt, vec![Event::InitDone])) {
            if let Effect::TellPods(_, pods) = effect {
                published = Some(pods);
            }
        }
    }
    drop(effects);

    let cost = ALLOCATED.load(Ordering::Relaxed) - before;
    let published: Arc<_> = published.expect("the pods were told");
    assert_eq!(published.pods.len(), PODS);
    assert!(core.poll_effect().is_none());
    println!("{PODS} pods of {size} bytes of JSON each stay as {cost} bytes: {} each", cost / PODS);
    assert!(cost <= MOST, "{cost} bytes");
}
