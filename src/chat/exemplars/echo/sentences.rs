//! A message in sentences of plainly spelt words: apostrophes are put back, interjections and forms of address go, and
//! what was typed in one breath is cut where a new sentence begins.

/// A word as it is to be written.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Word {
    /// As it is written.
    pub(super) text: String,
    /// In lower case without apostrophes.
    pub(super) low: String,
    /// A comma follows.
    pub(super) has_comma: bool,
}

impl Word {
    pub(super) fn new(text: &str) -> Self {
        let low = text.to_lowercase().replace(['\'', '’'], "");
        Self { text: text.replace('’', "'"), low, has_comma: false }
    }
}

/// Some words up to an end mark.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Sentence {
    pub(super) words: Vec<Word>,
    /// A question mark ends it.
    pub(super) asks: bool,
    /// An exclamation mark ends it.
    pub(super) shouts: bool,
    /// It has quotation marks, brackets, addresses: nothing to be given back.
    pub(super) is_odd: bool,
}

/// What is written without its apostrophe, or short, and how it is written in full.
const FULL: &str = "dont=don't cant=can't cannot=can't wont=won't didnt=didn't doesnt=doesn't isnt=isn't arent=aren't \
    wasnt=wasn't werent=weren't hasnt=hasn't havent=haven't hadnt=hadn't couldnt=couldn't wouldnt=wouldn't \
    shouldnt=shouldn't im=I'm ive=I've hes=he's shes=she's theyre=they're theyve=they've theyll=they'll thats=that's \
    whats=what's theres=there's heres=here's wheres=where's whos=who's youre=you're youve=you've youll=you'll \
    weve=we've itll=it'll aint=isn't idk=I_don't_know dunno=don't_know wanna=want_to gonna=going_to gotta=have_to \
    kinda=kind_of sorta=sort_of lemme=let_me tho=though cos=because bc=because cuz=because n=and alot=a_lot \
    rn=right_now atm=at_the_moment i=I everyones=everyone's nobodys=nobody's somebodys=somebody's ima=I'm_going_to \
    everybodys=everybody's someones=someone's b4=before thru=through noone=nobody w=with favourit=favourite";
/// Signs that stand beside an amount.
const CURRENCIES: [char; 5] = ['£', '$', '€', '¥', '₹'];
/// What says nothing.
const EMPTY: &str = "lol lmao haha hahaha hehe omg ugh ughh tbh ngl btw xx xxx xd honestly literally wow argh aargh \
    eek yay woohoo hooray yikes phew smh fyi basically rofl woo x omfg";
/// What may stand before a sentence proper.
const BEFORE: [&str; 34] = [
    "so",
    "well",
    "ok",
    "okay",
    "oh",
    "hey",
    "hi",
    "hello",
    "hiya",
    "yo",
    "um",
    "umm",
    "uh",
    "hmm",
    "hm",
    "ah",
    "anyway",
    "actually",
    "also",
    "and",
    "then",
    "dear",
    "please",
    "sorry",
    "yes",
    "yeah",
    "no",
    "guys",
    "listen",
    "look",
    "evening",
    "morning",
    "afternoon",
    "but",
];
const BEFORE_PHRASES: [&[&str]; 20] = [
    &["guess", "what"],
    &["you", "know", "what"],
    &["i", "just", "wanted", "to", "say", "that"],
    &["i", "just", "wanted", "to", "say"],
    &["i", "wanted", "to", "tell", "you", "that"],
    &["i", "just", "wanted", "to", "tell", "you", "that"],
    &["i", "wanted", "to", "tell", "you"],
    &["i", "just", "wanted", "to", "tell", "you"],
    &["i", "have", "to", "tell", "you"],
    &["good", "morning"],
    &["good", "evening"],
    &["good", "afternoon"],
    &["just", "so", "you", "know"],
    &["long", "story", "short"],
    &["to", "be", "honest"],
    &["good", "news"],
    &["bad", "news"],
    &["great", "news"],
    &["believe", "it", "or", "not"],
    &["the", "thing", "is"],
];
/// Forms of address.
pub(super) const PARENTS: [&str; 12] =
    ["mum", "mom", "mommy", "mummy", "mama", "mam", "ma", "dad", "daddy", "papa", "mother", "mumma"];
/// What shows after one of them that it is a form of address: "mum i fell".
const AFTER_ADDRESS: [&str; 30] = [
    "look", "see", "listen", "he", "she", "they", "i", "im", "ive", "guess", "what", "whats", "why", "how",
    "can", "could", "do", "please", "my", "we", "is", "there", "theres", "where", "when", "should", "help",
    "it", "its", "the",
];
/// What says that the last word is none: "i told mum".
const BEFORE_PARENT: [&str; 38] = [
    "okayest", "best", "greatest", "worst", "my", "your", "his", "her", "their", "our", "a", "the", "to",
    "with", "from", "for", "of", "told", "tell", "asked", "ask", "and", "or", "miss", "love", "hate", "like",
    "by", "at", "about", "without", "than", "see", "call", "called", "new", "no", "step",
];
/// Words that a new sentence begins with.
const SUBJECTS: [&str; 22] = [
    "i",
    "im",
    "ive",
    "its",
    "hes",
    "shes",
    "theyre",
    "thats",
    "theres",
    "he",
    "she",
    "they",
    "we",
    "weve",
    "it",
    "idk",
    "nobody",
    "everyone",
    "everybody",
    "now",
    "why",
    "youre",
];
/// Words after which a subject goes on with the sentence it stands in.
const GOES_ON: [&str; 84] = [
    "and",
    "but",
    "so",
    "because",
    "when",
    "if",
    "that",
    "while",
    "since",
    "after",
    "before",
    "until",
    "till",
    "than",
    "as",
    "though",
    "although",
    "or",
    "think",
    "know",
    "say",
    "said",
    "says",
    "feel",
    "hope",
    "wish",
    "guess",
    "tell",
    "told",
    "what",
    "how",
    "why",
    "where",
    "who",
    "whether",
    "now",
    "then",
    "today",
    "like",
    "once",
    "way",
    "time",
    "thing",
    "everything",
    "all",
    "something",
    "only",
    "even",
    "thought",
    "knew",
    "believe",
    "swear",
    "mean",
    "bet",
    "sure",
    "afraid",
    "scared",
    "worried",
    "glad",
    "sorry",
    "happy",
    "sad",
    "proud",
    "whenever",
    "every",
    "everyone",
    "tomorrow",
    "yesterday",
    "tonight",
    "just",
    "still",
    "finally",
    "to",
    "with",
    "for",
    "of",
    "about",
    "from",
    "is",
    "was",
    "are",
    "in",
    "at",
    "on",
];
/// With one of them shortly before, "the house I grew up in" is one thing.
const OPENS_RELATIVE: [&str; 17] = [
    "the",
    "a",
    "an",
    "all",
    "every",
    "any",
    "only",
    "first",
    "last",
    "some",
    "anything",
    "nothing",
    "much",
    "no",
    "something",
    "everything",
    "someone",
];
const LOOKS_BACK: usize = 4;
/// What a sentence may end with before the next begins.
const DAYS: [&str; 5] = ["today", "tonight", "tomorrow", "yesterday", "now"];
/// After one of them comes what was said.
const SAYING: [&str; 22] = [
    "told", "tell", "tells", "said", "says", "say", "thinks", "think", "thought", "knows", "know", "feels",
    "feel", "hope", "wish", "wishes", "believe", "believes", "promised", "swear", "realised", "realized",
];

fn full(low: &str) -> Option<&'static str> {
    FULL.split_whitespace()
        .find_map(|pair| pair.split_once('=').filter(|(short, _)| *short == low))
        .map(|(_, full)| full)
}

/// The sentences of a message, without what says nothing.
pub(super) fn sentences(message: &str) -> Vec<Sentence> {
    let is_loud = {
        let upper = message.chars().filter(|c| c.is_uppercase()).count();
        upper > message.chars().filter(|c| c.is_lowercase()).count()
    };
    let message = if is_loud { message.to_lowercase() } else { message.to_owned() };
    let mut out: Vec<Sentence> = Vec::new();
    let mut open = Sentence::default();
    for chunk in message.split_whitespace() {
        let inner = chunk.trim_matches(|c: char| !c.is_alphanumeric());
        let (before, after) = chunk.split_once(inner).filter(|_| !inner.is_empty()).unwrap_or(("", chunk));
        let is_mark = |c: char| !c.is_alphanumeric() && !"'’-%:.&,".contains(c);
        // Feet, cups and quotation marks hide who speaks.
        open.is_odd |= before.contains(['"', '“', '(', '*', '\'']) || after.contains(['"', '”', ')', '*']);
        open.is_odd |= inner.chars().any(is_mark);
        // "$500", "40%"
        let (sign, unit) = (before.matches(CURRENCIES).next_back(), after.chars().next());
        let unit = unit.filter(|c| *c == '%' || CURRENCIES.contains(c));
        match (sign, unit) {
            (Some(sign), _) if inner.starts_with(|c: char| c.is_ascii_digit()) => {
                push(&mut open.words, &format!("{sign}{inner}"));
            }
            (_, Some(unit)) if inner.ends_with(|c: char| c.is_ascii_digit()) => {
                push(&mut open.words, &format!("{inner}{unit}"));
            }
            // "i got a B+"
            (_, _) if after.starts_with('+') && inner.len() == 1 => {
                push(&mut open.words, &format!("{inner}+"));
            }
            // "my kids' names"
            _ if after.starts_with(['\'', '’']) && inner.ends_with('s') && !before.contains(['\'', '‘']) =>
            {
                push(&mut open.words, &format!("{inner}'"));
            }
            _ => push(&mut open.words, inner),
        }
        if let Some(last) = open.words.last_mut() {
            last.has_comma |= after.contains([',', ';', ':', '-', '–', '—']);
        }
        if after.contains(['.', '!', '?', '…']) && !open.words.is_empty() && !is_title(inner) {
            open.asks = after.contains('?');
            open.shouts = after.contains('!');
            out.push(std::mem::take(&mut open));
        }
    }
    out.push(open);
    let mut out: Vec<Sentence> = out.iter().flat_map(apart).map(stripped).collect();
    out.retain(|s| !s.words.is_empty());
    out
}

fn is_title(word: &str) -> bool {
    ["mr", "mrs", "ms", "dr", "st"].contains(&word.to_lowercase().as_str())
}

fn push(words: &mut Vec<Word>, inner: &str) {
    let word = Word::new(inner);
    let is_laugh = word.low.starts_with("haha") || word.low.starts_with("ahah");
    if inner.is_empty() || is_laugh || EMPTY.split(' ').any(|w| w == word.low) {
        return;
    }
    if word.text == "US" {
        words.push(word);
        return;
    }
    match full(&word.low) {
        Some(full) => words.extend(full.split('_').map(Word::new)),
        None => words.push(word),
    }
}

/// Cuts "he lied to me im so angry" in two.
fn apart(sentence: &Sentence) -> Vec<Sentence> {
    let mut parts: Vec<Vec<Word>> = vec![Vec::new()];
    for (i, word) in sentence.words.iter().enumerate() {
        let open = parts.last().map_or(0, Vec::len);
        let part = &sentence.words[i - open..i];
        if open > 2 && is_complete(part) && begins_anew(&sentence.words, i) {
            parts.push(Vec::new());
        }
        if let Some(last) = parts.last_mut() {
            last.push(word.clone());
        }
    }
    let n = parts.len();
    let whole = |i: usize, words: Vec<Word>| Sentence {
        words,
        asks: sentence.asks && i + 1 == n,
        shouts: sentence.shouts && i + 1 == n,
        is_odd: sentence.is_odd,
    };
    parts.into_iter().enumerate().map(|(i, words)| whole(i, words)).collect()
}

/// Whether the words may be a sentence by themselves: "in my country" and "when I grow up" are not.
fn is_complete(part: &[Word]) -> bool {
    let is_dependent =
        ["when", "whenever", "if", "since", "because", "after", "before", "while", "as", "once"]
            .contains(&part[0].low.as_str());
    let is_verb = |w: &Word| super::grammar::is_verb(&w.low) || super::grammar::is_gerund(&w.low);
    let n_verbs = part.iter().filter(|w| is_verb(w)).count();
    n_verbs > usize::from(is_dependent)
}

fn begins_anew(words: &[Word], i: usize) -> bool {
    let (word, before) = (&words[i].low, &words[i - 1]);
    if before.has_comma {
        let asks = ["is", "should", "what", "how", "why", "do", "can", "any", "am"].contains(&word.as_str());
        return SUBJECTS.contains(&word.as_str()) || asks;
    }
    // "i hate peas why do i have to eat them", "we have pizza tonight its my favourite"
    let next = |n: usize| words.get(i + n).map_or("", |w| w.low.as_str());
    let is_question = ["why", "how", "what"].contains(&word.as_str())
        && ["do", "does", "did", "can", "should", "am"].contains(&next(1))
        && ["i", "we", "he", "she", "they", "you", "it"].contains(&next(2));
    if is_question && !SAYING.contains(&before.low.as_str()) && before.low != "and" {
        return true;
    }
    if word == "its" && DAYS.contains(&before.low.as_str()) && ["my", "so", "a", "the"].contains(&next(1)) {
        return true;
    }
    if !SUBJECTS.contains(&word.as_str())
        || GOES_ON.contains(&before.low.as_str())
        || before.low.ends_with("ing")
    {
        return false;
    }
    if ["now", "why", "it"].contains(&word.as_str()) {
        return false;
    }
    let back = &words[i.saturating_sub(LOOKS_BACK)..i];
    // "i told my parents i failed"
    if back.iter().any(|w| SAYING.contains(&w.low.as_str())) {
        return false;
    }
    if ["nobody", "everyone", "everybody"].contains(&word.as_str()) {
        return !super::grammar::is_verb(&before.low);
    }
    if word == "its" {
        // "the dog lost its ball"
        return words.get(i + 1).is_some_and(|next| {
            [
                "so", "not", "too", "been", "really", "very", "just", "unfair", "a", "the", "my", "all",
                "always", "like", "making",
            ]
            .contains(&next.low.as_str())
        });
    }
    let is_contracted =
        ["im", "ive", "hes", "shes", "theyre", "thats", "theres", "idk"].contains(&word.as_str());
    is_contracted || !back.iter().any(|w| OPENS_RELATIVE.contains(&w.low.as_str()))
}

/// Without "so mum, guess what" before it and "mum" behind it.
fn stripped(mut sentence: Sentence) -> Sentence {
    let words = &mut sentence.words;
    while let Some(n) = n_before(words) {
        words.drain(..n);
    }
    while let Some(last) = words.last() {
        let before = words.len().checked_sub(2).map(|i| &words[i]);
        let is_address = PARENTS.contains(&last.low.as_str())
            && before
                .is_none_or(|b| b.has_comma || !BEFORE_PARENT.contains(&b.low.as_str()) && words.len() > 3)
            && !words.iter().any(|w| w.low == "called");
        let is_filler = before.is_some_and(|b| b.has_comma)
            && ["please", "thanks", "right", "ok", "okay", "sorry", "though", "huh"]
                .contains(&last.low.as_str());
        if !is_address && !is_filler {
            break;
        }
        words.pop();
    }
    if let Some(last) = words.last_mut() {
        last.has_comma = false;
    }
    sentence
}

/// How many words at the beginning say nothing yet.
fn n_before(words: &[Word]) -> Option<usize> {
    let first = words.first()?;
    let next = words.get(1);
    let begins =
        |phrase: &&&[&str]| words.len() >= phrase.len() && phrase.iter().zip(words).all(|(p, w)| *p == w.low);
    if let Some(phrase) = BEFORE_PHRASES.iter().filter(begins).max_by_key(|p| p.len()) {
        return Some(phrase.len());
    }
    let is_address = PARENTS.contains(&first.low.as_str())
        && (first.has_comma || next.is_none_or(|n| AFTER_ADDRESS.contains(&n.low.as_str()) && n.low != "is"));
    // "no one", "so tired", "no friends", "yes" alone
    let is_needed = match first.low.as_str() {
        "no" => !first.has_comma,
        "so" => next
            .is_some_and(|n| super::grammar::is_state(&n.low) || ["much", "many"].contains(&n.low.as_str())),
        "look" | "listen" => next.is_some_and(|n| ["after", "to", "at", "for"].contains(&n.low.as_str())),
        "well" => next.is_some_and(|n| n.low == "done"),
        _ => false,
    };
    (is_address || BEFORE.contains(&first.low.as_str()) && !is_needed).then_some(1)
}
