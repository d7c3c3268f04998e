//! What templates expect of the Python program that their makers run them in.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use minijinja::formatting::{FormatStyle, format as format_values};
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::builtins;
use super::json::{float, invalid, tojson};
use super::limits::{
    CONTAINER_BYTES, ITEM_BYTES, MAX_BUILT_BYTES, MAX_DEPTH, MAX_OUTPUT_BYTES, MAX_STEPS, MAX_TIME, MAX_WIDTH,
};
use super::program::too_large;

/// Names of the functions that stand in for instructions; no template can spell them.
pub(super) const ADD_UP: &str = "+=";
pub(super) const CONCAT: &str = "~";
pub(super) const MULTIPLY: &str = "*";
pub(super) const REMAINDER: &str = "%";

/// What a template says with `raise_exception`.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// What one rendering has used.
struct Budget {
    started: Instant,
    n_bytes: AtomicUsize,
}

impl Budget {
    fn take(&self, n_bytes: usize) -> Result<(), Error> {
        if self.time_spent() > MAX_TIME {
            return Err(invalid(format!("takes longer than {} ms", MAX_TIME.as_millis())));
        }
        let total = self.n_bytes.fetch_add(n_bytes, Ordering::Relaxed).saturating_add(n_bytes);
        if n_bytes > MAX_OUTPUT_BYTES || total > MAX_BUILT_BYTES {
            return Err(invalid(too_large()));
        }
        Ok(())
    }

    /// Time on the clock, or, past the limit, the time that this thread really ran: a busy machine is no fault of a
    /// template's.
    fn time_spent(&self) -> Duration {
        let elapsed = self.started.elapsed();
        if elapsed <= MAX_TIME { elapsed } else { thread_time().unwrap_or(elapsed) }
    }

    fn take_value(&self, value: &Value) -> Result<(), Error> {
        self.take(match value.as_str() {
            Some(text) => text.len(),
            None if value.as_object().is_some() => {
                CONTAINER_BYTES + value.len().unwrap_or(0).saturating_mul(ITEM_BYTES)
            }
            None => 0,
        })
    }
}

/// How long this thread has run, where the system says it.
fn thread_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(stat.split_whitespace().next()?.parse().ok()?))
}

/// Writes until there is too much.
struct Bounded<W> {
    out: W,
    left: usize,
}

impl<W: fmt::Write> fmt::Write for Bounded<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.left = self.left.checked_sub(text.len()).ok_or(fmt::Error)?;
        self.out.write_str(text)
    }
}

/// The value's text, bounded: a list may hold itself many times over.
pub(super) fn text_of(value: &Value) -> Result<String, Error> {
    if value.kind() == ValueKind::Number && !value.is_integer() {
        return Ok(f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float));
    }
    let mut bounded = Bounded { out: String::new(), left: MAX_OUTPUT_BYTES };
    write!(bounded, "{value}").map_err(|_| invalid(too_large()))?;
    Ok(bounded.out)
}

/// An environment for one rendering.
pub(super) fn environment(now: jiff::civil::DateTime) -> Environment<'static> {
    let budget = Arc::new(Budget { started: Instant::now(), n_bytes: AtomicUsize::new(0) });
    let mut environment = Environment::new();
    environment.set_fuel(Some(MAX_STEPS));
    environment.set_recursion_limit(MAX_DEPTH);
    let add_up = Arc::clone(&budget);
    environment.add_function(ADD_UP, move |value: Value| add_up.take_value(&value).map(|()| value));
    environment.set_formatter(move |out, _, value| emit(&budget, out, value));
    environment.set_unknown_method_callback(method);
    environment.add_function(CONCAT, |left: &Value, right: &Value| -> Result<String, Error> {
        Ok(text_of(left)? + &text_of(right)?)
    });
    environment.add_function(MULTIPLY, multiply);
    environment.add_function(REMAINDER, remainder);
    environment.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        Err(invalid("raised by the template").with_source(Raised(message.to_string())))
    });
    environment.add_function("strftime_now", move |format: &str| {
        jiff::fmt::strtime::format(format, now).map_err(|e| invalid(format!("strftime_now: {e}")))
    });
    environment.add_filter("tojson", tojson);
    builtins::add_to(&mut environment);
    environment.add_filter(
        "join",
        |list: &Value, by: Option<&str>, attribute: Option<&str>, options: Kwargs| {
            let attribute =
                attribute.map_or_else(|| options.get::<Option<&str>>("attribute"), |name| Ok(Some(name)))?;
            let by = by.map_or_else(|| options.get::<Option<&str>>("d"), |by| Ok(Some(by)))?;
            join(list, by.unwrap_or_default(), attribute)
        },
    );
    environment.add_filter("format", |format: &str, values: Rest<Value>| {
        check_widths(format)?;
        format_values(FormatStyle::Printf, format, &values)
    });
    environment.add_filter("string", text_of);
    for name in ["length", "count"] {
        environment.add_filter(name, |value: &Value| {
            // In Python, what is not there has the length 0.
            if value.is_undefined() { Some(0) } else { value.len() }
                .ok_or_else(|| invalid(format!("a value of kind {} has no length", value.kind())))
        });
    }
    environment.add_filter("indent", indent);
    environment
}

fn emit(budget: &Budget, out: &mut Output<'_>, value: &Value) -> Result<(), Error> {
    if value.is_undefined() {
        return Ok(());
    }
    let failed = |_| Error::new(ErrorKind::WriteFailure, too_large());
    if let Some(text) = value.as_str() {
        budget.take(text.len())?;
        return out.write_str(text).map_err(failed);
    }
    let text = text_of(value)?;
    budget.take(text.len())?;
    out.write_str(&text).map_err(failed)
}

/// `*`: numbers as usual, texts and lists repeated within bounds.
fn multiply(left: &Value, right: &Value) -> Result<Value, Error> {
    for (repeated, times) in [(left, right), (right, left)] {
        let size = match repeated.kind() {
            ValueKind::String => repeated.as_str().unwrap_or_default().len(),
            ValueKind::Seq | ValueKind::Iterable => {
                repeated.len().unwrap_or(usize::MAX).saturating_mul(ITEM_BYTES)
            }
            _ => continue,
        };
        let n_times = usize::try_from(times.clone()).unwrap_or(0);
        if size.saturating_mul(n_times) > MAX_OUTPUT_BYTES {
            return Err(invalid(too_large()));
        }
    }
    evaluated("left * right", left, right)
}

/// `%`: numbers as usual, texts formatted within bounds.
fn remainder(left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(format) = left.as_str() {
        check_widths(format)?;
        let values = if right.is_tuple() { right.try_iter()?.collect() } else { vec![right.clone()] };
        return format_values(FormatStyle::Printf, format, &values).map(Value::from);
    }
    evaluated("left % right", left, right)
}

/// What the engine itself makes of an expression.
fn evaluated(expression: &str, left: &Value, right: &Value) -> Result<Value, Error> {
    let variables = Value::from_pairs([("left", left.clone()), ("right", right.clone())]);
    Environment::empty().compile_expression(expression)?.eval(variables)
}

/// Refuses a format that asks for wide padding, or for a width given by a value.
fn check_widths(format: &str) -> Result<(), Error> {
    let widths = format.split(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty());
    let is_wide = widths.into_iter().any(|run| run.parse::<usize>().map_or(true, |width| width > MAX_WIDTH));
    // Long digits that are only text are refused too where the format has fields at all.
    if is_wide && format.contains(['%', '{']) || format.contains("%*") {
        return Err(invalid(format!("a format asks for a width over the limit of {MAX_WIDTH}")));
    }
    Ok(())
}

pub(super) fn replace(text: &str, from: &str, to: &str, at_most: Option<usize>) -> Result<String, Error> {
    let n_found = text.matches(from).count().min(at_most.unwrap_or(usize::MAX));
    if n_found.saturating_mul(to.len()).saturating_add(text.len()) > MAX_OUTPUT_BYTES {
        return Err(invalid(too_large()));
    }
    Ok(text.replacen(from, to, n_found))
}

fn join(list: &Value, by: &str, attribute: Option<&str>) -> Result<String, Error> {
    let mut out = Bounded { out: String::new(), left: MAX_OUTPUT_BYTES };
    let is_first = &mut true;
    for item in list.try_iter()? {
        let item = match attribute {
            Some(name) => item.get_attr(name)?,
            None => item,
        };
        let separator = if std::mem::take(is_first) { "" } else { by };
        write!(out, "{separator}{item}").map_err(|_| invalid(too_large()))?;
    }
    Ok(out.out)
}

#[expect(clippy::needless_pass_by_value, reason = "the engine hands filters their options by value")]
fn indent(
    text: &str,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    options: Kwargs,
) -> Result<String, Error> {
    let width = width.map_or_else(|| options.get::<Option<Value>>("width"), |width| Ok(Some(width)))?;
    let first =
        first.map_or_else(|| options.get::<Option<bool>>("first"), |first| Ok(Some(first)))?.unwrap_or(false);
    let blank =
        blank.map_or_else(|| options.get::<Option<bool>>("blank"), |blank| Ok(Some(blank)))?.unwrap_or(false);
    options.assert_all_used()?;
    let prefix = match width {
        None => " ".repeat(4),
        Some(text) if text.as_str().is_some() => text.to_string(),
        Some(width) => " ".repeat(usize::try_from(width)?.min(MAX_WIDTH + 1)),
    };
    if prefix.len() > MAX_WIDTH {
        return Err(invalid(format!("indent is over the limit of {MAX_WIDTH}")));
    }
    let mut out = Bounded { out: String::new(), left: MAX_OUTPUT_BYTES };
    for (n, line) in text.split('\n').enumerate() {
        let is_indented = if n == 0 { first } else { blank || !line.is_empty() };
        let prefix = if is_indented { prefix.as_str() } else { "" };
        let end = if n == 0 { "" } else { "\n" };
        write!(out, "{end}{prefix}{line}").map_err(|_| invalid(too_large()))?;
    }
    Ok(out.out)
}

/// Methods of Python's strings, lists and dictionaries.
fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else { return unknown_method_callback(state, value, name, args) };
    let mut words = args.iter().map(Value::as_str).chain([None, None]);
    let found = match (name, words.next().flatten(), words.next().flatten()) {
        ("replace", Some(from), Some(to)) => {
            let at_most = args.get(2).and_then(|n| usize::try_from(n.clone()).ok());
            replace(text, from, to, at_most)?.into()
        }
        ("join", ..) if args.len() == 1 => join(&args[0], text, None)?.into(),
        ("removeprefix", Some(prefix), None) => text.strip_prefix(prefix).unwrap_or(text).into(),
        ("removesuffix", Some(suffix), None) => text.strip_suffix(suffix).unwrap_or(text).into(),
        ("isspace", ..) if args.is_empty() => {
            (!text.is_empty() && text.chars().all(char::is_whitespace)).into()
        }
        ("rsplit", Some(by), None) => {
            let at_most =
                args.get(1).and_then(|n| usize::try_from(n.clone()).ok()).map_or(usize::MAX, |n| n + 1);
            let mut parts: Vec<Value> = text.rsplitn(at_most, by).map(Value::from).collect();
            parts.reverse();
            parts.into()
        }
        ("partition", Some(by), None) => {
            let (head, tail) = text.split_once(by).unwrap_or((text, ""));
            let middle = if head.len() < text.len() { by } else { "" };
            [head, middle, tail].into_iter().collect()
        }
        ("rpartition", Some(by), None) => {
            let (head, tail) = text.rsplit_once(by).unwrap_or(("", text));
            let middle = if tail.len() < text.len() { by } else { "" };
            [head, middle, tail].into_iter().collect()
        }
        ("format", ..) => {
            check_widths(text)?;
            return unknown_method_callback(state, value, name, args);
        }
        _ => {
            return builtins::string_method(text, name, args)
                .unwrap_or_else(|| unknown_method_callback(state, value, name, args));
        }
    };
    Ok(found)
}
