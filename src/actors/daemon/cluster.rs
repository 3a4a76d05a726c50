//! What tells clusters apart, and connections to them.

use crate::spec::{ClusterAccess, ConnectSpec};

/// What tells clusters apart before one is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    server: String,
    /// What its certificate is asked for by name, and what a router before several clusters chooses by.
    server_name: Option<String>,
    proxy: Option<String>,
    authority: Option<String>,
}

impl Cluster {
    /// The cluster that this leads to.
    pub fn of(access: &ClusterAccess) -> Cluster {
        let authority = access.certificate_authority_data.as_ref().map(|pem| pem.trim().to_owned());
        let host = || access.server.parse::<http::Uri>().ok()?.host().map(str::to_owned);
        let server_name = access.tls_server_name.clone().or_else(host).map(|name| name.to_ascii_lowercase());
        Cluster { server: access.server.clone(), server_name, proxy: access.proxy_url.clone(), authority }
    }

    fn same_url(&self, other: &Cluster) -> bool {
        let url = |cluster: &Cluster| cluster.server.trim_end_matches('/').to_ascii_lowercase();
        url(self) == url(other)
    }

    /// Whether one server answers for both.
    pub fn same_server(&self, other: &Cluster) -> bool {
        self.same_url(other) && self.server_name == other.server_name
    }
}

/// Whether two connections would reach one cluster: one URL and one name in TLS, reached the same way, with no two
/// certificates to the contrary (a URL of this host can lead to one cluster today and to another tomorrow).
///
/// Two URLs of one cluster count as two: what tells clusters apart (the UID of `kube-system`) takes rights that podway
/// does without, and an authority may have signed for several.
pub fn same_cluster(a: &Cluster, b: &Cluster) -> bool {
    changed(a, b).is_empty()
}

/// In what the ways to two clusters differ, in words.
pub fn changed(a: &Cluster, b: &Cluster) -> Vec<&'static str> {
    let contrary = a.authority.is_some() && b.authority.is_some() && a.authority != b.authority;
    let pairs = [
        (!a.same_server(b), if a.same_url(b) { "the server's name in TLS" } else { "the API server" }),
        (a.proxy != b.proxy, "the proxy"),
        (contrary, "the certificate authority"),
    ];
    pairs.into_iter().filter_map(|(differs, part)| differs.then_some(part)).collect()
}

/// In what two connections differ: the way to the cluster, and flags as users spell them. The time limit is no part of it.
pub fn differences((a, at): (&ConnectSpec, &Cluster), (b, bt): (&ConnectSpec, &Cluster)) -> Vec<&'static str> {
    let pairs = [
        (a.namespace != b.namespace, "--namespace"),
        (a.proxy_via != b.proxy_via, "--proxy-via"),
        (a.also_proxy != b.also_proxy, "--also-proxy"),
        (a.never_proxy != b.never_proxy, "--never-proxy"),
        (a.vnat != b.vnat, "--vnat"),
        (a.allow_conflicting_subnets != b.allow_conflicting_subnets, "--allow-conflicting-subnets"),
        (a.agent != b.agent, "--agent"),
        (a.agent_image != b.agent_image, "--agent-image"),
        (a.dns != b.dns, "--dns"),
    ];
    let flags = pairs.into_iter().filter_map(|(differs, flag)| differs.then_some(flag));
    changed(at, bt).into_iter().chain(flags).collect()
}
