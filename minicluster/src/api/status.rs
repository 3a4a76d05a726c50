//! What the API server answers instead of an object: `metav1.Status`, in the words of Kubernetes 1.34. Pure.

use serde_json::{Value, json};

use super::invalid::FieldError;
use crate::resource::Resource;

/// A refusal or a failure.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine readable.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// What it is about.
    pub details: Option<Value>,
    /// Seconds after which trying again makes sense.
    pub retry_after: Option<u32>,
}

/// `pods`, `deployments.apps`.
pub fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

fn details(group: &str, kind: &str, name: &str) -> Value {
    let mut details = json!({});
    for (key, value) in [("group", group), ("kind", kind), ("name", name)] {
        if !value.is_empty() {
            details[key] = json!(value);
        }
    }
    details
}

impl Status {
    fn new(code: u16, reason: &'static str, message: String, details: Option<Value>) -> Status {
        Status { code, reason, message, details, retry_after: None }
    }

    /// The object is not there.
    pub fn not_found(resource: &Resource, name: &str) -> Status {
        let message = format!("{} {name:?} not found", qualified(resource.group, resource.plural));
        Status::new(404, "NotFound", message, Some(details(resource.group, resource.plural, name)))
    }

    /// One of that name is there.
    pub fn already_exists(resource: &Resource, name: &str) -> Status {
        let message = format!("{} {name:?} already exists", qualified(resource.group, resource.plural));
        Status::new(409, "AlreadyExists", message, Some(details(resource.group, resource.plural, name)))
    }

    /// Somebody else was faster, or a precondition is not met.
    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Status {
        let resource_name = qualified(resource.group, resource.plural);
        let message = format!("Operation cannot be fulfilled on {resource_name} {name:?}: {why}");
        Status::new(409, "Conflict", message, Some(details(resource.group, resource.plural, name)))
    }

    /// A precondition of a deletion is not met; here the kind stands where the resource stands elsewhere.
    pub fn conflict_of_kind(resource: &Resource, name: &str, why: &str) -> Status {
        let kind = qualified(resource.group, resource.kind);
        let message = format!("Operation cannot be fulfilled on {kind} {name:?}: {why}");
        Status::new(409, "Conflict", message, Some(details(resource.group, resource.kind, name)))
    }

    /// The user may not. Without a resource it is about a path.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Status {
        let message = match (resource, name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{} is forbidden: {why}", qualified(group, resource)),
            (_, _) => format!("{} {name:?} is forbidden: {why}", qualified(group, resource)),
        };
        Status::new(403, "Forbidden", message, Some(details(group, resource, name)))
    }

    /// Nobody knows who asks.
    pub fn unauthorized() -> Status {
        Status::new(401, "Unauthorized", "Unauthorized".to_owned(), None)
    }

    /// The request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::new(400, "BadRequest", message.into(), None)
    }

    /// The object cannot be so.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Status {
        let mut each: Vec<String> = Vec::new();
        for error in errors.iter().map(ToString::to_string) {
            if !each.contains(&error) {
                each.push(error);
            }
        }
        let all = match each.as_slice() {
            [] => String::new(),
            [one] => format!(": {one}"),
            more => format!(": [{}]", more.join(", ")),
        };
        let message = format!("{} {name:?} is invalid{all}", qualified(group, kind));
        let mut details = details(group, kind, name);
        if !errors.is_empty() {
            details["causes"] = errors.iter().map(FieldError::cause).collect();
        }
        Status::new(422, "Invalid", message, Some(details))
    }

    /// There is no such kind of patch.
    pub fn no_such_patch() -> Status {
        let message = "415: Unsupported Media Type".to_owned();
        Status::new(415, "UnsupportedMediaType", message, Some(json!({})))
    }

    /// There is no such type of answers.
    pub fn no_such_answer() -> Status {
        Status::new(406, "NotAcceptable", "406: Not Acceptable".to_owned(), Some(json!({})))
    }

    /// An error without a name.
    pub fn nameless(message: String) -> Status {
        Status::new(500, "", message, None)
    }

    /// The change does not fit the object.
    pub fn unprocessable() -> Status {
        let message = "the server rejected our request due to an error in our request".to_owned();
        Status::new(422, "Invalid", message, Some(json!({})))
    }

    /// What was asked for is forgotten.
    pub fn expired(message: impl Into<String>) -> Status {
        Status::new(410, "Expired", message.into(), None)
    }

    /// The resource knows no such verb.
    pub fn method_not_allowed() -> Status {
        let message = "the server does not allow this method on the requested resource".to_owned();
        Status::new(405, "MethodNotAllowed", message, Some(json!({})))
    }

    /// There is no such path.
    pub fn no_such_path() -> Status {
        Status::new(404, "NotFound", "the server could not find the requested resource".to_owned(), Some(json!({})))
    }

    /// The version that was asked for is still to come.
    pub fn too_large_version(asked: u64, current: u64) -> Status {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        let details = json!({"causes": [cause], "retryAfterSeconds": 1});
        Status { retry_after: Some(1), ..Status::new(504, "Timeout", message, Some(details)) }
    }

    /// The server has too much to do.
    pub fn too_many_requests(message: impl Into<String>, seconds: u32) -> Status {
        let details = (seconds > 0).then(|| json!({"retryAfterSeconds": seconds}));
        let status = Status::new(429, "TooManyRequests", message.into(), details);
        Status { retry_after: (seconds > 0).then_some(seconds), ..status }
    }

    /// The server, or what it relies on, fails.
    pub fn internal(why: &str) -> Status {
        let details = json!({"causes": [{"message": why}]});
        Status::new(500, "InternalError", format!("Internal error occurred: {why}"), Some(details))
    }

    /// The body has a type that the server does not read.
    pub fn unsupported_media_type(known: &[&str]) -> Status {
        let known = known.join(", ");
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {known}");
        Status::new(415, "UnsupportedMediaType", message, None)
    }

    /// The caller takes no type that the server writes.
    pub fn not_acceptable(known: &[&str]) -> Status {
        let known = known.join(", ");
        let message = format!("only the following media types are accepted: {known}");
        Status::new(406, "NotAcceptable", message, None)
    }

    /// A body that is larger than the server reads.
    pub fn too_large(limit: usize) -> Status {
        let message = format!("Request entity too large: limit is {limit}");
        Status::new(413, "RequestEntityTooLarge", message, None)
    }

    /// Any code, with the reason that belongs to it.
    pub fn of_code(code: u16, message: String) -> Status {
        let reason = match code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            410 => "Expired",
            422 => "Invalid",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "",
        };
        Status::new(code, reason, message, None)
    }

    /// As an object.
    pub fn body(&self) -> Value {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": self.code,
        });
        if !self.message.is_empty() {
            body["message"] = json!(self.message);
        }
        if !self.reason.is_empty() {
            body["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            body["details"] = details.clone();
        }
        body
    }
}

/// The answer to a change that leaves no object to show.
pub fn success(resource: &Resource, name: &str, uid: Option<&str>) -> Value {
    let mut details = details(resource.group, resource.plural, name);
    if let Some(uid) = uid {
        details["uid"] = json!(uid);
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{DEPLOYMENTS, PODS};

    #[test]
    fn texts_are_those_of_kubernetes() {
        assert_eq!(Status::not_found(&DEPLOYMENTS, "web").message, "deployments.apps \"web\" not found");
        assert_eq!(
            Status::not_found(&PODS, "a").body()["details"],
            json!({"kind": "pods", "name": "a"}),
            "the core group has no name"
        );
        let errors = [
            FieldError::required("spec.containers", ""),
            FieldError::invalid("metadata.name", json!("A"), "must be lower case"),
        ];
        assert_eq!(
            Status::invalid("", "Pod", "A", &errors).message,
            "Pod \"A\" is invalid: [spec.containers: Required value, \
             metadata.name: Invalid value: \"A\": must be lower case]"
        );
        assert_eq!(
            Status::invalid("", "Pod", "A", &errors[..1]).message,
            "Pod \"A\" is invalid: spec.containers: Required value"
        );
    }
}
