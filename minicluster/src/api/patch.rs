//! Patches of each kind, applied to an object. Pure.

use serde_json::Value;

use super::status::Status;
use super::strategic;
use crate::resource::Resource;

/// Media types of patches, as refusals name them.
pub const MEDIA_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// What kind of patch it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own.
    Strategic,
    /// Server-side apply. Here it merges as a strategic one does: nobody owns fields.
    Apply,
}

impl PatchKind {
    /// By the media type of the body.
    pub fn of(media_type: &str) -> Option<PatchKind> {
        let [json, merge, strategic, apply] = MEDIA_TYPES;
        match media_type {
            it if it == json => Some(PatchKind::Json),
            it if it == merge => Some(PatchKind::Merge),
            it if it == strategic => Some(PatchKind::Strategic),
            it if it == apply => Some(PatchKind::Apply),
            _ => None,
        }
    }
}

/// Applies a patch to an object.
///
/// # Errors
/// 400 when it is none, 422 or 500 when it does not fit the object.
pub fn apply(kind: PatchKind, resource: &Resource, object: &Value, patch: &[u8]) -> Result<Value, Status> {
    let mut object = object.clone();
    let unreadable = |error: serde_json::Error| Status::bad_request(format!("error decoding patch: {error}"));
    match kind {
        PatchKind::Json => {
            let patch: json_patch::Patch = serde_json::from_slice(patch).map_err(unreadable)?;
            json_patch::patch(&mut object, &patch).map_err(|_| Status::unprocessable())?;
        }
        PatchKind::Merge => {
            let patch: Value = serde_json::from_slice(patch).map_err(unreadable)?;
            json_patch::merge(&mut object, &patch);
        }
        PatchKind::Strategic | PatchKind::Apply => {
            let patch: Value = serde_json::from_slice(patch).map_err(unreadable)?;
            strategic::apply(resource, &mut object, patch).map_err(Status::nameless)?;
        }
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::PODS;

    #[test]
    fn each_kind_does_its_own() {
        let pod = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "x"}]}});
        let of = |kind, patch: Value| apply(kind, &PODS, &pod, patch.to_string().as_bytes());
        let added = of(PatchKind::Json, json!([{"op": "add", "path": "/metadata/labels/b", "value": "2"}])).unwrap();
        assert_eq!(added["metadata"]["labels"], json!({"a": "1", "b": "2"}));
        let change = json!({"spec": {"containers": [{"name": "y"}]}});
        assert_eq!(of(PatchKind::Merge, change.clone()).unwrap()["spec"]["containers"], json!([{"name": "y"}]));
        let merged = of(PatchKind::Strategic, change).unwrap();
        assert_eq!(merged["spec"]["containers"], json!([{"name": "y"}, {"name": "x"}]));
        assert_eq!(of(PatchKind::Json, json!([{"op": "remove", "path": "/none"}])).unwrap_err().code, 422);
        assert_eq!(apply(PatchKind::Merge, &PODS, &pod, b"{").unwrap_err().code, 400);
    }
}
