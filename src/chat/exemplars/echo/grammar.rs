//! Whether some words are a whole sentence: a subject, and a verb that goes with it. Where that is not sure, they are not.

use super::sentences::Word;

/// Forms that can be a sentence's verb.
const VERBS: &str = "am is are was were have has had do does did will would can could should may might must wont cant dont \
    doesnt didnt isnt arent wasnt werent hasnt havent hadnt couldnt wouldnt shouldnt im ive hes shes theyre weve thats theres \
    got went came said told made took gave left lost found felt kept let thought knew saw met ran sat stood broke fell won \
    beat hit hurt cut put read spent sent sold bought brought built taught caught ate drank slept woke wrote drew drove flew \
    grew threw paid began forgot chose stole rang spoke understood heard became meant led held hid bit shot swam sang wore \
    tore froze blew rode shook bent dug fed fought hung lent lit quit shut stuck swore swept won spilt learnt dreamt burnt \
    get go come say tell make take give leave lose find feel keep think know see meet run sit stand break fall win want need \
    like love hate miss hope wish work live play eat sleep talk ask help look seem start stop try cry wait read write learn \
    remember forget believe understand belong care worry fight argue teach drive walk pay speak hear grow study watch cook \
    gets goes comes says tells makes takes gives leaves loses finds feels keeps thinks knows sees wants needs likes loves \
    hates misses hopes works lives plays eats sleeps talks asks helps looks seems hurts aches starts ends turns calls cries \
    lies steals picks kicks hits treats thinks stays stops rings shouts ignores laughs lets wins runs sits stands falls \
    happens costs matters cries forgets interrupts refuses screams bites sounds smells means pulls pushes reads sings waits \
    wakes walks watches wears writes moves leaves grows falls closes opens begins dies hides cheats hears belongs feels \
    remembers understands worries cares drinks drives gives holds learns pays";
/// Words that may begin a sentence as its subject, or the subject's first word.
const SUBJECTS: &str = "i we he she they it this that everyone everybody nobody someone somebody noone nothing everything \
    something anything both all some most many one two three four my our his her their the a an these those every each \
    another no im ive id hes shes theyre its thats theres there weve half part people kids boys girls children work school \
    life uni college university christmas exams homework today tonight tomorrow yesterday somebodys nobodys everyones";
/// Words that may stand before the subject.
const LEADING: &str = "today yesterday tomorrow tonight last this sometimes now since when whenever after before at in on if \
    for every finally lately recently one once while suddenly apparently because even maybe all as with";
/// How somebody is, who leaves out "I'm".
const STATES: &str = "tired exhausted sad happy bored scared afraid worried nervous anxious angry lonely homesick sick fed stuck \
    proud terrified jealous stressed overwhelmed upset annoyed furious ashamed embarrassed guilty confused excited ill hungry \
    thirsty glad grateful thankful lost depressed heartbroken devastated broke drained frustrated disappointed done \
    over lucky unhappy miserable hopeless mad sore ready late";
/// Past forms that begin a sentence without "I".
const PAST: &str = "got went came said told made took gave left lost found felt kept thought saw met ran sat broke fell won beat \
    hit hurt cut spent sent sold bought brought built taught caught ate drank slept woke wrote drew drove flew grew threw paid \
    began forgot chose stole had was did quit did couldnt cant dont didnt havent wont never";
/// Present forms that do.
const PRESENT: &str = "want need miss love hate wish have feel think hope keep";
const NO_GERUND: [&str; 14] = [
    "everything",
    "nothing",
    "something",
    "anything",
    "morning",
    "evening",
    "wedding",
    "king",
    "thing",
    "ring",
    "spring",
    "string",
    "building",
    "during",
];
const NO_PAST: [&str; 8] = ["bed", "red", "need", "weed", "speed", "shed", "seed", "indeed"];
/// Words that no verb is.
const NO_VERBS: &str = "a an the my our his her their your and or but of to in on at for with from by about because so very \
    too if when than then as no not";
/// Words between a subject and its verb.
const ADVERBS: &str = "just really also so still never always only not actually already finally once even kind of sort \
    often sometimes usually probably definitely totally literally recently now nearly almost barely hardly both all secretly \
    suddenly accidentally honestly kinda again currently currently somehow completely officially";

pub(super) fn has(list: &str, low: &str) -> bool {
    list.split_whitespace().any(|word| word == low)
}

/// `tired`, `scared`: how somebody is.
pub(super) fn is_state(low: &str) -> bool {
    has(STATES, low)
}

pub(super) fn is_adverb(low: &str) -> bool {
    has(ADVERBS, low)
}

pub(super) fn is_past(low: &str) -> bool {
    has(PAST, low) || low.len() > 3 && low.ends_with("ed") && !NO_PAST.contains(&low) && !is_state(low)
}

pub(super) fn is_gerund(low: &str) -> bool {
    low.len() > 4 && low.ends_with("ing") && !NO_GERUND.contains(&low)
}

pub(super) fn is_verb(low: &str) -> bool {
    has(VERBS, low) || is_past(low)
}

/// The words that must be put before a sentence whose subject is left out; `None` if it is no sentence even then.
pub(super) fn subject_for(words: &[Word]) -> Option<&'static str> {
    let first = words.first()?.low.as_str();
    let second = words.get(1).map_or("", |w| w.low.as_str());
    if words.len() < 2 {
        return None;
    }
    // "finally told my professor I need more time"
    if is_adverb(first) && is_past(second) {
        return Some("You");
    }
    if is_whole(words) {
        return Some("");
    }
    let lead = if is_adverb(first) { second } else { first };
    match () {
        () if first == "been" => Some("You've"),
        () if first == "not" => (is_state(second) || second == "sure").then_some("You're"),
        // "broke up with him" is no state
        () if (is_state(lead) || first == "stuck") && second != "up" => Some("You're"),
        () if is_gerund(lead) => Some(if is_gerund_subject(words) { "" } else { "You're" }),
        () if is_past(lead) || has(PRESENT, lead) => Some("You"),
        () => None,
    }
}

/// "Moving house with two toddlers is a nightmare".
fn is_gerund_subject(words: &[Word]) -> bool {
    let be = [
        "is", "was", "isnt", "has", "makes", "feels", "hurts", "helps", "keeps", "takes", "costs", "scares",
        "drives", "seems", "gets",
    ];
    let end = words.iter().position(|w| w.has_comma).map_or(words.len(), |at| at + 1);
    words[..end].windows(2).enumerate().any(|(i, two)| {
        be.contains(&two[1].low.as_str())
            && !has(SUBJECTS, &two[0].low)
            && (i == 0 || !is_gerund(&two[0].low))
    })
}

/// Whether they have a subject at the beginning, or after a few leading words, and a verb.
fn is_whole(words: &[Word]) -> bool {
    let low = |i: usize| words.get(i).map_or("", |w: &Word| w.low.as_str());
    let first = low(0);
    let is_contracted = |low: &str| {
        ["im", "ive", "hes", "shes", "theyre", "its", "thats", "theres", "weve", "id"].contains(&low)
    };
    if is_contracted(first) || is_subject_contraction(&words[0]) {
        return words.len() > 1;
    }
    let after_adverbs = |from: usize| (from..words.len()).find(|&i| !is_adverb(low(i))).map_or("", low);
    match first {
        "i" | "we" | "they" | "you" => {
            let next = after_adverbs(1);
            !next.is_empty() && !has(NO_VERBS, next) && (!is_state(next) || is_verb(next))
                || low(1) == "and" && has_verb(&words[1..])
        }
        "he" | "she" | "it" => is_verb(after_adverbs(1)) || after_adverbs(1).ends_with('s'),
        // "my mum and dad are", "the house is"; a verb right after it is none: "my work".
        "everyone" | "everybody" | "nobody" | "someone" | "somebody" if is_verb(after_adverbs(1)) => true,
        _ if has(SUBJECTS, first) => has_verb(words.get(2..).unwrap_or_default()) || is_be(low(1)),
        _ if super::person::is_kin(first) => has_verb(&words[1..]),
        _ if has(LEADING, first) => (1..words.len().min(9))
            .any(|i| (has(SUBJECTS, low(i)) || is_contracted(low(i))) && is_clause_from(words, i)),
        // A name, a bare plural: only with a plain verb right after it.
        _ => {
            !is_verb(first)
                && !is_gerund(first)
                && (is_aux(low(1)) || is_aux(low(2)) && !has(NO_VERBS, low(1)))
        }
    }
}

/// In "when my sister came home she cried" the last clause must be whole.
fn is_clause_from(words: &[Word], i: usize) -> bool {
    let rest = &words[i..];
    let first = words[0].low.as_str();
    let needs_two = ["when", "whenever", "after", "if", "because", "while", "since", "once", "even", "as"]
        .contains(&first);
    let n_verbs = rest.iter().filter(|w| is_verb(&w.low)).count();
    is_whole_from_subject(rest) && (!needs_two || n_verbs >= 2 || first == "since" && n_verbs >= 1)
}

fn is_whole_from_subject(rest: &[Word]) -> bool {
    rest.len() > 1 && (is_contraction_word(&rest[0].low) || has_verb(&rest[1..]))
}

fn is_contraction_word(low: &str) -> bool {
    ["im", "ive", "hes", "shes", "theyre", "its", "thats", "theres", "weve"].contains(&low)
}

fn is_be(low: &str) -> bool {
    [
        "is",
        "was",
        "are",
        "were",
        "isnt",
        "wasnt",
        "has",
        "have",
        "had",
        "will",
        "wont",
        "can",
        "cant",
        "does",
        "doesnt",
        "did",
        "didnt",
        "makes",
        "keeps",
        "got",
        "forgot",
        "said",
        "died",
        "hurts",
        "told",
        "thinks",
        "wants",
        "hates",
        "talks",
        "came",
        "likes",
        "loves",
        "texts",
        "left",
        "broke",
        "remembers",
        "called",
        "liked",
        "calls",
        "saved",
        "listens",
        "gets",
        "seems",
        "rings",
        "understands",
        "happens",
        "ever",
        "else",
        "never",
        "else",
        "hurt",
        "feels",
        "in",
    ]
    .contains(&low)
}

fn is_aux(low: &str) -> bool {
    [
        "is", "was", "are", "were", "isnt", "wasnt", "arent", "has", "have", "had", "hasnt", "will", "wont",
        "cant", "can", "keeps", "makes", "feels", "starts", "start", "hurts", "doesnt", "didnt", "got",
        "came", "said", "told", "went",
    ]
    .contains(&low)
}

fn has_verb(words: &[Word]) -> bool {
    words.iter().any(|w| is_verb(&w.low))
        || words.windows(2).any(|two| is_third_person(&two[0].low, &two[1].low))
}

/// "pronounces my name": a form with an `s` before what can only be its object or place.
fn is_third_person(low: &str, next: &str) -> bool {
    let is_object = has("my me the a an his her him us it our them at to in on so all every for with", next);
    low.len() > 4 && low.ends_with('s') && !low.ends_with("ss") && is_object
}

/// "we're", "they'll"
fn is_subject_contraction(word: &Word) -> bool {
    let start = word.text.to_lowercase();
    start.split_once('\'').is_some_and(|(who, _)| {
        ["i", "we", "he", "she", "it", "they", "that", "there", "everyone", "nobody", "everybody"]
            .contains(&who)
    })
}
