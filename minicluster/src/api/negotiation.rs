//! What a client wants to read: objects, their metadata alone, or tables. Pure.

use super::status::Status;

/// Media types that a real API server writes, as refusals name them.
const WRITTEN: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Objects as they are.
    Object,
    /// Metadata alone: `PartialObjectMetadata`.
    Metadata,
    /// Rows and columns for people: `Table`.
    Table,
}

/// The form that an `Accept` header asks for first, of those that the server knows. `tables`: whether it has some.
///
/// # Errors
/// 406 when there is none.
pub fn form(accept: Option<&str>, tables: bool) -> Result<Form, Status> {
    let accept = accept.unwrap_or_default();
    if accept.trim().is_empty() {
        return Ok(Form::Object);
    }
    let mut clauses: Vec<(f32, Clause<'_>)> = accept.split(',').map(Clause::parse).collect();
    // What comes first wins among equals.
    clauses.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    // What is not written at all is refused by another part of a real API server, which does not know `application/*`.
    if !clauses.iter().any(|(_, clause)| clause.media_type == "*/*" || WRITTEN.contains(&clause.media_type)) {
        return Err(Status::no_such_answer());
    }
    let known = clauses.iter().find_map(|(_, clause)| clause.form(tables));
    known.ok_or_else(|| Status::not_acceptable(&WRITTEN))
}

struct Clause<'a> {
    media_type: &'a str,
    kind: &'a str,
    group: &'a str,
    version: &'a str,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> (f32, Clause<'a>) {
        let mut parts = text.split(';').map(str::trim);
        let mut clause = Clause { media_type: parts.next().unwrap_or_default(), kind: "", group: "", version: "" };
        let mut weight = 1.0;
        for part in parts {
            match part.split_once('=') {
                Some(("as", kind)) => clause.kind = kind,
                Some(("g", group)) => clause.group = group,
                Some(("v", version)) => clause.version = version,
                Some(("q", text)) => weight = text.parse().unwrap_or(1.0),
                Some(_) | None => {}
            }
        }
        (weight, clause)
    }

    fn form(&self, tables: bool) -> Option<Form> {
        if !matches!(self.media_type, "application/json" | "application/*" | "*/*") {
            return None;
        }
        match (self.kind, self.group, self.version) {
            ("", _, _) => Some(Form::Object),
            ("Table", "meta.k8s.io", "v1") if tables => Some(Form::Table),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => Some(Form::Metadata),
            (_, _, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_form_is_taken() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (accept, wanted) in [
            (None, Form::Object),
            (Some(kubectl), Form::Table),
            (Some("application/vnd.kubernetes.protobuf,application/json"), Form::Object),
            (Some("*/*"), Form::Object),
            (Some("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), Form::Metadata),
            (Some("application/json;q=0.1, application/json;as=Table;g=meta.k8s.io;v=v1;q=0.9"), Form::Table),
            (Some("application/json;as=Other;g=x;v=v1, */*"), Form::Object),
        ] {
            assert_eq!(form(accept, true), Ok(wanted), "{accept:?}");
        }
        assert_eq!(form(Some(kubectl), false), Ok(Form::Object));
        assert_eq!(form(Some("text/html"), true).unwrap_err().code, 406);
    }
}
