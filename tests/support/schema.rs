//! Documents against `docs/schema/`: a small and strict reader of JSON Schema.
//!
//! Stricter than the schema itself: what it does not name is a fault here, though programs are told to pass over it. A
//! word of JSON Schema that this does not know is a fault as well, so that none is believed and not checked.

use std::collections::BTreeSet;

use serde_json::Value;

/// The words that are understood, or say nothing of a document.
const WORDS: [&str; 18] = [
    "$schema",
    "$id",
    "title",
    "description",
    "$defs",
    "$ref",
    "oneOf",
    "const",
    "enum",
    "type",
    "format",
    "minimum",
    "required",
    "properties",
    "additionalProperties",
    "items",
    "minItems",
    "maxItems",
];

/// A schema, and which properties of it were seen in a document.
pub struct Schema {
    root: Value,
    seen: BTreeSet<String>,
}

impl Schema {
    /// What `podway` prints with `-o json`.
    pub fn of_podway() -> Schema {
        let package = std::path::PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs this"));
        let text = std::fs::read_to_string(package.join("docs/schema/podway.dev-v1.json")).expect("the schema");
        Schema { root: serde_json::from_str(&text).expect("JSON"), seen: BTreeSet::new() }
    }

    /// Fails where the document is not one that the schema describes.
    pub fn check(&mut self, document: &Value) {
        let (root, mut seen) = (self.root.clone(), BTreeSet::new());
        if let Err(fault) = (Reader { root: &root, seen: &mut seen }).value(&root, "#", document, "") {
            panic!("{fault}\nin {document:#}");
        }
        self.seen.append(&mut seen);
    }

    /// Properties that no document had so far, each as a path through the schema.
    pub fn unseen(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        properties(&self.root, "#", &mut all);
        all.difference(&self.seen).cloned().collect()
    }
}

fn properties(schema: &Value, at: &str, all: &mut BTreeSet<String>) {
    let Value::Object(words) = schema else { return };
    for (name, part) in words.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let at = format!("{at}/properties/{name}");
        properties(part, &at, all);
        all.insert(at);
    }
    for (name, part) in words.get("$defs").and_then(Value::as_object).into_iter().flatten() {
        properties(part, &format!("{at}/$defs/{name}"), all);
    }
    for (number, part) in words.get("oneOf").and_then(Value::as_array).into_iter().flatten().enumerate() {
        properties(part, &format!("{at}/oneOf/{number}"), all);
    }
    for word in ["items", "additionalProperties"] {
        if let Some(part) = words.get(word) {
            properties(part, &format!("{at}/{word}"), all);
        }
    }
}

struct Reader<'a> {
    root: &'a Value,
    seen: &'a mut BTreeSet<String>,
}

impl Reader<'_> {
    /// Whether `value`, which stands at `path` of the document, is what `schema`, which stands at `at`, describes.
    fn value(&mut self, schema: &Value, at: &str, value: &Value, path: &str) -> Result<(), String> {
        let words = schema.as_object().ok_or_else(|| format!("{at} is no schema"))?;
        for word in words.keys() {
            assert!(WORDS.contains(&word.as_str()), "{at} has {word}, which is not checked");
        }
        if let Some(to) = words.get("$ref").and_then(Value::as_str) {
            let target = self.root.pointer(to.trim_start_matches('#')).unwrap_or_else(|| panic!("{at}: no {to}"));
            self.value(&target.clone(), to, value, path)?;
        }
        if let Some(one) = words.get("oneOf").and_then(Value::as_array) {
            self.one_of(one, at, value, path)?;
        }
        let wrong = |why: String| Err(format!("{path}: {why}, says {at}"));
        if let Some(only) = words.get("const")
            && only != value
        {
            return wrong(format!("{value} is not {only}"));
        }
        if let Some(among) = words.get("enum").and_then(Value::as_array)
            && !among.contains(value)
        {
            return wrong(format!("{value} is none of {among:?}"));
        }
        if let Some(kinds) = words.get("type") {
            let kinds: Vec<&Value> = kinds.as_array().map_or_else(|| vec![kinds], |kinds| kinds.iter().collect());
            if !kinds.iter().any(|kind| is(value, kind.as_str().expect("a type's name"))) {
                return wrong(format!("{value} is no {kinds:?}"));
            }
        }
        if let Some(format) = words.get("format") {
            assert_eq!(format, "date-time", "{at}: a format that is not checked");
            let text = value.as_str().unwrap_or_default();
            if !text.ends_with('Z') || podway::timestamp::parse(text).is_none() {
                return wrong(format!("{value} is no time"));
            }
        }
        if let Some(least) = words.get("minimum").and_then(Value::as_i64)
            && value.as_i64().is_some_and(|value| value < least)
        {
            return wrong(format!("{value} is less than {least}"));
        }
        if let Some(items) = value.as_array() {
            let count = |word: &str| words.get(word).and_then(Value::as_u64).map(|count| count as usize);
            if count("minItems").is_some_and(|least| items.len() < least)
                || count("maxItems").is_some_and(|most| items.len() > most)
            {
                return wrong(format!("{} items", items.len()));
            }
            for (number, item) in items.iter().enumerate() {
                let schema = words.get("items").unwrap_or_else(|| panic!("{at} does not say what its items are"));
                self.value(schema, &format!("{at}/items"), item, &format!("{path}/{number}"))?;
            }
        }
        match value.as_object() {
            // What a reference or an alternative describes, that has checked.
            Some(_) if words.contains_key("$ref") || words.contains_key("oneOf") => Ok(()),
            Some(fields) => self.object(words, at, fields, path),
            None => Ok(()),
        }
    }

    fn one_of(&mut self, one: &[Value], at: &str, value: &Value, path: &str) -> Result<(), String> {
        let (mut fitting, mut faults) = (Vec::new(), Vec::new());
        for (number, schema) in one.iter().enumerate() {
            let mut seen = BTreeSet::new();
            let mut reader = Reader { root: self.root, seen: &mut seen };
            match reader.value(schema, &format!("{at}/oneOf/{number}"), value, path) {
                Ok(()) => fitting.push(seen),
                Err(fault) => faults.push(fault),
            }
        }
        match fitting.as_mut_slice() {
            [only] => {
                self.seen.append(only);
                Ok(())
            }
            [] => Err(format!("{path}: fits none of {at}: {}", faults.join("\n  "))),
            _ => Err(format!("{path}: fits several of {at}")),
        }
    }

    fn object(
        &mut self,
        words: &serde_json::Map<String, Value>,
        at: &str,
        fields: &serde_json::Map<String, Value>,
        path: &str,
    ) -> Result<(), String> {
        let none = serde_json::Map::new();
        let named = words.get("properties").and_then(Value::as_object).unwrap_or(&none);
        for required in words.get("required").and_then(Value::as_array).into_iter().flatten() {
            let required = required.as_str().expect("a property's name");
            assert!(named.contains_key(required), "{at} requires {required}, which it does not describe");
            if !fields.contains_key(required) {
                return Err(format!("{path}: {required} is missing, says {at}"));
            }
        }
        for (name, field) in fields {
            let path = format!("{path}/{name}");
            let (schema, at) = match (named.get(name), words.get("additionalProperties")) {
                (Some(schema), _) => (schema, format!("{at}/properties/{name}")),
                (None, Some(others)) => (others, format!("{at}/additionalProperties")),
                (None, None) => return Err(format!("{path} is not named by {at}")),
            };
            self.value(schema, &at, field, &path)?;
            self.seen.insert(at);
        }
        Ok(())
    }
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => panic!("{kind} is not checked"),
    }
}
