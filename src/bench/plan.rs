//! What is to be measured: llama-bench's value lists, and the tests that they multiply to.

use std::fmt;

/// Most tests of one call: a list that was mistyped (`1-100000`) must not start a week of work.
pub const MAX_TESTS: usize = 10_000;
/// Most repetitions of a test.
pub const MAX_REPETITIONS: usize = 10_000;
/// Largest value that a list may hold: as many positions as any model has.
pub const MAX_VALUE: usize = 1 << 20;
/// Most sequences at once, as many as the server runs.
pub const MAX_SEQUENCES: usize = 256;

/// A value that cannot be used; always wrong usage. The text names the flag, the value and what is possible.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// Parses `1,2`, `first-last`, `first-last+step` and `first-last*factor`, mixed by commas, as llama-bench does.
///
/// # Errors
/// [`Invalid`] naming `flag`, what was typed and the form.
pub fn parse_list(flag: &str, text: &str, least: usize, most: usize) -> Result<Vec<usize>, Invalid> {
    let mut values = Vec::new();
    for item in text.split(',') {
        parse_item(item, &mut values).map_err(|problem| {
            Invalid(format!(
                "{flag} {text}: {problem}; give numbers such as 512, 128,512, 128-512+128 or 1-16*2"
            ))
        })?;
    }
    match values.iter().find(|value| !(least..=most).contains(*value)) {
        Some(value) => Err(Invalid(format!("{flag} {text}: {value} is not from {least} to {most}"))),
        None => Ok(values),
    }
}

fn parse_item(item: &str, values: &mut Vec<usize>) -> Result<(), String> {
    let number = |text: &str| -> Result<usize, String> {
        // `parse` alone would take a sign.
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let value = if digits { text.parse().ok() } else { None };
        value.ok_or_else(|| format!("{text:?} is no number"))
    };
    let Some((first, rest)) = item.split_once('-') else {
        values.push(number(item)?);
        return Ok(());
    };
    let (last, step) = match rest.find(['+', '*']) {
        Some(at) => (&rest[..at], Some((rest.as_bytes()[at], &rest[at + 1..]))),
        None => (rest, None),
    };
    let (mut value, last) = (number(first)?, number(last)?);
    let (operator, step) = match step {
        Some((operator, step)) => (operator, number(step)?),
        None => (b'+', 1),
    };
    if value > last {
        return Err(format!("the range {item} is empty"));
    }
    while value <= last {
        values.push(value);
        if values.len() > MAX_TESTS {
            return Err(format!("the range {item} has more than {MAX_TESTS} values"));
        }
        let next = if operator == b'*' { value.checked_mul(step) } else { value.checked_add(step) };
        match next {
            Some(next) if next > value => value = next,
            Some(_) => return Err(format!("the range {item} does not advance")),
            None => return Ok(()),
        }
    }
    Ok(())
}

/// Parses the pair of `-pg`: `prompt,generated`.
///
/// # Errors
/// [`Invalid`].
pub fn parse_pair(flag: &str, text: &str) -> Result<(usize, usize), Invalid> {
    let pair = text.split_once(',').and_then(|(p, n)| Some((p.trim().parse().ok()?, n.trim().parse().ok()?)));
    match pair {
        Some((p, n)) if p <= MAX_VALUE && n <= MAX_VALUE && p + n > 0 => Ok((p, n)),
        _ => Err(Invalid(format!(
            "{flag} {text}: give two numbers, prompt and generated tokens, such as 512,128"
        ))),
    }
}

/// The lists as they were typed, checked.
#[derive(Clone, Debug)]
pub struct Lists {
    /// `-p`; a 0 is left out.
    pub n_prompt: Vec<usize>,
    /// `-n`; a 0 is left out.
    pub n_gen: Vec<usize>,
    /// `-pg`.
    pub n_pg: Vec<(usize, usize)>,
    /// `-d`.
    pub n_depth: Vec<usize>,
    /// `-b`.
    pub n_batch: Vec<usize>,
    /// `-ub`.
    pub n_ubatch: Vec<usize>,
    /// `-t`.
    pub n_threads: Vec<usize>,
    /// `-np`.
    pub n_seqs: Vec<usize>,
}

/// One test of one model.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Test {
    /// Tokens of the prompt, of each sequence.
    pub n_prompt: usize,
    /// Tokens generated, by each sequence.
    pub n_gen: usize,
    /// Positions filled before the time is taken.
    pub n_depth: usize,
    /// Logical batch, of which a step is not larger.
    pub n_batch: usize,
    /// Rows of one step in prefill.
    pub n_ubatch: usize,
    /// Threads of the forward pass.
    pub n_threads: usize,
    /// Sequences at once.
    pub n_seqs: usize,
}

impl Test {
    /// Positions that each sequence needs.
    pub fn n_ctx(&self) -> usize {
        self.n_depth + self.n_prompt + self.n_gen
    }
    /// Tokens that are counted, of all sequences together.
    pub fn n_tokens(&self) -> usize {
        (self.n_prompt + self.n_gen) * self.n_seqs
    }
    /// Rows of one prefill step.
    pub fn n_step(&self) -> usize {
        self.n_ubatch.min(self.n_batch)
    }
}

impl Test {
    /// llama-bench's name: `pp512`, `tg128`, `pp512+tg128`, with ` @ d1024` for a depth.
    pub fn name(&self) -> String {
        let tokens = match (self.n_prompt, self.n_gen) {
            (p, 0) => format!("pp{p}"),
            (0, n) => format!("tg{n}"),
            (p, n) => format!("pp{p}+tg{n}"),
        };
        if self.n_depth > 0 { format!("{tokens} @ d{}", self.n_depth) } else { tokens }
    }
}

impl fmt::Display for Test {
    /// The name, and the number of sequences where there are several.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        if self.n_seqs > 1 { write!(f, " x {}", self.n_seqs) } else { Ok(()) }
    }
}

impl Lists {
    /// All tests of one model, in llama-bench's order; sequences vary between threads and depth.
    ///
    /// # Errors
    /// [`Invalid`] where there is nothing to measure, or too much.
    pub fn tests(&self) -> Result<Vec<Test>, Invalid> {
        let kinds = self.n_prompt.len() + self.n_gen.len() + self.n_pg.len();
        let lengths = [&self.n_batch, &self.n_ubatch, &self.n_threads, &self.n_seqs, &self.n_depth];
        let n = lengths.iter().try_fold(kinds, |n, list| n.checked_mul(list.len()));
        if n.is_none_or(|n| n > MAX_TESTS) {
            return Err(Invalid(format!("the lists multiply to more than {MAX_TESTS} tests; shorten one")));
        }
        let mut tests = Vec::new();
        for &n_batch in &self.n_batch {
            for &n_ubatch in &self.n_ubatch {
                for &n_threads in &self.n_threads {
                    for &n_seqs in &self.n_seqs {
                        for &n_depth in &self.n_depth {
                            let base =
                                Test { n_prompt: 0, n_gen: 0, n_depth, n_batch, n_ubatch, n_threads, n_seqs };
                            tests.extend(self.n_prompt.iter().map(|&n_prompt| Test { n_prompt, ..base }));
                            tests.extend(self.n_gen.iter().map(|&n_gen| Test { n_gen, ..base }));
                            let pairs = self.n_pg.iter();
                            tests.extend(pairs.map(|&(n_prompt, n_gen)| Test { n_prompt, n_gen, ..base }));
                        }
                    }
                }
            }
        }
        tests.retain(|test| test.n_prompt + test.n_gen > 0);
        if tests.is_empty() {
            return Err(Invalid("-p 0 -n 0: there is nothing to measure; give one of -p, -n, -pg".into()));
        }
        Ok(tests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Result<Vec<usize>, Invalid> {
        parse_list("-p", text, 0, MAX_VALUE)
    }

    #[test]
    fn lists_and_ranges_are_llama_benchs() {
        assert_eq!(list("512").unwrap(), [512]);
        assert_eq!(list("1,2,3").unwrap(), [1, 2, 3]);
        assert_eq!(list("1-4").unwrap(), [1, 2, 3, 4]);
        assert_eq!(list("128-512+128").unwrap(), [128, 256, 384, 512]);
        assert_eq!(list("1-16*2").unwrap(), [1, 2, 4, 8, 16]);
        assert_eq!(list("1-5*3,7,9-10").unwrap(), [1, 3, 7, 9, 10]);
    }

    #[test]
    fn bad_lists_are_named() {
        for bad in
            ["", "x", "1,,2", "-1", "4-1", "1-4+0", "1-4*1", "0-8*2", "+5", "1-2-3", "99999999999999999999"]
        {
            let error = list(bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("-p {bad}: ")), "{error}");
        }
        assert!(list("2000000").unwrap_err().to_string().contains("2000000 is not from 0 to 1048576"));
        assert!(list("1-1000000").is_err());
        for bad in ["512", "512,", "a,b", "0,0", "1,2,3"] {
            assert!(parse_pair("-pg", bad).is_err(), "{bad}");
        }
        assert_eq!(parse_pair("-pg", "512,128").unwrap(), (512, 128));
    }

    #[test]
    fn tests_stand_in_llama_benchs_order_with_its_names() {
        let lists = Lists {
            n_prompt: vec![512, 0],
            n_gen: vec![128],
            n_pg: vec![(256, 64)],
            n_depth: vec![0, 1024],
            n_batch: vec![2048],
            n_ubatch: vec![512],
            n_threads: vec![2],
            n_seqs: vec![1],
        };
        let names: Vec<String> = lists.tests().unwrap().iter().map(Test::to_string).collect();
        let expected =
            ["pp512", "tg128", "pp256+tg64", "pp512 @ d1024", "tg128 @ d1024", "pp256+tg64 @ d1024"];
        assert_eq!(names, expected);
        let nothing = Lists { n_prompt: vec![0], n_gen: vec![0], n_pg: vec![], ..lists };
        assert!(nothing.tests().unwrap_err().to_string().contains("nothing to measure"));
    }
}
