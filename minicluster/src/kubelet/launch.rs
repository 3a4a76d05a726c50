//! What a container runs, read from its pod. No IO.

use std::net::IpAddr;

use serde_json::Value;

use super::container::{Obstacle, Waiting};
use crate::net::{CLUSTER_DNS, LAN_DNS, Pair};
use crate::object::{self, list, number, says, text};
use crate::pod_server::Resolver;

/// What a known image contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// The sample server: `serve`, `sleep`, or `exit CODE`.
    Sample,
    /// podway's agent.
    Agent,
    /// One for an architecture that no node has.
    Foreign,
}

impl Image {
    /// The image of a reference without a registry, with any tag.
    pub fn of(reference: &str) -> Option<Image> {
        match reference.split([':', '@']).next() {
            Some("podway-sample") => Some(Image::Sample),
            Some("podway-agent") => Some(Image::Agent),
            Some("podway-foreign") => Some(Image::Foreign),
            Some(_) | None => None,
        }
    }
}

/// A container as it is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// What.
    pub image: Image,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// User and group, where they are given.
    pub user: Option<(u32, u32)>,
    /// Whether it may gain rights that it does not begin with.
    pub may_gain_rights: bool,
    /// How the pod resolves names.
    pub resolver: Resolver,
    /// Whether it lives in the node's network.
    pub host_network: bool,
}

/// How the registry, which nobody reaches, answers.
fn not_found(reference: &str) -> String {
    let named = reference.split('/').next().is_some_and(|host| reference.contains('/') && host.contains(['.', ':']));
    let whole = match (named, reference.contains('/')) {
        (true, _) => reference.to_owned(),
        (false, true) => format!("docker.io/{reference}"),
        (false, false) => format!("docker.io/library/{reference}"),
    };
    format!(
        "rpc error: code = NotFound desc = failed to pull and unpack image \"{whole}\": failed to resolve image: \
         {whole}: not found"
    )
}

/// How to start a container of a pod with these addresses, or what keeps it from starting.
pub fn launch(pod: &Value, container: &Value, node: Pair, addresses: Pair) -> Result<Launch, Obstacle> {
    let reference = text(container, "/image");
    let Some(image) = Image::of(reference) else {
        if text(container, "/imagePullPolicy") == "Never" {
            let message = format!("Container image \"{reference}\" is not present with pull policy of Never");
            return Err(Obstacle::Config(Waiting { reason: "ErrImageNeverPull", message }));
        }
        return Err(Obstacle::Pull(not_found(reference)));
    };
    let refuse = |message: String| Obstacle::Config(Waiting { reason: "CreateContainerConfigError", message });
    let setting = |name: &str| {
        let own = container.pointer(&format!("/securityContext/{name}"));
        own.or_else(|| pod.pointer(&format!("/spec/securityContext/{name}")))
    };
    let id = |name: &str| setting(name).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    let user = id("runAsUser").map(|user| (user, id("runAsGroup").unwrap_or(0)));
    let not_root = setting("runAsNonRoot").is_some_and(|set| set == true);
    if not_root && user.is_none_or(|(user, _)| user == 0) {
        let why = if user.is_some() {
            "container's runAsUser breaks non-root policy"
        } else {
            "container has runAsNonRoot and image will run as root"
        };
        let whose = format!("pod: \"{}_{}({})\"", object::name(pod), object::namespace(pod), object::uid(pod));
        return Err(refuse(format!("{why} ({whose}, container: {})", text(container, "/name"))));
    }
    let mut env = Vec::new();
    for variable in list(container, "/env") {
        let name = text(variable, "/name").to_owned();
        let value = match variable.pointer("/valueFrom/fieldRef/fieldPath").and_then(Value::as_str) {
            Some(path) => {
                field(pod, path, node, addresses).ok_or_else(|| refuse(format!("{name}: no field {path}")))?
            }
            None if variable.get("valueFrom").is_some() => {
                return Err(refuse(format!("{name}: only fields can be referred to here")));
            }
            None => text(variable, "/value").to_owned(),
        };
        env.push((name, value));
    }
    let words = |path: &str| list(container, path).iter().filter_map(Value::as_str).map(ToOwned::to_owned);
    Ok(Launch {
        image,
        args: words("/args").collect(),
        env,
        user,
        may_gain_rights: setting("allowPrivilegeEscalation").is_none_or(|set| set != false),
        resolver: resolver(pod),
        host_network: says(pod, "/spec/hostNetwork"),
    })
}

/// A field of the pod, as the downward API names it.
fn field(pod: &Value, path: &str, node: Pair, addresses: Pair) -> Option<String> {
    let both = |pair: Pair| format!("{},{}", pair.v4, pair.v6);
    let of_map = |prefix: &str, map: &str| {
        let key = path.strip_prefix(prefix)?.strip_suffix("']")?;
        Some(pod["metadata"][map][key].as_str().unwrap_or_default().to_owned())
    };
    match path {
        "metadata.name" | "metadata.namespace" | "metadata.uid" | "spec.nodeName" | "spec.serviceAccountName" => {
            Some(text(pod, &format!("/{}", path.replace('.', "/"))).to_owned())
        }
        "status.podIP" => Some(addresses.v4.to_string()),
        "status.podIPs" => Some(both(addresses)),
        "status.hostIP" => Some(node.v4.to_string()),
        "status.hostIPs" => Some(both(node)),
        _ => of_map("metadata.labels['", "labels").or_else(|| of_map("metadata.annotations['", "annotations")),
    }
}

/// How the pod resolves names, by its `dnsPolicy` and `dnsConfig`.
fn resolver(pod: &Value) -> Resolver {
    let policy = text(pod, "/spec/dnsPolicy");
    let of_node = policy == "Default" || (policy != "ClusterFirstWithHostNet" && says(pod, "/spec/hostNetwork"));
    let mut resolver = if policy == "None" {
        Resolver { ndots: 1, ..Resolver::default() }
    } else if of_node {
        Resolver { servers: vec![LAN_DNS.v4.into()], search: Vec::new(), ndots: 1 }
    } else {
        let search = [format!("{}.svc", object::namespace(pod)), "svc".to_owned()];
        let search = search.iter().map(|name| format!("{name}.{DOMAIN}")).chain([DOMAIN.to_owned()]);
        Resolver { servers: vec![CLUSTER_DNS.v4.into()], search: search.collect(), ndots: 5 }
    };
    let words = |path: &str| list(pod, path).iter().filter_map(Value::as_str);
    resolver.servers.extend(words("/spec/dnsConfig/nameservers").filter_map(|server| server.parse::<IpAddr>().ok()));
    resolver.search.extend(words("/spec/dnsConfig/searches").map(ToOwned::to_owned));
    let options = list(pod, "/spec/dnsConfig/options").iter();
    let mut ndots = options
        .filter(|option| text(option, "/name") == "ndots")
        .filter_map(|option| text(option, "/value").parse().ok());
    resolver.ndots = ndots.next_back().unwrap_or(resolver.ndots);
    resolver
}

/// The cluster's domain.
pub const DOMAIN: &str = "cluster.local";

/// What is asked to learn whether a container serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The port.
    pub port: u16,
    /// What is asked over HTTP; nothing if a connection will do.
    pub path: Option<String>,
    /// Seconds between two questions.
    pub period: u32,
    /// Seconds for an answer.
    pub patience: u32,
    /// Failures in a row that count.
    pub failures: u32,
}

/// A container's readiness probe, if it has one that is understood.
pub fn probe(container: &Value) -> Option<Probe> {
    let probe = container.get("readinessProbe")?;
    let http = probe.get("httpGet");
    let target = http.or_else(|| probe.get("tcpSocket"))?.get("port")?;
    let named = list(container, "/ports").iter().find(|port| &port["name"] == target);
    let port = named.map_or(target, |port| &port["containerPort"]);
    let count = |path: &str, default: u32| {
        number(probe, path).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(default)
    };
    Some(Probe {
        port: port.as_u64().and_then(|port| u16::try_from(port).ok())?,
        path: http.map(|http| http["path"].as_str().unwrap_or("/").to_owned()),
        period: count("/periodSeconds", 10),
        patience: count("/timeoutSeconds", 1),
        failures: count("/failureThreshold", 3),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(container: Value) -> Value {
        json!({
            "metadata": {"name": "web-1", "namespace": "demo", "uid": "u-1", "labels": {"app": "web"}},
            "spec": {"nodeName": "node1", "containers": [container]},
        })
    }

    fn launched(pod: &Value) -> Result<Launch, Obstacle> {
        launch(pod, &pod["spec"]["containers"][0], crate::net::NODE, crate::net::PODS.nth(5).unwrap())
    }

    #[test]
    fn the_environment_tells_what_the_pod_asks_for() {
        let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let env = json!([
            {"name": "PLAIN", "value": "x"}, field("UID", "metadata.uid"), field("NODE", "spec.nodeName"),
            field("IP", "status.podIP"), field("APP", "metadata.labels['app']"),
        ]);
        let pod = pod(json!({"name": "a", "image": "podway-agent:dev", "args": ["serve"], "env": env}));
        let launch = launched(&pod).unwrap();
        let env: Vec<_> = launch.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(env, ["PLAIN=x", "UID=u-1", "NODE=node1", "IP=10.42.0.5", "APP=web"]);
        assert_eq!((launch.image, launch.may_gain_rights), (Image::Agent, true));
        assert_eq!(
            launch.resolver.resolv_conf(),
            "search demo.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.43.0.10\noptions ndots:5\n"
        );
    }

    #[test]
    fn unknown_images_are_not_found_and_root_is_refused_where_it_may_not_be() {
        for (reference, whole) in [
            ("nginx:1", "docker.io/library/nginx:1"),
            ("a/b:1", "docker.io/a/b:1"),
            ("r.example/podway-agent:1", "r.example/podway-agent:1"),
        ] {
            let Err(Obstacle::Pull(message)) = launched(&pod(json!({"name": "a", "image": reference}))) else {
                panic!("{reference} is known")
            };
            assert!(message.contains(&format!("image \"{whole}\"")), "{message}");
        }
        let strict = json!({"name": "a", "image": "podway-sample:dev", "securityContext": {"runAsNonRoot": true}});
        let mut pod = pod(strict);
        let Err(Obstacle::Config(waiting)) = launched(&pod) else { panic!("root is allowed") };
        assert_eq!(waiting.reason, "CreateContainerConfigError");
        pod["spec"]["securityContext"] = json!({"runAsUser": 65532, "runAsGroup": 7});
        assert_eq!(launched(&pod).unwrap().user, Some((65532, 7)));
    }

    #[test]
    fn a_probe_finds_its_port_by_name() {
        let container = json!({
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 2},
        });
        let wanted = Probe { port: 8080, path: Some("/healthz".to_owned()), period: 2, patience: 1, failures: 3 };
        assert_eq!(probe(&container), Some(wanted));
        assert_eq!(probe(&json!({"readinessProbe": {"tcpSocket": {"port": 80}}})).unwrap().path, None);
        assert_eq!(probe(&json!({})), None);
    }
}
