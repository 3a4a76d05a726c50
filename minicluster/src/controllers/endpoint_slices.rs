//! EndpointSlices: the pods behind each service, by address family and by the ports they have.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::pods;
use super::wanted::Wanted;
use super::world::World;
use crate::names;
use crate::object::{self, list, says, text};
use crate::resource::{ENDPOINT_SLICES, PODS, SERVICES};
use crate::selector;
use crate::store::Key;
use crate::strategy::Deletion;
use crate::time::Time;

const SERVICE: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const TRIGGERED: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Endpoints in one slice.
const MOST: usize = 100;

/// What services want. Those without a selector have slices of somebody else's.
pub fn wanted(world: &World, now: Time, wanted: &mut Wanted) {
    for service in world.list(&SERVICES) {
        let selects = service.pointer("/spec/selector").and_then(Value::as_object).is_some_and(|map| !map.is_empty());
        if selects && text(service, "/spec/type") != "ExternalName" && !object::is_going(service) {
            one(world, service, now, wanted);
        }
    }
}

/// What a slice says besides its names.
struct Content {
    family: String,
    ports: Value,
    endpoints: Value,
}

fn one(world: &World, service: &Arc<Value>, now: Time, wanted: &mut Wanted) {
    let selector = service.pointer("/spec/selector");
    let pods = world.list_in(&PODS, object::namespace(service));
    let pods = pods.filter(|pod| !pods::is_over(pod) && selector::matches_map(selector, &object::labels(pod)));
    let pods: Vec<_> = pods.map(|pod| (&**pod, ports(service, pod))).collect();
    let mut contents: Vec<Content> = Vec::new();
    for family in list(service, "/spec/ipFamilies").iter().filter_map(Value::as_str) {
        contents.extend(of_family(service, &pods, family));
    }
    let ours = |slice: &&Arc<Value>| {
        object::label(slice, SERVICE) == Some(object::name(service))
            && object::label(slice, MANAGED_BY) == Some(MANAGER)
            && object::is_controlled_by(slice, object::uid(service))
            && !object::is_going(slice)
    };
    let slices = world.list_in(&ENDPOINT_SLICES, object::namespace(service)).filter(ours);
    // Those of the same ports stay in place; others take over what is left; the rest goes.
    let (mut matched, mut free) = (Vec::new(), Vec::new());
    for slice in slices {
        let same = |content: &Content| slice["addressType"] == content.family && slice["ports"] == content.ports;
        match contents.iter().position(same) {
            Some(index) => matched.push((slice, contents.remove(index))),
            None => free.push(slice),
        }
    }
    for slice in free {
        match contents.iter().position(|content| slice["addressType"] == content.family) {
            Some(index) => matched.push((slice, contents.remove(index))),
            None => wanted.delete(slice, Deletion::default()),
        }
    }
    let labels = labels(service);
    for (slice, content) in matched {
        let same = slice["endpoints"] == content.endpoints && slice["ports"] == content.ports;
        if !same || slice["metadata"]["labels"] != labels {
            wanted.change(slice, |slice| fill(slice, &labels, content, now));
        }
    }
    for (index, content) in contents.into_iter().enumerate() {
        let name = object::name(service);
        let seed = [object::uid(service), &*world.revision().to_string(), &*index.to_string()];
        let key = Key::new(&ENDPOINT_SLICES, object::namespace(service), format!("{name}-{}", names::suffix(&seed)));
        let mut slice = json!({
            "metadata": {
                "generateName": format!("{name}-"), "ownerReferences": [object::controller_reference(service)],
            },
            "addressType": content.family,
        });
        fill(&mut slice, &labels, content, now);
        wanted.create(key, slice);
    }
}

fn labels(service: &Value) -> Value {
    let mut labels: Map<String, Value> =
        object::labels(service).into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    labels.insert(MANAGED_BY.to_owned(), json!(MANAGER));
    labels.insert(SERVICE.to_owned(), json!(object::name(service)));
    if text(service, "/spec/clusterIP") == "None" {
        labels.insert(HEADLESS.to_owned(), json!(""));
    }
    Value::Object(labels)
}

fn fill(slice: &mut Value, labels: &Value, content: Content, now: Time) {
    slice["metadata"]["labels"] = labels.clone();
    slice["ports"] = content.ports;
    slice["endpoints"] = content.endpoints;
    object::entries(slice, "/metadata/annotations").insert(TRIGGERED.to_owned(), json!(now.rfc3339()));
}

/// The slices of one family; an empty one where there are no endpoints.
fn of_family(service: &Value, pods: &[(&Value, Value)], family: &str) -> Vec<Content> {
    // Pods may resolve a port's name to different numbers: those are slices of their own.
    let mut by_ports: Vec<(&Value, Vec<Value>)> = Vec::new();
    for (pod, ports) in pods {
        let Some(address) = address(pod, family) else { continue };
        let endpoint = endpoint(service, pod, address);
        match by_ports.iter_mut().find(|(known, _)| *known == ports) {
            Some((_, endpoints)) => endpoints.push(endpoint),
            None => by_ports.push((ports, vec![endpoint])),
        }
    }
    let content = |ports: &Value, endpoints| Content { family: family.to_owned(), ports: ports.clone(), endpoints };
    if by_ports.is_empty() {
        return vec![content(&Value::Null, Value::Null)];
    }
    let chunks = by_ports.iter().flat_map(|(ports, endpoints)| endpoints.chunks(MOST).map(move |chunk| (ports, chunk)));
    chunks.map(|(ports, chunk)| content(ports, json!(chunk))).collect()
}

/// The pod's address of a family.
fn address<'a>(pod: &'a Value, family: &str) -> Option<&'a str> {
    let all = list(pod, "/status/podIPs").iter().map(|entry| text(entry, "/ip"));
    let mut all = all.chain([text(pod, "/status/podIP")]).filter(|address| !address.is_empty());
    all.find(|address| address.contains(':') == (family == "IPv6"))
}

fn endpoint(service: &Value, pod: &Value, address: &str) -> Value {
    let (serving, terminating) = (pods::is_ready(pod), object::is_going(pod));
    let early = says(service, "/spec/publishNotReadyAddresses");
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {"ready": early || (serving && !terminating), "serving": early || serving, "terminating": terminating},
        "targetRef": {
            "kind": "Pod", "namespace": object::namespace(pod), "name": object::name(pod), "uid": object::uid(pod),
        },
    });
    let node = text(pod, "/spec/nodeName");
    if !node.is_empty() {
        endpoint["nodeName"] = json!(node);
    }
    let hostname = text(pod, "/spec/hostname");
    if !hostname.is_empty() && text(pod, "/spec/subdomain") == object::name(service) {
        endpoint["hostname"] = json!(hostname);
    }
    endpoint
}

/// The service's ports as the pod has them. A name that the pod does not know is left out.
fn ports(service: &Value, pod: &Value) -> Value {
    let port = |port: &Value| {
        let protocol = text(port, "/protocol");
        let target = &port["targetPort"];
        let number = match target.as_str() {
            Some(name) => named(pod, name, protocol)?,
            None => target.as_i64().filter(|target| *target != 0).or_else(|| port["port"].as_i64())?,
        };
        let mut entry = json!({"name": text(port, "/name"), "port": number, "protocol": protocol});
        if let Some(application) = port.get("appProtocol") {
            entry["appProtocol"] = application.clone();
        }
        Some(entry)
    };
    list(service, "/spec/ports").iter().filter_map(port).collect()
}

fn named(pod: &Value, name: &str, protocol: &str) -> Option<i64> {
    let ports = list(pod, "/spec/containers").iter().flat_map(|container| list(container, "/ports"));
    let protocol_of = |port: &Value| text(port, "/protocol").to_owned();
    let mut matching = ports.filter(|port| text(port, "/name") == name);
    matching.find(|port| ["", protocol].contains(&&*protocol_of(port)))?["containerPort"].as_i64()
}

#[cfg(test)]
mod tests;
