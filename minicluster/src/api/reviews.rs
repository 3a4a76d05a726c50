//! Who am I, and what may I: reviews of one's own rights.

use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::invalid::FieldError;
use super::request::RequestInfo;
use super::status::Status;
use crate::object::text;
use crate::rbac::{Attributes, Policy, Subject};

/// Kinds of reviews, for discovery: group, plural, kind.
pub const KINDS: [(&str, &str, &str); 3] = [
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
];

/// Answers a review.
pub fn answer(policy: &Policy, subject: &Subject, info: &RequestInfo, body: &[u8]) -> Result<Answer, Status> {
    let wanted = &info.attributes;
    let known = KINDS.into_iter().find(|(group, plural, _)| *group == wanted.group && *plural == wanted.resource);
    let Some((group, _, kind)) = known.filter(|_| info.version == "v1" && wanted.name.is_empty()) else {
        return Ok(answer::nowhere());
    };
    if wanted.verb != "create" {
        return Err(Status::method_not_allowed());
    }
    let bad = |error| {
        let text = format!("the object provided is unrecognized (must be of type {kind}): {error}");
        Status::bad_request(text)
    };
    let review: Value = serde_json::from_slice(body).map_err(bad)?;
    let mut spec = review.get("spec").cloned().unwrap_or_else(|| json!({}));
    let status = match kind {
        "SelfSubjectAccessReview" => {
            let status = access(policy, subject, &spec)?;
            for part in ["resourceAttributes", "nonResourceAttributes"] {
                if let Some(part) = spec.get_mut(part).and_then(Value::as_object_mut) {
                    part.retain(|_, value| *value != "");
                }
            }
            status
        }
        "SelfSubjectRulesReview" => {
            let namespace = text(&spec, "/namespace");
            if namespace.is_empty() {
                return Err(Status::bad_request("no namespace on request"));
            }
            let status = policy.rules(subject, namespace);
            spec = json!({});
            status
        }
        _ => json!({"userInfo": {"username": subject.name, "groups": subject.groups}}),
    };
    let review = json!({
        "kind": kind, "apiVersion": format!("{group}/v1"), "metadata": {}, "spec": spec, "status": status,
    });
    Ok(answer::json(201, &review))
}

fn access(policy: &Policy, subject: &Subject, spec: &Value) -> Result<Value, Status> {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    // A real API server has forgotten the kind by then.
    let refused = |error| Status::invalid("authorization.k8s.io", "", "", &[error]);
    let of = |part: &Value, field: &str| part[field].as_str().unwrap_or_default().to_owned();
    let wanted = match (resource.is_object(), path.is_object()) {
        (true, false) => Attributes {
            verb: of(resource, "verb"),
            group: of(resource, "group"),
            resource: of(resource, "resource"),
            subresource: of(resource, "subresource"),
            namespace: of(resource, "namespace"),
            name: of(resource, "name"),
            path: String::new(),
        },
        (false, true) => Attributes { verb: of(path, "verb"), path: of(path, "path"), ..Attributes::default() },
        (true, true) => {
            let text = "cannot be specified in combination with resourceAttributes";
            let shown = json!({"Path": of(path, "path"), "Verb": of(path, "verb")});
            return Err(refused(FieldError::invalid("spec.nonResourceAttributes", shown, text)));
        }
        (false, false) => {
            let text = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            return Err(refused(FieldError::invalid("spec.resourceAttributes", Value::Null, text)));
        }
    };
    let decision = policy.decide(subject, &wanted);
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        status["reason"] = json!(decision.reason);
    }
    Ok(status)
}
