//! What a message is surely about, where single words would mislead the feeling: "sick of my debts" is no illness, what
//! the doctor calls fine is no fear.

use super::super::feeling::{Felt, Valence};
use super::wording;
use super::words;

/// The feeling, and the heading of what is said to it where the matter is sure. The words are in `echo.txt`.
pub(super) fn sure(message: &str, felt: Felt) -> (Felt, Option<&'static str>) {
    let text = format!(" {} ", words(message).join(" "));
    let has =
        |list: &str| wording::list(list).any(|one| text.contains(&format!(" {} ", one.replace('_', " "))));
    let is = Felt::known;
    let is_hard = felt.valence == Some(Valence::Hard);
    match () {
        () if has("news") && has("good news") && !has("but") => (is("joy"), Some("joy healing")),
        () if has("laughs") && has("fails") && !has("earnest") => (is("neutral"), Some("light fail")),
        () if has("checks") && has("to come") && !has("good news") && !has("of a baby") => {
            (is("worried"), Some("worried results"))
        }
        () if has("operations") && has("to come") && !has("good news") => {
            (is("worried"), Some("worried operation"))
        }
        () if has("ex") && has("new love") => (felt, Some("mixed ex")),
        () if has("shouted") => (is("hurt"), Some("hurt shouted")),
        () if has("money") && felt.name == "ill" => (is("worried"), Some("worried money")),
        () if has("homework") && has("dull") => (is("bored"), Some("bored homework")),
        () if has("retired") && (is_hard || has("unfilled")) && felt.valence != Some(Valence::Good) => {
            (felt, Some("sad retired"))
        }
        () if has("without") && has("without since") && felt.valence != Some(Valence::Good) => {
            (is("missing"), None)
        }
        () if has("married long") && !is_hard && !has("but") => (is("joy"), Some("good anniversary")),
        () if has("plainly hard") && felt.valence.is_none() && !has("but") => (felt, Some("hard")),
        () if has("plainly good") && felt.valence.is_none() && !has("but") => (felt, Some("good")),
        // Supper for one is no loneliness yet.
        () if felt.name == "lonely" && !has("lonely words") => {
            (Felt { name: "open", is_known: false, valence: None, ..felt }, None)
        }
        () if has("happy") && !has("but") => (is("joy"), None),
        () if has("joyful") && !is_hard && !text.contains(" but ") => (is("joy"), None),
        () => (felt, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sure_goes_before_single_words() {
        for (message, heading) in [
            ("The doctor says my hip is healing nicely", Some("joy healing")),
            ("The doctor says it isn't healing", None),
            ("my bread came out like a brick lol", Some("light fail")),
            ("i failed my exam lol", None),
            ("My boss yelled at me in front of the team", Some("hurt shouted")),
            ("my homework is so boring", Some("bored homework")),
            ("my scan is on monday", Some("worried results")),
            ("our baby scan is on monday", None),
            ("my surgery is on friday", Some("worried operation")),
            ("my ex got engaged", Some("mixed ex")),
            ("my bike broke", None),
        ] {
            assert_eq!(sure(message, super::super::super::feeling::of(message)).1, heading, "{message}");
            assert!(heading.is_none_or(super::super::wording::has_heading), "{message}");
        }
    }
}
