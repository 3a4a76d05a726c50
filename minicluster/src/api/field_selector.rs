//! Field selectors: `metadata.name=web,status.phase!=Running`. Pure.

use serde_json::Value;

use crate::resource::{self, Resource};

/// What fields have to be like; empty takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: String,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// Reads one; which fields there are is not checked.
    ///
    /// # Errors
    /// What a real API server says of it.
    pub fn parse(text: &str) -> Result<FieldSelector, String> {
        let mut terms = Vec::new();
        for part in split(text).filter(|part| !part.is_empty()) {
            let bad = || format!("invalid selector: '{text}'; can't understand '{part}'");
            let at = part.find(['=', '!']).ok_or_else(bad)?;
            let (field, rest) = part.split_at(at);
            let (equal, value) = match (rest.strip_prefix("!="), rest.strip_prefix("==")) {
                (Some(value), _) => (false, value),
                (None, Some(value)) => (true, value),
                (None, None) => (true, rest.strip_prefix('=').ok_or_else(bad)?),
            };
            terms.push(Term { field: field.to_owned(), value: unescape(value), equal });
        }
        Ok(FieldSelector(terms))
    }

    /// Checks that objects of the kind can be selected by these fields.
    ///
    /// # Errors
    /// What a real API server says of it.
    pub fn check(&self, resource: &'static Resource) -> Result<(), String> {
        let known = selectable(resource);
        let unknown = self.0.iter().find(|term| !known.contains(&term.field.as_str()));
        match unknown {
            None => Ok(()),
            Some(term) if is_own(resource) => Err(format!("field label not supported: {}", term.field)),
            Some(term) => Err(format!(
                "{:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                term.field
            )),
        }
    }

    /// Whether it takes everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one name that objects have to have.
    pub fn name(&self) -> Option<&str> {
        let term = self.0.iter().find(|term| term.equal && term.field == "metadata.name")?;
        Some(&term.value)
    }

    /// Whether it takes an object.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|term| (value_of(object, &term.field) == term.value) == term.equal)
    }
}

fn is_own(resource: &'static Resource) -> bool {
    [&resource::PODS, &resource::NODES, &resource::NAMESPACES, &resource::SERVICES, &resource::EVENTS, &resource::JOBS]
        .contains(&resource)
}

fn selectable(resource: &'static Resource) -> &'static [&'static str] {
    if resource == &resource::PODS {
        &[
            "metadata.name",
            "metadata.namespace",
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ]
    } else if resource == &resource::NODES {
        &["metadata.name", "spec.unschedulable"]
    } else if resource == &resource::NAMESPACES {
        &["metadata.name", "status.phase"]
    } else if resource == &resource::SERVICES {
        &["metadata.name", "metadata.namespace", "spec.clusterIP", "spec.type"]
    } else if resource == &resource::JOBS {
        &["metadata.name", "metadata.namespace", "status.successful"]
    } else if resource == &resource::EVENTS {
        &[
            "metadata.name",
            "metadata.namespace",
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ]
    } else {
        &["metadata.name", "metadata.namespace"]
    }
}

fn value_of(object: &Value, field: &str) -> String {
    let field = match field {
        "status.successful" => "status.succeeded",
        "source" => "source.component",
        other => other,
    };
    let found = field.split('.').fold(object, |value, part| &value[part]);
    match (found.as_str(), field) {
        (Some(text), _) => text.to_owned(),
        (None, "spec.hostNetwork" | "spec.unschedulable") => found.as_bool().unwrap_or(false).to_string(),
        (None, "status.succeeded") => found.as_i64().unwrap_or(0).to_string(),
        (None, _) => String::new(),
    }
}

/// Parts between commas that are not escaped.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c| {
        let ends = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })
}

fn unescape(value: &str) -> String {
    let mut plain = String::with_capacity(value.len());
    let mut escaped = false;
    for c in value.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            plain.push(c);
            escaped = false;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_compared_as_text() {
        let pod = json!({
            "metadata": {"name": "web", "namespace": "demo"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"},
        });
        for (selector, wanted) in [
            ("", true),
            ("metadata.name=web", true),
            ("metadata.name==web,spec.nodeName=n1", true),
            ("status.phase!=Running", false),
            ("status.phase!=Failed", true),
            ("spec.hostNetwork=false", true),
            ("status.podIP=", true),
            ("metadata.name=we\\,b", false),
        ] {
            assert_eq!(FieldSelector::parse(selector).expect(selector).matches(&pod), wanted, "{selector}");
        }
        assert_eq!(FieldSelector::parse("metadata.name=web").expect("good").name(), Some("web"));
    }

    #[test]
    fn unknown_fields_and_broken_texts_are_refused() {
        assert_eq!(FieldSelector::parse("a").expect_err("bad"), "invalid selector: 'a'; can't understand 'a'");
        let unknown = FieldSelector::parse("spec.foo=1").expect("good");
        assert_eq!(unknown.check(&resource::PODS).expect_err("bad"), "field label not supported: spec.foo");
        assert!(unknown.check(&resource::DEPLOYMENTS).expect_err("bad").contains("is not a known field selector"));
    }
}
