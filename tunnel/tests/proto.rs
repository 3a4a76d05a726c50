//! The Rust messages and `proto/tunnel.proto` say the same: what one encodes, the other's field numbers explain.

use std::collections::BTreeMap;

/// (message, field) → (number, type), from the text of the Rust side's attributes.
fn rust_fields() -> BTreeMap<(String, String), (i32, String)> {
    let mut fields = BTreeMap::new();
    let mut message = String::new();
    let mut attribute = String::new();
    for line in include_str!("../src/frames.rs").lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            message = rest.split([' ', '{']).next().unwrap_or_default().to_owned();
        } else if line.starts_with("#[prost(") && line.contains("tag = ") {
            attribute = line.to_owned();
        } else if let Some(rest) = line.strip_prefix("pub ")
            && !attribute.is_empty()
            && rest.contains(": ")
        {
            let name = rest.split(':').next().unwrap_or_default().to_owned();
            let number = attribute.split("tag = \"").nth(1).and_then(|t| t.split('"').next()).unwrap_or_default();
            let kind = attribute.trim_start_matches("#[prost(").split([',', ' ', '=']).next().unwrap_or_default();
            fields.insert((message.clone(), name), (number.parse().unwrap_or(0), kind.to_owned()));
            attribute.clear();
        }
    }
    fields
}

#[test]
fn the_proto_file_and_the_rust_messages_agree() {
    // Where cargo runs it: a build may be shared by several checkouts.
    let package = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs this");
    let files = protox::compile(["tunnel.proto"], [format!("{package}/proto")]).expect("the proto file compiles");
    let ours = files.file.iter().find(|file| file.package() == "podway.tunnel.v1").expect("our package");
    let mut fields = BTreeMap::new();
    for message in &ours.message_type {
        for field in message.field.iter().filter(|field| field.oneof_index.is_none()) {
            let kind = format!("{:?}", field.r#type()).to_lowercase();
            let kind = if kind == "enum" { "enumeration".to_owned() } else { kind };
            fields.insert((message.name().to_owned(), field.name().to_owned()), (field.number(), kind));
        }
    }
    assert_eq!(fields, rust_fields());
    let frames = |name: &str| {
        let message = ours.message_type.iter().find(|message| message.name() == name).expect("a frame type");
        message
            .field
            .iter()
            .map(|field| (field.number(), field.type_name().rsplit('.').next().unwrap_or("").to_owned()))
            .collect::<BTreeMap<_, _>>()
    };
    let text = include_str!("../src/frames.rs");
    for name in ["HelloFrame", "FlowFrame"] {
        for (number, variant) in frames(name) {
            let line = format!("#[prost(message, tag = \"{number}\")]\n        {variant}(super::{variant}),");
            assert!(text.contains(&line), "{name} {number} is {variant} in the proto file");
        }
    }
}
