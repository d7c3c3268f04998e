//! Sums with two numbers: the one kind of homework that a rule does better than a model of any size.

/// Larger numbers are for a calculator.
const MAX_NUMBER: i64 = 1_000_000_000;
/// What may stand around the sum.
const AROUND: [&str; 25] = [
    "what",
    "whats",
    "is",
    "are",
    "how",
    "much",
    "many",
    "calculate",
    "solve",
    "can",
    "you",
    "tell",
    "me",
    "please",
    "pls",
    "do",
    "know",
    "equal",
    "equals",
    "make",
    "makes",
    "hey",
    "mum",
    "mom",
    "and",
];

/// The answer to "what is 17 times 6?"; `None` for every other message.
pub(super) fn answer(message: &str) -> Option<String> {
    let lower = message.to_lowercase().replace(['\'', '’'], "");
    let spaced: String = apart(&lower).chars().map(spaced).collect();
    let mut of_sum = spaced.split_whitespace().filter(|w| !AROUND.contains(w)).collect::<Vec<_>>();
    // "divided by", "multiplied by"
    of_sum.retain(|w| *w != "by");
    let [a, operator, b] = of_sum[..] else { return None };
    let number = |word: &str| word.parse::<i64>().ok().filter(|n| *n <= MAX_NUMBER);
    let (a, b) = (number(a)?, number(b)?);
    let (sign, result) = match operator {
        "+" | "plus" => ("+", (a + b).to_string()),
        "-" | "minus" => ("−", (a - b).to_string().replace('-', "−")),
        "*" | "x" | "×" | "times" | "multiplied" => ("×", (a * b).to_string()),
        "/" | "÷" | ":" | "over" | "divided" => ("÷", quotient(a, b)?),
        _ => return None,
    };
    Some(format!(
        "{a} {sign} {b} is {result}. If it's homework, tell me how you'd get there, and we'll see if we agree."
    ))
}

/// `9x9` as `9 x 9`, and `box` as it is.
fn apart(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let is_digit = |i: usize| chars.get(i).is_some_and(char::is_ascii_digit);
    let is_times = |i: usize| chars[i] == 'x' && i > 0 && is_digit(i - 1) && is_digit(i + 1);
    (0..chars.len()).map(|i| if is_times(i) { " x ".to_owned() } else { chars[i].to_string() }).collect()
}

fn quotient(a: i64, b: i64) -> Option<String> {
    let (whole, rest) = (a.checked_div(b)?, a.checked_rem(b)?);
    Some(if rest == 0 { whole.to_string() } else { format!("{whole}, with {rest} left over") })
}

/// Signs stand for themselves, and closing marks for nothing.
fn spaced(c: char) -> String {
    match c {
        '+' | '-' | '*' | '×' | '/' | '÷' => format!(" {c} "),
        '?' | '=' | '!' | ',' | '.' => " ".to_owned(),
        _ => c.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_worked_out_and_nothing_else_is() {
        for (asked, result) in [
            ("what is 17 times 6?", "17 × 6 is 102."),
            ("What's 5+7", "5 + 7 is 12."),
            ("3 - 10 =", "3 − 10 is −7."),
            ("how much is 100 divided by 8", "100 ÷ 8 is 12, with 4 left over."),
            ("12 x 12 please", "12 × 12 is 144."),
            ("what's 9x9", "9 × 9 is 81."),
        ] {
            assert!(answer(asked).unwrap().starts_with(result), "{asked}: {:?}", answer(asked));
        }
        for other in
            ["4 / 0", "i am 9 and my brother is 6", "what is 5", "", "99999999999999999999 + 1", "two plus 2"]
        {
            assert_eq!(answer(other), None, "{other}");
        }
    }
}
