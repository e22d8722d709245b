//! An object of config.json whose fields are taken one by one: a wrong type is an error that names
//! the field, and what nobody has taken at the end is a warning that does.

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

#[derive(Debug)]
pub(crate) struct Fields {
    path: String,
    map: Map<String, Value>,
}

impl Fields {
    pub(crate) fn new(value: Value, path: &str) -> anyhow::Result<Self> {
        match value {
            Value::Object(map) => Ok(Self { path: path.to_owned(), map }),
            _ => anyhow::bail!(
                "{}: expected an object",
                if path.is_empty() { "the file" } else { path }
            ),
        }
    }

    /// Returns the full name of a field.
    pub(crate) fn name(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    /// Takes a field as it stands. A null counts as absent.
    pub(crate) fn take(&mut self, field: &str) -> Option<Value> {
        self.map.remove(field).filter(|value| !value.is_null())
    }

    pub(crate) fn optional<T: DeserializeOwned>(
        &mut self,
        field: &str,
    ) -> anyhow::Result<Option<T>> {
        match self.take(field) {
            // Strings end up as C strings, which would be cut there.
            Some(value) if has_nul(&value) => {
                anyhow::bail!("{}: contains a NUL byte", self.name(field))
            }
            Some(value) => {
                serde_json::from_value(value).map(Some).with_context(|| self.name(field))
            }
            None => Ok(None),
        }
    }

    pub(crate) fn required<T: DeserializeOwned>(&mut self, field: &str) -> anyhow::Result<T> {
        self.optional(field)?.with_context(|| format!("{}: missing", self.name(field)))
    }

    pub(crate) fn object(&mut self, field: &str) -> anyhow::Result<Option<Self>> {
        self.take(field).map(|value| Self::new(value, &self.name(field))).transpose()
    }

    /// Takes a list of objects; empty where absent.
    pub(crate) fn objects(&mut self, field: &str) -> anyhow::Result<Vec<Self>> {
        let list: Vec<Value> = self.optional(field)?.unwrap_or_default();
        let name = self.name(field);
        list.into_iter()
            .enumerate()
            .map(|(index, value)| Self::new(value, &format!("{name}[{index}]")))
            .collect()
    }

    /// Drops a field that has no meaning here.
    pub(crate) fn ignore(&mut self, field: &str) {
        self.map.remove(field);
    }

    /// Reports every field that nobody has taken.
    pub(crate) fn finish(self, warnings: &mut Vec<String>) {
        for (field, value) in &self.map {
            if !is_empty(value) {
                warnings.push(format!("{}: not supported, ignored", self.name(field)));
            }
        }
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(list) => list.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Returns whether a value says nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        Value::Bool(true) | Value::Number(_) => false,
    }
}
