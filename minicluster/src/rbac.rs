//! Who may do what: Roles, ClusterRoles and their bindings, evaluated. Pure, but for [`Policy::of`].
//!
//! Kubernetes 1.34, `pkg/registry/rbac/validation` and `plugin/pkg/auth/authorizer/rbac`.

pub mod profiles;

use std::ops::ControlFlow;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::resource::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES, Resource};
use crate::store::Store;

/// Somebody, with all groups they are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Name.
    pub name: String,
    /// Groups, `system:authenticated` among them.
    pub groups: Vec<String>,
}

/// What somebody wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `create` and so on; for paths the HTTP method in small letters.
    pub verb: String,
    /// API group; empty for the core group.
    pub group: String,
    /// Plural; empty where it is about a path.
    pub resource: String,
    /// Subresource, if any.
    pub subresource: String,
    /// Namespace; empty for all, or for what lives in none.
    pub namespace: String,
    /// Name; empty for all.
    pub name: String,
    /// The path, where it is about no resource.
    pub path: String,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether they may.
    pub allowed: bool,
    /// By which binding; or which roles are missing; may be empty.
    pub reason: String,
}

/// All roles and bindings.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    roles: Vec<Arc<Value>>,
    role_bindings: Vec<Arc<Value>>,
    cluster_roles: Vec<Arc<Value>>,
    cluster_role_bindings: Vec<Arc<Value>>,
}

impl Policy {
    /// Those of the store.
    pub fn of(store: &Store) -> Policy {
        let all = |resource: &'static Resource| store.list(resource, None).1;
        Policy {
            roles: all(&ROLES),
            role_bindings: all(&ROLE_BINDINGS),
            cluster_roles: all(&CLUSTER_ROLES),
            cluster_role_bindings: all(&CLUSTER_ROLE_BINDINGS),
        }
    }

    /// Whether somebody may do something.
    pub fn decide(&self, subject: &Subject, wanted: &Attributes) -> Decision {
        let mut missing = Vec::new();
        let found = self.visit(subject, &wanted.namespace, |seen| match seen {
            Seen::Rule(rule, by) if allows(rule, wanted) => ControlFlow::Break(by.describe()),
            Seen::Rule(..) => ControlFlow::Continue(()),
            Seen::Missing(what) => {
                missing.push(what);
                ControlFlow::Continue(())
            }
        });
        match found {
            Some(by) => Decision { allowed: true, reason: format!("RBAC: allowed by {by}") },
            None => Decision {
                allowed: false,
                reason: aggregate(&missing).map_or_else(String::new, |all| format!("RBAC: {all}")),
            },
        }
    }

    /// All rules that apply to somebody in a namespace: `status` of a SelfSubjectRulesReview.
    pub fn rules(&self, subject: &Subject, namespace: &str) -> Value {
        let (mut resources, mut paths, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        self.visit(subject, namespace, |seen| {
            match seen {
                Seen::Rule(rule, _) => {
                    if !texts(&rule["resources"]).is_empty() {
                        resources.push(part(rule, &["verbs", "apiGroups", "resources", "resourceNames"]));
                    }
                    if !texts(&rule["nonResourceURLs"]).is_empty() {
                        paths.push(part(rule, &["verbs", "nonResourceURLs"]));
                    }
                }
                Seen::Missing(what) => missing.push(what),
            }
            ControlFlow::<()>::Continue(())
        });
        let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false});
        if let Some(all) = aggregate(&missing) {
            status["evaluationError"] = json!(all);
        }
        status
    }

    fn visit<T>(
        &self,
        subject: &Subject,
        namespace: &str,
        mut visit: impl FnMut(Seen<'_>) -> ControlFlow<T>,
    ) -> Option<T> {
        let wide = self.cluster_role_bindings.iter().map(|binding| (binding, ""));
        let of = |binding: &&Arc<Value>| !namespace.is_empty() && binding["metadata"]["namespace"] == namespace;
        let local = self.role_bindings.iter().filter(of).map(|binding| (binding, namespace));
        for (binding, namespace) in wide.chain(local) {
            let applies = |one: &&Value| applies(one, subject, namespace);
            let Some(by) = binding["subjects"].as_array().into_iter().flatten().find(applies) else { continue };
            let by = By { binding, subject: by, namespace };
            match self.role(&binding["roleRef"], namespace) {
                Err(what) => {
                    if let ControlFlow::Break(found) = visit(Seen::Missing(what)) {
                        return Some(found);
                    }
                }
                Ok(role) => {
                    for rule in role["rules"].as_array().into_iter().flatten() {
                        if let ControlFlow::Break(found) = visit(Seen::Rule(rule, by)) {
                            return Some(found);
                        }
                    }
                }
            }
        }
        None
    }

    fn role(&self, reference: &Value, namespace: &str) -> Result<&Value, String> {
        let name = text(&reference["name"]);
        let kind = text(&reference["kind"]);
        let found = match kind {
            "Role" => self
                .roles
                .iter()
                .find(|role| role["metadata"]["name"] == name && role["metadata"]["namespace"] == namespace),
            "ClusterRole" => self.cluster_roles.iter().find(|role| role["metadata"]["name"] == name),
            other => return Err(format!("unsupported role reference kind: {other:?}")),
        };
        let missing = || format!("{}.rbac.authorization.k8s.io {name:?} not found", kind.to_lowercase());
        found.map(Arc::as_ref).ok_or_else(missing)
    }
}

enum Seen<'a> {
    Rule(&'a Value, By<'a>),
    Missing(String),
}

/// The binding that gives a rule, and to whom.
#[derive(Clone, Copy)]
struct By<'a> {
    binding: &'a Value,
    subject: &'a Value,
    namespace: &'a str,
}

impl By<'_> {
    fn describe(&self) -> String {
        let name = text(&self.binding["metadata"]["name"]);
        let (kind, name) = match self.namespace {
            "" => ("ClusterRoleBinding", name.to_owned()),
            namespace => ("RoleBinding", format!("{name}/{namespace}")),
        };
        let role = &self.binding["roleRef"];
        let subject = match (text(&self.subject["kind"]), text(&self.subject["namespace"])) {
            ("ServiceAccount", "") => format!("{}/{}", text(&self.subject["name"]), self.namespace),
            ("ServiceAccount", namespace) => format!("{}/{namespace}", text(&self.subject["name"])),
            (_, _) => text(&self.subject["name"]).to_owned(),
        };
        let (role_kind, role_name) = (text(&role["kind"]), text(&role["name"]));
        format!("{kind} {name:?} of {role_kind} {role_name:?} to {} {subject:?}", text(&self.subject["kind"]))
    }
}

fn applies(to: &Value, subject: &Subject, namespace: &str) -> bool {
    let name = text(&to["name"]);
    match text(&to["kind"]) {
        "User" => subject.name == name,
        "Group" => subject.groups.iter().any(|group| group == name),
        "ServiceAccount" => {
            let own = text(&to["namespace"]);
            let namespace = if own.is_empty() { namespace } else { own };
            !namespace.is_empty() && subject.name == format!("system:serviceaccount:{namespace}:{name}")
        }
        _ => false,
    }
}

fn allows(rule: &Value, wanted: &Attributes) -> bool {
    let has = |field: &str, value: &str| texts(&rule[field]).iter().any(|one| *one == "*" || *one == value);
    if !has("verbs", &wanted.verb) {
        return false;
    }
    if wanted.resource.is_empty() {
        let covers = |url: &&str| *url == "*" || *url == wanted.path || is_prefix(url, &wanted.path);
        return texts(&rule["nonResourceURLs"]).iter().any(covers);
    }
    let names = texts(&rule["resourceNames"]);
    let resource = if wanted.subresource.is_empty() {
        has("resources", &wanted.resource)
    } else {
        has("resources", &format!("{}/{}", wanted.resource, wanted.subresource))
            || has("resources", &format!("*/{}", wanted.subresource))
    };
    has("apiGroups", &wanted.group) && resource && (names.is_empty() || names.contains(&wanted.name.as_str()))
}

fn is_prefix(url: &str, path: &str) -> bool {
    url.ends_with('*') && path.starts_with(url.trim_end_matches('*'))
}

fn aggregate(errors: &[String]) -> Option<String> {
    match errors {
        [] => None,
        [one] => Some(one.clone()),
        more => Some(format!("[{}]", more.join(", "))),
    }
}

fn part(rule: &Value, fields: &[&str]) -> Value {
    let mut part = json!({});
    for field in fields {
        if let Some(value) = rule.get(field) {
            part[*field] = value.clone();
        }
    }
    part
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[cfg(test)]
mod tests;
