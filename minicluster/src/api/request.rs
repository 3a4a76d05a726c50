//! What a request is about: verb, resource, namespace, name, parameters. Pure.
//!
//! Kubernetes 1.34, `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.

use form_urlencoded::parse;
use http::Method;
use percent_encoding::percent_decode_str;

use super::field_selector::FieldSelector;
use super::names;
use crate::rbac::Attributes;

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// The method that was used.
    pub method: Method,
    /// Verb, group, resource, subresource, namespace, name; or verb and path.
    pub attributes: Attributes,
    /// API version; empty where it is about no resource.
    pub version: String,
    /// The path, decoded.
    pub path: String,
    /// What follows the subresource.
    pub rest: Vec<String>,
    /// The parameters.
    pub query: Query,
}

/// The parameters of a request. Unknown ones are there and nobody asks for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string.
    pub fn parse(text: &str) -> Query {
        Query(parse(text.as_bytes()).into_owned().collect())
    }

    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of that name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a flag is set: to anything but `false` and `0`.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }
}

impl RequestInfo {
    /// Reads method, path and query.
    pub fn of(method: &Method, path: &str, query: &str) -> RequestInfo {
        let path = percent_decode_str(path).decode_utf8_lossy().into_owned();
        let mut info = RequestInfo {
            method: method.clone(),
            attributes: Attributes { verb: method.as_str().to_lowercase(), ..Attributes::default() },
            query: Query::parse(query),
            ..RequestInfo::default()
        };
        let trimmed = path.trim_matches('/');
        let parts: Vec<&str> = if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() };
        match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => info.resource("", version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => info.resource(group, version, rest),
            _ => info.attributes.path.clone_from(&path),
        }
        info.path = path;
        info
    }

    fn resource(&mut self, group: &str, version: &str, parts: &[&str]) {
        self.attributes.group = group.to_owned();
        self.version = version.to_owned();
        // `namespaces/demo/status` is about the namespace, `namespaces/demo/pods` about pods in it.
        let (namespace, parts) = match parts {
            ["namespaces", namespace, "status" | "finalize", ..] | ["namespaces", namespace] => (*namespace, parts),
            ["namespaces", namespace, rest @ ..] => (*namespace, rest),
            _ => ("", parts),
        };
        let mut parts = parts.iter().map(|part| (*part).to_owned());
        let wanted = &mut self.attributes;
        wanted.namespace = namespace.to_owned();
        wanted.resource = parts.next().unwrap_or_default();
        wanted.name = parts.next().unwrap_or_default();
        wanted.subresource = parts.next().unwrap_or_default();
        self.rest = parts.collect();
        let many = wanted.name.is_empty();
        wanted.verb = match (&self.method, many) {
            (&Method::GET | &Method::HEAD, true) if self.query.flag("watch") => "watch",
            (&Method::GET | &Method::HEAD, true) => "list",
            (&Method::GET | &Method::HEAD, false) => "get",
            (&Method::POST, _) => "create",
            (&Method::PUT, _) => "update",
            (&Method::PATCH, _) => "patch",
            (&Method::DELETE, true) => "deletecollection",
            (&Method::DELETE, false) => "delete",
            (_, _) => "",
        }
        .to_owned();
        // Rights for one name cover lists and watches of that one.
        if many
            && matches!(wanted.verb.as_str(), "list" | "watch")
            && let Some(selector) = self.query.get("fieldSelector")
            && let Ok(selector) = FieldSelector::parse(selector)
            && let Some(name) = selector.name()
            && names::path_segment(name).is_empty()
        {
            name.clone_into(&mut wanted.name);
        }
    }

    /// Whether it is about a resource, and not about a path.
    pub fn is_resource(&self) -> bool {
        !self.attributes.resource.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, path: &str) -> RequestInfo {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        RequestInfo::of(&method.parse().unwrap(), path, query)
    }

    #[test]
    fn paths_of_resources_are_taken_apart() {
        for (method, path, wanted) in [
            ("GET", "/api/v1/pods", "list  pods  "),
            ("GET", "/api/v1/namespaces/demo/pods?watch=1", "watch demo pods  "),
            ("GET", "/api/v1/namespaces/demo/pods?watch=false", "list demo pods  "),
            ("GET", "/api/v1/namespaces/demo/pods/web", "get demo pods web "),
            ("GET", "/api/v1/namespaces/demo/pods/web/portforward?ports=1", "get demo pods web portforward"),
            ("GET", "/api/v1/namespaces/demo", "get demo namespaces demo "),
            ("PUT", "/api/v1/namespaces/demo/finalize", "update demo namespaces demo finalize"),
            ("GET", "/api/v1/namespaces", "list  namespaces  "),
            ("DELETE", "/apis/apps/v1/namespaces/demo/deployments", "deletecollection demo deployments  "),
            ("PATCH", "/apis/apps/v1/namespaces/demo/deployments/web/scale", "patch demo deployments web scale"),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dweb", "list  pods web "),
        ] {
            let got = of(method, path).attributes;
            let got = [got.verb, got.namespace, got.resource, got.name, got.subresource].join(" ");
            assert_eq!(got, wanted, "{method} {path}");
        }
        let deployments = of("GET", "/apis/apps/v1/deployments");
        assert_eq!((deployments.attributes.group.as_str(), deployments.version.as_str()), ("apps", "v1"));
    }

    #[test]
    fn other_paths_are_about_themselves() {
        for path in ["/", "/api", "/api/v1", "/apis", "/apis/apps/v1", "/version", "/readyz/ping", "/x/v1/pods"] {
            let info = of("GET", path);
            assert!(!info.is_resource(), "{path}");
            assert_eq!((info.attributes.verb.as_str(), info.attributes.path.as_str()), ("get", path));
        }
    }

    #[test]
    fn flags_are_set_by_nearly_anything() {
        for (query, set) in
            [("a=true", true), ("a=", true), ("a", true), ("a=False", false), ("a=0", false), ("", false)]
        {
            assert_eq!(Query::parse(query).flag("a"), set, "{query}");
        }
    }
}
