//! Parameters of lists and watches. Pure.

use serde_json::json;

use super::field_selector::FieldSelector;
use super::invalid::FieldError;
use super::label_selector::LabelSelector;
use super::request::Query;
use super::status::Status;
use crate::resource::Resource;

/// What a list or a watch is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Of these labels.
    pub labels: LabelSelector,
    /// With these fields.
    pub fields: FieldSelector,
    /// Where to begin.
    pub version: Version,
    /// Objects of one page.
    pub limit: Option<usize>,
    /// Where the page before ended.
    pub more: Option<String>,
    /// Seconds that a watch lasts.
    pub timeout: Option<u64>,
    /// Whether a watch tells how far it is.
    pub bookmarks: bool,
    /// Whether a watch begins with all there is, and says where that ends.
    pub initial_events: bool,
}

/// Where a list or a watch begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// At the newest state.
    #[default]
    Newest,
    /// At any state: `0`.
    Any,
    /// At that revision, or later; a watch goes on from it.
    From(u64),
    /// At exactly that revision.
    Exactly(u64),
}

impl ListOptions {
    /// Reads them.
    ///
    /// # Errors
    /// As a real API server refuses them.
    pub fn read(query: &Query, resource: &'static Resource, watch: bool) -> Result<ListOptions, Status> {
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default());
        let labels = labels.map_err(Status::bad_request)?;
        let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default());
        let fields = fields.map_err(Status::bad_request)?;
        let limit = number(query, "limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
        let timeout = number(query, "timeoutSeconds")?.and_then(|seconds| u64::try_from(seconds).ok());
        let more = query.get("continue").filter(|token| !token.is_empty()).map(str::to_owned);
        let version = query.get("resourceVersion").unwrap_or_default();
        let matching = query.get("resourceVersionMatch").unwrap_or_default();
        let errors = check(watch, version, matching, more.is_some(), query.get("sendInitialEvents").is_some());
        if !errors.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "ListOptions", "", &errors));
        }
        fields.check(resource).map_err(Status::bad_request)?;
        let exactly = matching == "Exact" || (matching.is_empty() && limit.is_some() && !watch);
        if more.is_some() && !matches!(version, "" | "0") {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let version = match version {
            "" => Version::Newest,
            "0" => Version::Any,
            text => {
                let version = text.parse().map_err(|_| bad_version(text))?;
                if exactly { Version::Exactly(version) } else { Version::From(version) }
            }
        };
        let bookmarks = query.flag("allowWatchBookmarks");
        let initial_events = query.flag("sendInitialEvents");
        Ok(ListOptions {
            labels,
            fields,
            version,
            limit,
            more,
            timeout: timeout.filter(|seconds| *seconds > 0),
            bookmarks,
            initial_events,
        })
    }

    /// Whether an object is asked for.
    pub fn matches(&self, object: &serde_json::Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }

    /// Whether any object is asked for.
    pub fn takes_all(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }
}

fn bad_version(text: &str) -> Status {
    let detail = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
    Status::bad_request(format!(
        "invalid resource version: {}",
        FieldError::invalid("resourceVersion", json!(text), &detail)
    ))
}

fn number(query: &Query, name: &str) -> Result<Option<i64>, Status> {
    let Some(text) = query.get(name) else { return Ok(None) };
    let bad = |_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
    text.parse().map(Some).map_err(bad)
}

fn check(watch: bool, version: &str, matching: &str, more: bool, initial: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut forbid = |field: &str, text: &str| errors.push(FieldError::forbidden(field, text));
    let field = "resourceVersionMatch";
    if watch {
        if initial && matching != "NotOlderThan" {
            forbid(field, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        if !matching.is_empty() && !initial {
            forbid(field, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
        }
        if !matching.is_empty() && matching != "NotOlderThan" {
            errors.push(FieldError::not_supported(field, json!(matching), &["NotOlderThan"]));
        }
        return errors;
    }
    if !matching.is_empty() {
        if version.is_empty() {
            forbid(field, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if more {
            forbid(field, "resourceVersionMatch is forbidden when continue is provided");
        }
        if matching == "Exact" && version == "0" {
            forbid(field, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
        if matching != "Exact" && matching != "NotOlderThan" {
            let known = ["Exact", "NotOlderThan", ""];
            errors.push(FieldError::not_supported(field, json!(matching), &known));
        }
    }
    if initial {
        errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::PODS;

    fn read(query: &str, watch: bool) -> Result<ListOptions, Status> {
        ListOptions::read(&Query::parse(query), &PODS, watch)
    }

    #[test]
    fn what_is_asked_for_is_read_and_the_rest_ignored() {
        let options = read("limit=500&resourceVersion=0&unknown=x&labelSelector=a%3Db&pretty=true", false).unwrap();
        assert_eq!((options.limit, options.version), (Some(500), Version::Any));
        assert!(!options.takes_all());
        assert_eq!(read("resourceVersion=7", true).unwrap().version, Version::From(7));
        assert_eq!(read("resourceVersion=7&limit=1", false).unwrap().version, Version::Exactly(7));
        assert_eq!(read("timeoutSeconds=0&limit=-1", true).unwrap(), ListOptions::default());
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(read("limit=x", false).unwrap_err().message, "strconv.ParseInt: parsing \"x\": invalid syntax");
        assert_eq!(read("resourceVersionMatch=Exact", false).unwrap_err().code, 422);
        assert_eq!(read("sendInitialEvents=true", true).unwrap_err().code, 422);
        assert_eq!(read("resourceVersion=x", false).unwrap_err().code, 400);
        assert_eq!(
            read("fieldSelector=spec.foo%3D1", false).unwrap_err().message,
            "field label not supported: spec.foo"
        );
    }
}
