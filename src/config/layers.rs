//! Where settings come from: defaults, files, variables, flags, each layer over the one before.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ConfigError;

/// A setting's name, and the variable that beats the files.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As files have it, with a dot before what stands in a table.
    pub name: &'static str,
    /// The variable; `None` where there is none.
    pub variable: Option<&'static str>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Origin {
    /// Nothing says another.
    Default,
    /// A file.
    File {
        /// Its path.
        #[serde(serialize_with = "as_shown")]
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A variable of the environment.
    Variable {
        /// Its name.
        name: String,
    },
    /// A flag.
    Flag {
        /// As it is typed.
        name: String,
    },
}

/// Not each path is UTF-8, as JSON has to be.
fn as_shown<S: serde::Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// A value as JSON; a path that is not UTF-8 as it is shown.
pub fn shown<T: Serialize + std::fmt::Debug>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_else(|_| Value::String(format!("{value:?}")))
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Variable { name } | Origin::Flag { name } => f.write_str(name),
        }
    }
}

/// A setting as it counts. No setting is a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Its name.
    pub key: String,
    /// Its value: a text, a number, or a list of texts.
    pub value: Value,
    /// Where that comes from.
    pub from: Origin,
}

/// A value that a file gives.
#[derive(Clone, Debug)]
pub struct Found<T> {
    /// The value.
    pub value: T,
    /// Its file and line.
    pub from: Origin,
}

/// Settings as they are put together.
pub struct Layers<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    listed: Vec<Setting>,
}

impl<'a> Layers<'a> {
    /// Over these variables; one that is empty says nothing.
    pub fn new(variable: &'a dyn Fn(&str) -> Option<String>) -> Layers<'a> {
        Layers { variable, listed: Vec::new() }
    }

    /// One setting: what the highest layer says. `files` in the order in which they are read, `flag` with its spelling.
    ///
    /// # Errors
    ///
    /// A variable that cannot be read.
    pub fn pick<T: Serialize + std::fmt::Debug>(
        &mut self,
        key: Key,
        default: T,
        files: impl IntoIterator<Item = Option<Found<T>>>,
        read: impl Fn(&str) -> Result<T, String>,
        flag: Option<(&str, T)>,
    ) -> Result<T, ConfigError> {
        let mut best = Found { value: default, from: Origin::Default };
        for found in files.into_iter().flatten() {
            best = found;
        }
        let variable = key.variable.and_then(|name| Some((name, (self.variable)(name)?)));
        if let Some((name, text)) = variable.filter(|(_, text)| !text.is_empty()) {
            let why = |why| ConfigError::Variable { name: name.to_owned(), text: text.clone(), why };
            best = Found { value: read(&text).map_err(why)?, from: Origin::Variable { name: name.to_owned() } };
        }
        if let Some((name, value)) = flag {
            best = Found { value, from: Origin::Flag { name: name.to_owned() } };
        }
        self.listed.push(Setting { key: key.name.to_owned(), value: shown(&best.value), from: best.from });
        Ok(best.value)
    }

    /// All that were picked, in that order.
    pub fn listed(self) -> Vec<Setting> {
        self.listed
    }
}
