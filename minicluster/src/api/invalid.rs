//! What is wrong with a field, in the words of Kubernetes' `field.Error`. Pure.

use std::fmt;

use serde_json::{Value, json};

/// One fault of one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    kind: Kind,
    field: String,
    value: Value,
    detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
}

impl Kind {
    fn cause(self) -> &'static str {
        match self {
            Kind::NotFound => "FieldValueNotFound",
            Kind::Required => "FieldValueRequired",
            Kind::Duplicate => "FieldValueDuplicate",
            Kind::Invalid => "FieldValueInvalid",
            Kind::NotSupported => "FieldValueNotSupported",
            Kind::Forbidden => "FieldValueForbidden",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Kind::NotFound => "Not found",
            Kind::Required => "Required value",
            Kind::Duplicate => "Duplicate value",
            Kind::Invalid => "Invalid value",
            Kind::NotSupported => "Unsupported value",
            Kind::Forbidden => "Forbidden",
        }
    }

    fn shows_value(self) -> bool {
        match self {
            Kind::NotFound | Kind::Duplicate | Kind::Invalid | Kind::NotSupported => true,
            Kind::Required | Kind::Forbidden => false,
        }
    }
}

impl FieldError {
    fn new(kind: Kind, field: &str, value: Value, detail: &str) -> FieldError {
        FieldError { kind, field: field.to_owned(), value, detail: detail.to_owned() }
    }

    /// It names what is not there.
    pub fn not_found(field: &str, value: Value) -> FieldError {
        FieldError::new(Kind::NotFound, field, value, "")
    }

    /// It has to be there.
    pub fn required(field: &str, detail: &str) -> FieldError {
        FieldError::new(Kind::Required, field, Value::Null, detail)
    }

    /// It is there twice.
    pub fn duplicate(field: &str, value: Value) -> FieldError {
        FieldError::new(Kind::Duplicate, field, value, "")
    }

    /// It is malformed.
    pub fn invalid(field: &str, value: Value, detail: &str) -> FieldError {
        FieldError::new(Kind::Invalid, field, value, detail)
    }

    /// It is none of the known values.
    pub fn not_supported(field: &str, value: Value, known: &[&str]) -> FieldError {
        let known: Vec<String> = known.iter().map(|known| format!("{known:?}")).collect();
        FieldError::new(Kind::NotSupported, field, value, &format!("supported values: {}", known.join(", ")))
    }

    /// It may not be so here.
    pub fn forbidden(field: &str, detail: &str) -> FieldError {
        FieldError::new(Kind::Forbidden, field, Value::Null, detail)
    }

    /// What is wrong, without the field's name.
    fn text(&self) -> String {
        let mut text = self.kind.text().to_owned();
        if self.kind.shows_value() {
            text.push_str(&format!(": {}", self.value));
        }
        if !self.detail.is_empty() {
            text.push_str(&format!(": {}", self.detail));
        }
        text
    }

    /// As one of a Status' causes.
    pub fn cause(&self) -> Value {
        json!({"reason": self.kind.cause(), "message": self.text(), "field": self.field})
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.text())
    }
}
