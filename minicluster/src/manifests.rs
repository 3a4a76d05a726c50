//! What the cluster begins with: its own objects, and the sample workloads.
//!
//! | Namespace | Workloads |
//! |---|---|
//! | `demo` | Deployments `web` (2), `db` (not root, headless service), `idle` (0); StatefulSet `store` (2, headless); DaemonSet `edge`; Pods `lone`, and `host` in the node's network |
//! | `other` | Deployment `api` |

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::net::{API, CLUSTER_DNS, NODE, PODS, Pair, SERVICES as SERVICE_RANGE};
use crate::resource::{
    DAEMON_SETS, DEPLOYMENTS, ENDPOINT_SLICES, NAMESPACES, NODES, PODS as POD_KIND, Resource, SERVICE_CIDRS, SERVICES,
    STATEFUL_SETS,
};
use crate::store::Key;

/// The image of the sample server.
pub const SAMPLE_IMAGE: &str = "podway-sample:dev";

/// Names of the sample workloads' namespaces.
pub const SAMPLE_NAMESPACES: [&str; 2] = ["demo", "other"];

/// Ports of the sample server. Addresses are not translated here: a service's port is its pods' own, so that HTTP is on
/// the usual 80 besides 8080.
const PORTS: [(&str, u16, &str); 7] = [
    ("http", 80, "TCP"),
    ("http-alt", 8080, "TCP"),
    ("echo", 9001, "TCP"),
    ("source", 9002, "TCP"),
    ("sink", 9003, "TCP"),
    ("echo-udp", 9004, "UDP"),
    ("reset", 9006, "TCP"),
];

/// Addresses of one node's pods: of the cluster's range the part that begins at `number` times this.
const PODS_OF_A_NODE: u32 = 256;

/// The cluster's own objects: namespaces, ranges, its DNS, itself as a service.
pub fn system() -> Vec<(Key, Value)> {
    let mut objects: Vec<(Key, Value)> = ["default", "kube-node-lease", "kube-public", "kube-system"]
        .map(|name| named(&NAMESPACES, "", name, json!({})))
        .into();
    let cidrs = [
        format!("{}/{}", SERVICE_RANGE.base.v4, SERVICE_RANGE.v4_len),
        format!("{}/{}", SERVICE_RANGE.base.v6, SERVICE_RANGE.v6_len),
    ];
    let ready = json!({"conditions": [{
        "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready",
    }]});
    objects.push(named(&SERVICE_CIDRS, "", "kubernetes", json!({"spec": {"cidrs": cidrs}, "status": ready})));
    let https = json!([{"name": "https", "port": 443, "targetPort": 6443}]);
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let first = SERVICE_RANGE.nth(1).unwrap_or(SERVICE_RANGE.base);
    let own = json!({"metadata": {"labels": labels}, "spec": {"clusterIP": first.v4.to_string(), "ports": https}});
    objects.push(named(&SERVICES, "default", "kubernetes", own));
    let port = json!([{"name": "https", "port": 6443, "protocol": "TCP"}]);
    objects.push(slice("default", "kubernetes", "kubernetes", API.v4.into(), port));
    objects.extend(dns());
    objects
}

/// The service of the cluster's DNS, which the node answers: it has no pods.
fn dns() -> Vec<(Key, Value)> {
    let ports = json!([
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]);
    let labels =
        json!({"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS", "kubernetes.io/cluster-service": "true"});
    let addresses = [CLUSTER_DNS.v4.to_string(), CLUSTER_DNS.v6.to_string()];
    let spec = json!({
        "clusterIP": addresses[0], "clusterIPs": addresses, "ipFamilyPolicy": "PreferDualStack", "ports": ports,
    });
    vec![
        named(&SERVICES, "kube-system", "kube-dns", json!({"metadata": {"labels": labels}, "spec": spec})),
        slice("kube-system", "kube-dns", "kube-dns-ipv4", NODE.v4.into(), ports.clone()),
        slice("kube-system", "kube-dns", "kube-dns-ipv6", NODE.v6.into(), ports),
    ]
}

/// An endpoint that no pod stands for.
fn slice(namespace: &str, service: &str, name: &str, address: IpAddr, ports: Value) -> (Key, Value) {
    let object = json!({
        "metadata": {"labels": {"kubernetes.io/service-name": service}},
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": ports,
    });
    named(&ENDPOINT_SLICES, namespace, name, object)
}

/// The addresses of the `number`th node, from 1 on.
pub fn node_addresses(number: u8) -> Pair {
    let more = number.saturating_sub(1);
    let last = NODE.v4.octets()[3].saturating_add(more);
    let [a, b, c, _] = NODE.v4.octets();
    Pair { v4: [a, b, c, last].into(), v6: (NODE.v6.to_bits() + u128::from(more)).into() }
}

/// The `number`th node, from 1 on, as its kubelet describes it: ready, with ranges for its pods.
pub fn node(number: u8, time: &str) -> (Key, Value) {
    let name = format!("node{number}");
    let first = PODS.nth(u32::from(number.saturating_sub(1)) * PODS_OF_A_NODE).unwrap_or(PODS.base);
    let ranges = [format!("{}/24", first.v4), format!("{}/120", first.v6)];
    let address = node_addresses(number);
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": time,
            "lastTransitionTime": time,
        })
    };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let room = json!({"cpu": "2", "memory": "4Gi", "ephemeral-storage": "8Gi", "pods": "110"});
    let object = json!({
        "metadata": {"labels": {
            "kubernetes.io/arch": arch, "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
        }},
        "spec": {"podCIDR": ranges[0], "podCIDRs": ranges},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": address.v4.to_string()},
                {"type": "InternalIP", "address": address.v6.to_string()},
                {"type": "Hostname", "address": name},
            ],
            "allocatable": room,
            "capacity": room,
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {
                "architecture": arch, "bootID": "", "containerRuntimeVersion": "namespaces://1", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "v1.34.1", "machineID": "", "operatingSystem": "linux",
                "osImage": "Linux", "systemUUID": "",
            },
        },
    });
    named(&NODES, "", &name, object)
}

/// The sample workloads and their services.
pub fn samples() -> Vec<(Key, Value)> {
    let mut objects: Vec<(Key, Value)> = SAMPLE_NAMESPACES.map(|name| named(&NAMESPACES, "", name, json!({}))).into();
    for (namespace, name, replicas) in [("demo", "web", 2), ("demo", "db", 1), ("demo", "idle", 0), ("other", "api", 1)]
    {
        let mut object = workload(name, json!({"replicas": replicas}));
        if name == "db" {
            let other = json!({"runAsUser": 65532, "runAsGroup": 65532, "runAsNonRoot": true});
            object["spec"]["template"]["spec"]["securityContext"] = other;
        }
        objects.push(named(&DEPLOYMENTS, namespace, name, object));
    }
    let store = json!({"replicas": 2, "serviceName": "store", "podManagementPolicy": "Parallel"});
    objects.push(named(&STATEFUL_SETS, "demo", "store", workload("store", store)));
    objects.push(named(&DAEMON_SETS, "demo", "edge", workload("edge", json!({}))));
    let lone = json!({"metadata": {"labels": {"app": "lone"}}, "spec": pod_spec()});
    objects.push(named(&POD_KIND, "demo", "lone", lone));
    let mut host = json!({"metadata": {"labels": {"app": "host"}}, "spec": pod_spec()});
    host["spec"]["hostNetwork"] = json!(true);
    host["spec"]["dnsPolicy"] = json!("ClusterFirstWithHostNet");
    objects.push(named(&POD_KIND, "demo", "host", host));
    for (namespace, name) in
        [("demo", "web"), ("demo", "db"), ("demo", "idle"), ("demo", "store"), ("demo", "edge"), ("other", "api")]
    {
        objects.push(named(&SERVICES, namespace, name, service(name)));
    }
    objects
}

fn named(resource: &'static Resource, namespace: &str, name: &str, object: Value) -> (Key, Value) {
    (Key::new(resource, namespace, name), object)
}

/// A workload whose pods are sample servers.
fn workload(name: &str, spec: Value) -> Value {
    let mut object = json!({"spec": spec});
    object["spec"]["selector"] = json!({"matchLabels": {"app": name}});
    object["spec"]["template"] = json!({"metadata": {"labels": {"app": name}}, "spec": pod_spec()});
    object
}

fn pod_spec() -> Value {
    let port = |(name, number, protocol): (&str, u16, &str)| json!({"name": name, "containerPort": number, "protocol": protocol});
    json!({
        "terminationGracePeriodSeconds": 2,
        "containers": [{
            "name": "server", "image": SAMPLE_IMAGE, "ports": PORTS.map(port),
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 2},
        }],
    })
}

/// The service of a workload, under both families where the cluster has both; `api`, as most services, under one.
fn service(name: &str) -> Value {
    let port = |(name, number, protocol): &(&str, u16, &str)| json!({"name": name, "port": number, "protocol": protocol, "targetPort": name});
    let ports: Vec<Value> = PORTS.iter().filter(|(name, ..)| *name != "http-alt").map(port).collect();
    let policy = if name == "api" { "SingleStack" } else { "PreferDualStack" };
    let mut spec = json!({"selector": {"app": name}, "ipFamilyPolicy": policy, "ports": ports});
    if ["db", "store"].contains(&name) {
        spec["clusterIP"] = json!("None");
    }
    json!({"spec": spec})
}

#[cfg(test)]
mod tests;
