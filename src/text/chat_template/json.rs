//! JSON to template values, and template values to JSON as Python's `json.dumps` writes it.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::limits::{MAX_OUTPUT_BYTES, MAX_WIDTH};

/// Deepest nesting of lists and objects that is written.
const MAX_JSON_DEPTH: usize = 64;

/// A JSON document as a value that templates can walk.
pub(super) fn to_value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(v) => Value::from(*v),
        serde_json::Value::Number(n) => n
            .as_i64()
            .map(Value::from)
            .or_else(|| n.as_u64().map(Value::from))
            .unwrap_or_else(|| Value::from(n.as_f64().unwrap_or(f64::NAN))),
        serde_json::Value::String(v) => Value::from(v.as_str()),
        serde_json::Value::Array(items) => items.iter().map(to_value).collect(),
        serde_json::Value::Object(entries) => {
            object(entries.iter().map(|(key, v)| (key.clone(), to_value(v))))
        }
    }
}

/// An object with its keys in the given order.
pub(super) fn object(entries: impl Iterator<Item = (String, Value)>) -> Value {
    Value::from_pairs(entries)
}

/// The filter `tojson`: separators, `indent`, `ensure_ascii` and `sort_keys` as in Python, nothing escaped for HTML.
#[expect(clippy::needless_pass_by_value, reason = "the engine hands filters their options by value")]
pub(super) fn tojson(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<String, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<Value>>("indent")?,
    };
    let indent = match indent.filter(|v| !v.is_none()) {
        None => None,
        Some(indent) => {
            let width = usize::try_from(indent)?;
            if width > MAX_WIDTH {
                return Err(invalid(format!("tojson: indent {width} is over the limit of {MAX_WIDTH}")));
            }
            Some(width)
        }
    };
    let default = if indent.is_some() { (",", ": ") } else { (", ", ": ") };
    let separators = options.get::<Option<Vec<String>>>("separators")?.filter(|list| list.len() == 2);
    let mut writer = Writer {
        out: String::new(),
        indent,
        item: separators.as_ref().map_or(default.0, |list| &list[0]),
        key: separators.as_ref().map_or(default.1, |list| &list[1]),
        is_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sorts: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    writer.value(value, 0)?;
    Ok(writer.out)
}

struct Writer<'a> {
    out: String,
    indent: Option<usize>,
    item: &'a str,
    key: &'a str,
    is_ascii: bool,
    sorts: bool,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_JSON_DEPTH || self.out.len() > MAX_OUTPUT_BYTES {
            return Err(invalid("tojson: the value is too large"));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            ValueKind::Map => self.map(value, depth)?,
            kind => return Err(invalid(format!("tojson: a value of kind {kind} has no JSON"))),
        }
        Ok(())
    }

    fn list(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut n = 0;
        for item in value.try_iter()? {
            self.before(n, depth + 1);
            self.value(&item, depth + 1)?;
            n += 1;
        }
        self.after(n, depth, ']');
        Ok(())
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('{');
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.sorts {
            keys.sort();
        }
        for (n, key) in keys.iter().enumerate() {
            self.before(n, depth + 1);
            let name = match key.kind() {
                ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
                ValueKind::None => "null".to_owned(),
                ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_owned(),
                _ => number(key),
            };
            self.string(&name);
            self.out.push_str(self.key);
            self.value(&value.get_item(key)?, depth + 1)?;
        }
        self.after(keys.len(), depth, '}');
        Ok(())
    }

    fn before(&mut self, n: usize, depth: usize) {
        if n > 0 {
            self.out.push_str(self.item);
        }
        self.line(depth);
    }

    fn after(&mut self, n: usize, depth: usize, close: char) {
        if n > 0 {
            self.line(depth);
        }
        self.out.push(close);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{C}' => self.out.push_str("\\f"),
                '\0'..='\u{1F}' => self.escape(u32::from(c) as u16),
                _ if self.is_ascii && !(' '..='~').contains(&c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.escape(*unit);
                    }
                }
                _ => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, unit: u16) {
        // Writing to a string does not fail.
        let _ = write!(self.out, "\\u{unit:04x}");
    }
}

/// A number as Python writes it into JSON.
fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(number) if !value.is_integer() => match float(number).as_str() {
            "nan" => "NaN".to_owned(),
            "inf" => "Infinity".to_owned(),
            "-inf" => "-Infinity".to_owned(),
            finite => finite.to_owned(),
        },
        _ => value.to_string(),
    }
}

/// A floating-point number as Python prints it: the fewest digits that mean it, with an exponent where it is very large
/// or very small.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return number.to_string() };
    match exponent.parse::<i32>() {
        Ok(exponent @ ..-4) => format!("{digits}e-{:02}", -exponent),
        Ok(exponent @ 16..) => format!("{digits}e+{exponent:02}"),
        // Rust's own form of these has no exponent, and one digit behind the point where Python has one.
        _ => format!("{number:?}"),
    }
}

pub(super) fn invalid(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_in_python() {
        for (number, expected) in [
            (2.0, "2.0"),
            (0.1, "0.1"),
            (-0.0, "-0.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (-2.5e-5, "-2.5e-05"),
            (0.0001, "0.0001"),
            (123_456.789, "123456.789"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(float(number), expected);
        }
        assert_eq!(number(&Value::from(f64::INFINITY)), "Infinity");
        assert_eq!(number(&Value::from(10_i64.pow(17))), "100000000000000000");
    }
}
