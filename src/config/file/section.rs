//! A table of the file, from which the settings are taken one by one; whatever is left is unknown.
//!
//! Contract: pure.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Advice, Expected, Fault};
use crate::config::ValueError;

/// A fault, and the bytes of the file at which it is.
pub(super) type Found<T> = Result<T, (usize, Fault)>;

/// A table of the file.
pub(super) struct Section<'a, 'i> {
    table: &'a DeTable<'i>,
    /// The keys that a table of the kind can have.
    keys: &'static [&'static str],
}

impl<'a, 'i> Section<'a, 'i> {
    /// A table of which all keys are among `keys`. `advise` says what to do about another key.
    pub(super) fn of(
        table: &'a DeTable<'i>,
        keys: &'static [&'static str],
        advise: impl Fn(&str) -> Option<Advice>,
    ) -> Found<Self> {
        let is_unknown = |key: &&Spanned<_>| !keys.contains(&text_of(key));
        if let Some(key) = first(table.keys().filter(is_unknown)) {
            let name = shown(text_of(key));
            let advice = advise(&name).unwrap_or_else(|| advice_on(&name, keys));
            return Err((key.span().start, Fault::Key { key: name.into_owned(), advice }));
        }
        Ok(Self { table, keys })
    }

    /// A value, if the key is there.
    pub(super) fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'i>>> {
        debug_assert!(self.keys.contains(&key), "{key} is no key of the table");
        self.table.get(key)
    }

    /// Where the value of a key is, if the key is there.
    pub(super) fn place(&self, key: &str) -> Option<usize> {
        self.table.get(key).map(|value| value.span().start)
    }

    /// A text, read by `read`.
    pub(super) fn text<T>(
        &self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, Fault>,
    ) -> Found<Option<T>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        read_text(value, key, Expected::Text, read).map(Some)
    }

    /// A text or several, each read by `read`.
    pub(super) fn texts<T>(
        &self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, Fault>,
    ) -> Found<Option<Vec<T>>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let each = |value| read_text(value, key, Expected::Texts, &read);
        match value.get_ref() {
            DeValue::Array(values) if values.is_empty() => Err(at(value, Fault::Empty(key))),
            DeValue::Array(values) => values.iter().map(each).collect::<Found<_>>().map(Some),
            _ => each(value).map(|one| Some(vec![one])),
        }
    }

    /// A number, or a text with a number and a unit.
    pub(super) fn number<T>(
        &self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, ValueError>,
    ) -> Found<Option<T>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let wrong = |error| at(value, Fault::Value { key, error });
        match value.get_ref() {
            DeValue::String(text) => read(text).map(Some).map_err(wrong),
            DeValue::Integer(number) => read(&number.to_string()).map(Some).map_err(wrong),
            _ => Err(at(value, Fault::Type { key, expected: Expected::Number })),
        }
    }

    /// True or false.
    pub(super) fn boolean(&self, key: &'static str) -> Found<Option<bool>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Boolean(is) => Ok(Some(*is)),
            _ => Err(at(value, Fault::Type { key, expected: Expected::Boolean })),
        }
    }
}

/// The fault of a value.
pub(super) fn at(value: &Spanned<DeValue<'_>>, fault: Fault) -> (usize, Fault) {
    (value.span().start, fault)
}

fn read_text<T>(
    value: &Spanned<DeValue<'_>>,
    key: &'static str,
    expected: Expected,
    read: impl Fn(&str) -> Result<T, Fault>,
) -> Found<T> {
    match value.get_ref() {
        DeValue::String(text) => read(text).map_err(|fault| at(value, fault)),
        _ => Err(at(value, Fault::Type { key, expected })),
    }
}

/// The first key in the file, since a table has its keys in the order of the alphabet.
fn first<'k, 'i: 'k, K: AsRef<str> + 'k>(
    keys: impl Iterator<Item = &'k Spanned<K>>,
) -> Option<&'k Spanned<K>> {
    keys.min_by_key(|key| key.span().start)
}

fn text_of<K: AsRef<str>>(key: &Spanned<K>) -> &str {
    key.get_ref().as_ref()
}

/// Characters of the file that a message repeats at most: beyond any key, and short enough to be
/// compared with all keys, and for a line of the log.
pub(super) const SHOWN_MAX: usize = 100;

/// A text of the file for a message: a long text is cut.
fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// The known key that looks most like an unknown one, or else all keys.
fn advice_on(key: &str, keys: &'static [&'static str]) -> Advice {
    /// Likeness from which a key may be a slip of the keyboard, by the measure of clap.
    const LIKENESS: f64 = 0.8;
    let typed = key.to_lowercase().replace('_', "-");
    let likeness = |known: &&str| strsim::jaro(&typed, known);
    let best = keys.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    best.filter(|best| likeness(best) >= LIKENESS).map_or(Advice::Known(keys), Advice::Meant)
}
