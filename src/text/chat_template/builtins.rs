//! Filters, tests and functions of Jinja that the engine lacks or reads more narrowly than Python does.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, Value};
use minijinja_contrib::{filters, globals};

use super::json::invalid;
use super::limits::MAX_WIDTH;
use super::python::{replace, text_of};

/// Adds them.
pub(super) fn add_to(environment: &mut Environment<'_>) {
    for name in ["default", "d"] {
        environment.add_filter(name, |value: &Value, args: Rest<Value>, options: Kwargs| {
            default(value, &args, &options)
        });
    }
    environment.add_filter("replace", |text: &Value, from: &str, to: &str, at_most: Option<usize>| {
        replace(&text_of(text)?, from, to, at_most)
    });
    environment.add_filter("center", |text: &str, width: Option<usize>| {
        padded(text, width.unwrap_or(80), " ", Pad::Both)
    });
    environment.add_filter("wordcount", |text: &str| words(text));
    environment.add_filter("truncate", |text: &str, args: Rest<Value>, options: Kwargs| {
        truncate(text, &args, &options)
    });
    environment.add_filter("striptags", filters::striptags);
    environment.add_function("joiner", globals::joiner);
    environment.add_function("cycler", globals::cycler);
    environment.add_test("callable", is_callable);
    // In Python a text and a dictionary have a length and items, and so has what is not there.
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map)
    });
}

/// Functions are plain objects; a macro is one that tells its name and arguments as a dictionary would.
fn is_callable(value: &Value) -> bool {
    let tells = |name: &str| value.get_attr(name).is_ok_and(|value| !value.is_undefined());
    match value.kind() {
        ValueKind::Plain => value.as_object().is_some(),
        ValueKind::Map => tells("arguments") && tells("caller"),
        _ => false,
    }
}

/// An argument by its place or by its name.
fn argument(placed: &[Value], named: &Kwargs, place: usize, name: &str) -> Result<Option<Value>, Error> {
    placed.get(place).map_or_else(|| named.get::<Option<Value>>(name), |value| Ok(Some(value.clone())))
}

/// `default(value, boolean)`, by place or by name.
fn default(value: &Value, placed: &[Value], named: &Kwargs) -> Result<Value, Error> {
    let other = argument(placed, named, 0, "default_value")?;
    let boolean = argument(placed, named, 1, "boolean")?;
    named.assert_all_used()?;
    let is_missing = value.is_undefined() || boolean.is_some_and(|is| is.is_true()) && !value.is_true();
    Ok(if is_missing { other.unwrap_or_else(|| "".into()) } else { value.clone() })
}

/// `truncate(length, killwords, end, leeway)`, by place or by name.
fn truncate(text: &str, placed: &[Value], named: &Kwargs) -> Result<String, Error> {
    let size = |place: usize, name: &str, usual: usize| -> Result<usize, Error> {
        argument(placed, named, place, name)?.map_or(Ok(usual), usize::try_from)
    };
    let (length, leeway) = (size(0, "length", 255)?, size(3, "leeway", 5)?);
    let killwords = argument(placed, named, 1, "killwords")?.is_some_and(|is| is.is_true());
    let end = argument(placed, named, 2, "end")?.map(|end| end.to_string());
    named.assert_all_used()?;
    let end = end.unwrap_or_else(|| "...".to_owned());
    let n_end = end.chars().count();
    if length < n_end {
        return Err(invalid(format!("truncate: the length {length} has no room for {end:?}")));
    }
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.to_owned());
    }
    let cut: String = text.chars().take(length - n_end).collect();
    let kept = if killwords { cut.as_str() } else { cut.rsplit_once(' ').map_or(&*cut, |(kept, _)| kept) };
    Ok(format!("{kept}{end}"))
}

/// Words as Jinja counts them: runs of letters, digits and underlines.
fn words(text: &str) -> usize {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count()
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pad {
    Left,
    Right,
    Both,
}

/// A text made as wide as asked for.
pub(super) fn padded(text: &str, width: usize, fill: &str, pad: Pad) -> Result<String, Error> {
    let missing = width.saturating_sub(text.chars().count());
    if missing == 0 {
        return Ok(text.to_owned());
    }
    if width > MAX_WIDTH {
        return Err(invalid(format!("a width of {width} is over the limit of {MAX_WIDTH}")));
    }
    // Python puts the odd one to the left where the width is odd too.
    let left = match pad {
        Pad::Left => missing,
        Pad::Right => 0,
        Pad::Both => missing / 2 + (missing & width & 1),
    };
    Ok([fill.repeat(left).as_str(), text, &fill.repeat(missing - left)].concat())
}

/// A method of Python's strings that the engine does not have.
pub(super) fn string_method(text: &str, name: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    let first = args.first();
    let pad = match name {
        "ljust" => Some(Pad::Right),
        "rjust" => Some(Pad::Left),
        "center" => Some(Pad::Both),
        _ => None,
    };
    let width = first.and_then(|n| usize::try_from(n.clone()).ok());
    if let (Some(pad), Some(width)) = (pad, width) {
        let fill = args.get(1).and_then(Value::as_str).unwrap_or(" ");
        return Some(padded(text, width, fill, pad).map(Value::from));
    }
    let part = first.and_then(Value::as_str);
    let found = match (name, width, part) {
        ("zfill", Some(width), _) => {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            let width = width.saturating_sub(sign.len());
            padded(digits, width, "0", Pad::Left).map(|digits| format!("{sign}{digits}").into())
        }
        ("index" | "rindex", _, Some(part)) => {
            let at = if name == "index" { text.find(part) } else { text.rfind(part) };
            at.map(|at| text[..at].chars().count().into()).ok_or_else(|| invalid("substring not found"))
        }
        ("swapcase", ..) if args.is_empty() => Ok(swapped(text).into()),
        ("casefold", ..) if args.is_empty() => Ok(text.to_lowercase().replace('ß', "ss").into()),
        _ => return None,
    };
    Some(found)
}

fn swapped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_uppercase() { out.extend(c.to_lowercase()) } else { out.extend(c.to_uppercase()) }
    }
    out
}
