//! A kind word in the language of somebody who writes in another than English.

/// `language TAB first letter and last of its script, or words that only it has TAB reply`.
const LANGUAGES: &str = include_str!("../../../assets/languages.tsv");
/// Of the words so many must belong to the language; of the letters, to the script.
const MIN_SHARE: f32 = 0.4;

/// What to answer, if the message is in a language that is not English and was not answered so before.
pub(super) fn reply(message: &str, said: &[&str]) -> Option<&'static str> {
    let mut of_script = LANGUAGES.lines().filter_map(parts);
    of_script
        .find(|(marks, _)| is_in(message, marks))
        .map(|(_, reply)| reply)
        .filter(|reply| !said.contains(reply))
}

fn parts(line: &'static str) -> Option<(&'static str, &'static str)> {
    let mut cells = line.split('\t');
    cells.next();
    Some((cells.next()?, cells.next()?))
}

fn is_in(message: &str, marks: &str) -> bool {
    if let Some((first, last)) = marks.split_once('…') {
        let (Ok(first), Ok(last)) = (first.parse::<char>(), last.parse::<char>()) else { return false };
        let letters: Vec<char> = message.chars().filter(|c| c.is_alphabetic()).collect();
        let n = letters.iter().filter(|c| (first..=last).contains(c)).count();
        return n > 0 && n as f32 >= MIN_SHARE * letters.len() as f32;
    }
    let lower = message.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let n = words.iter().filter(|word| marks.split(' ').any(|mark| mark == **word)).count();
    n > 0 && n as f32 >= MIN_SHARE * words.len() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_languages_are_answered_in_kind_and_english_is_not() {
        for (message, part) in [
            ("Ich bin heute sehr traurig.", "Deutsch"),
            ("hola mami", "español"),
            ("je suis triste", "français"),
            ("我今天很难过", "英"),
            ("こんにちは、ママ", "英語"),
            ("안녕하세요", "영어"),
            ("привет как дела", "английски"),
            ("مرحبا كيف حالك", "الإنجليزية"),
        ] {
            let reply = reply(message, &[]).unwrap_or_else(|| panic!("{message}"));
            assert!(reply.contains(part), "{message}: {reply}");
            assert_eq!(super::reply(message, &[reply]), None);
        }
        for english in
            ["i had a bad day", "no", "my pasta died", "we made a pie", "so long", "sad me", "?", "❤️", "hi"]
        {
            assert_eq!(reply(english, &[]), None, "{english}");
        }
    }

    #[test]
    fn every_line_is_whole() {
        for line in LANGUAGES.lines() {
            assert_eq!(line.split('\t').count(), 3, "{line}");
        }
    }
}
