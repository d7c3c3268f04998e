//! What a message is surely about, where single words would mislead the feeling: "sick of my debts" is no illness, what
//! the doctor calls fine is no fear.

use super::super::feeling::{Felt, Valence};
use super::words;

/// Those who bring news of somebody's health,
const NEWS: [&str; 10] =
    ["doctor", "doctors", "vet", "surgeon", "nurse", "results", "scan", "tests", "biopsy", "dentist"];
/// what makes the news good,
const GOOD_NEWS: [&str; 16] = [
    "healing",
    "healed",
    "clear",
    "benign",
    "remission",
    "cured",
    "cancer free",
    "all good",
    "will be fine",
    "is fine",
    "be ok",
    "be okay",
    "came back fine",
    "nothing serious",
    "recovering well",
    "getting better",
];
/// and what takes it back.
const BUT: [&str; 10] =
    ["but", "not", "isnt", "wont", "unless", "if", "hope", "hoping", "waiting", "whether"];
/// A scan that is looked forward to.
const OF_A_BABY: [&str; 6] =
    ["first scan", "baby scan", "baby", "pregnant", "girl or a boy", "boy or a girl"];
/// What is told of somebody's former love.
const NEW_LOVE: [&str; 8] = [
    "engaged",
    "married",
    "getting married",
    "new girlfriend",
    "new boyfriend",
    "new wife",
    "new husband",
    "somebody new",
];
/// What nobody looks forward to,
const CHECKS: [&str; 8] =
    ["scan", "biopsy", "mri", "operation", "surgery", "blood test", "mammogram", "test results"];
/// while it is still ahead.
const TO_COME: [&str; 12] = [
    "tomorrow",
    "tonight",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "next week",
    "waiting",
    "this week",
];
const MONEY: [&str; 10] =
    ["debt", "debts", "rent", "bill", "bills", "loan", "mortgage", "overdraft", "owe", "bank"];
const LAUGHS: [&str; 8] = ["lol", "lmao", "haha", "hahaha", "rofl", "hehe", "oops", "whoops"];
const FAILS: [&str; 18] = [
    "brick",
    "burnt",
    "burned",
    "flat",
    "disaster",
    "ruined",
    "fail",
    "failed",
    "mess",
    "collapsed",
    "rock",
    "charcoal",
    "exploded",
    "raw",
    "lumpy",
    "soggy",
    "wonky",
    "crooked",
];
/// What is no joke, even with a laugh behind it.
const EARNEST: [&str; 10] =
    ["exam", "test", "school", "class", "driving", "marriage", "house", "died", "hospital", "myself"];
const DULL: [&str; 3] = ["boring", "dull", "yawn"];
const SHOUTED: [&str; 6] =
    ["yelled at me", "shouted at me", "screamed at me", "yells at me", "shouts at me", "screams at me"];

/// The feeling, and the heading of what is said to it where the matter is sure.
pub(super) fn sure(message: &str, felt: Felt) -> (Felt, Option<&'static str>) {
    let words = words(message);
    let text = format!(" {} ", words.join(" "));
    let has = |list: &[&str]| list.iter().any(|one| text.contains(&format!(" {one} ")));
    let is = Felt::known;
    let is_hard = felt.valence == Some(Valence::Hard);
    match () {
        () if has(&NEWS) && has(&GOOD_NEWS) && !has(&BUT) => (is("joy"), Some("joy healing")),
        () if has(&LAUGHS) && has(&FAILS) && !has(&EARNEST) => (is("neutral"), Some("light fail")),
        () if has(&CHECKS) && has(&TO_COME) && !has(&GOOD_NEWS) && !has(&OF_A_BABY) => {
            (is("worried"), Some("worried results"))
        }
        () if has(&["my ex"]) && has(&NEW_LOVE) => (felt, Some("mixed ex")),
        () if has(&SHOUTED) => (is("hurt"), Some("hurt shouted")),
        () if has(&MONEY) && felt.name == "ill" => (is("worried"), Some("worried money")),
        () if has(&["homework"]) && has(&DULL) => (is("bored"), Some("bored homework")),
        () if has(&["retired", "retirement"]) && is_hard => (felt, Some("sad retired")),
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
            ("my bike broke", None),
        ] {
            assert_eq!(sure(message, super::super::super::feeling::of(message)).1, heading, "{message}");
            assert!(heading.is_none_or(super::super::wording::has_heading), "{message}");
        }
    }
}
