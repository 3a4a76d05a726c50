//! Namespaces: what they begin with, and that nothing new comes into one that is missing or going.

use serde_json::{Value, json};

use super::Refusal;
use crate::object::{self, entries};
use crate::resource::NAMESPACES;
use crate::store::{Key, Objects};

/// A new namespace: its label, its finalizer, active.
pub fn begin(name: &str, namespace: &mut Value) {
    entries(namespace, "/metadata/labels").insert("kubernetes.io/metadata.name".to_owned(), json!(name));
    entries(namespace, "/spec").insert("finalizers".to_owned(), json!(["kubernetes"]));
    namespace["status"] = json!({"phase": "Active"});
}

/// Whether something new may come into its namespace.
pub fn admit(key: &Key, objects: &Objects) -> Result<(), Refusal> {
    if !key.resource.namespaced {
        return Ok(());
    }
    let Some(namespace) = objects.get(&Key::new(&NAMESPACES, "", &*key.namespace)) else {
        return Err(Refusal::NoNamespace(key.namespace.clone()));
    };
    if object::is_going(namespace) {
        return Err(Refusal::Forbidden(format!(
            "{}{}{} \"{}\" is forbidden: unable to create new content in namespace {} because it is being terminated",
            key.resource.plural,
            if key.resource.group.is_empty() { "" } else { "." },
            key.resource.group,
            key.name,
            key.namespace,
        )));
    }
    Ok(())
}
