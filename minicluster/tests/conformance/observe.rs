//! What a case saw, as text without what differs from cluster to cluster: names, UIDs, versions, times.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::client::Reply;

/// What was seen so far.
#[derive(Clone, Default)]
pub struct Log {
    text: String,
    /// Texts that differ from run to run, and what stands for them.
    names: Vec<(String, String)>,
}

impl Log {
    /// From now on `name` stands for `value`.
    pub fn stands_for(&mut self, value: &str, name: &str) {
        if !value.is_empty() {
            self.names.push((value.to_owned(), name.to_owned()));
        }
    }

    pub fn text(self) -> String {
        self.text
    }

    /// A sentence.
    pub fn say(&mut self, sentence: &str) {
        let line = self.plain(sentence);
        writeln!(self.text, "{line}").expect("text");
    }

    /// A whole answer: its code, its type, its body.
    pub fn reply(&mut self, what: &str, reply: &Reply) {
        let media_type = reply.header("content-type").to_owned();
        self.say(&format!("{what}: {} {media_type}", reply.code));
        if !reply.header("retry-after").is_empty() {
            self.say(&format!("  retry-after: {}", reply.header("retry-after")));
        }
        match serde_json::from_slice::<Value>(&reply.body) {
            Ok(body) => self.value(&body),
            Err(_) => self.say(&format!("  {:?}", String::from_utf8_lossy(&reply.body))),
        }
    }

    /// An answer of which only these fields are looked at: paths of names, `*` for each item of a list.
    pub fn fields(&mut self, what: &str, reply: &Reply, fields: &[&str]) {
        self.say(&format!("{what}: {}", reply.code));
        let body = reply.json();
        if reply.code >= 400 {
            self.value(&body);
        } else {
            self.pick(&body, fields);
        }
    }

    /// These fields of a value.
    pub fn pick(&mut self, value: &Value, fields: &[&str]) {
        for field in fields {
            let last = field.rsplit('.').next().unwrap_or_default();
            let shown = |one: &Value| clean(&self.named(&json!({last: one})))[last].to_string();
            let found: Vec<String> = find(value, field).into_iter().map(shown).collect();
            let found = if found.is_empty() { "none".to_owned() } else { found.join(" ") };
            writeln!(self.text, "  {field}: {found}").expect("text");
        }
    }

    /// A value.
    pub fn value(&mut self, value: &Value) {
        for line in format!("{:#}", clean(&self.named(value))).lines() {
            writeln!(self.text, "  {line}").expect("text");
        }
    }

    /// With names for what differs from run to run.
    fn named(&self, value: &Value) -> Value {
        serde_json::from_str(&self.plain(&value.to_string())).expect("names are plain")
    }

    fn plain(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (value, name) in &self.names {
            text = text.replace(value, name);
        }
        text
    }
}

/// Values at a path of names.
fn find<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![value];
    for part in path.split('.') {
        found = found
            .into_iter()
            .flat_map(|value| match part {
                "*" => value.as_array().into_iter().flatten().collect(),
                name => value.get(name).into_iter().collect::<Vec<_>>(),
            })
            .collect();
    }
    found
}

/// Without what differs from cluster to cluster.
fn clean(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut clean_map = Map::new();
            for (key, value) in map {
                let value = match key.as_str() {
                    "managedFields" | "selfLink" => continue,
                    "creationTimestamp" if value.is_null() => continue,
                    "uid" | "resourceVersion" | "continue" => json!(key.to_uppercase()),
                    "creationTimestamp" | "deletionTimestamp" | "lastTransitionTime" | "startTime" => json!("TIME"),
                    "message" => json!(without_versions(value.as_str().unwrap_or_default())),
                    // Some faults are found more than once.
                    "causes" => {
                        let mut causes: Vec<Value> = value.as_array().into_iter().flatten().map(clean).collect();
                        causes.dedup();
                        json!(causes)
                    }
                    _ => clean(value),
                };
                clean_map.insert(key.clone(), value);
            }
            Value::Object(clean_map)
        }
        Value::Array(list) => list.iter().map(clean).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// A message without numbers of versions and without a picture of the difference, which has a form of its own.
fn without_versions(text: &str) -> String {
    let text = text.split_once("\n").map_or(text, |(first, _)| first);
    if !text.contains("resource version") && !text.contains("ResourceVersion") {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut digits = false;
    for c in text.chars() {
        if c.is_ascii_digit() {
            if !digits {
                out.push('N');
            }
            digits = true;
        } else {
            out.push(c);
            digits = false;
        }
    }
    out
}
