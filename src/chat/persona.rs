//! Who answers: the persona's text, a longer one for models that can follow it.

use crate::domain::{Persona, Role, User};

const MOM: &str = include_str!("../../assets/personas/mom.md");
const DAD: &str = include_str!("../../assets/personas/dad.md");
const PARENT: &str = include_str!("../../assets/personas/parent.md");
/// Stands after the persona when a child writes.
const CHILD_RULES: &str = include_str!("../../assets/personas/child.md");

/// Whether this person may choose who answers. A child's persona is set by whoever made the account.
pub fn may_choose(role: Role) -> bool {
    role != Role::Child
}

/// The persona's text for a person.
pub fn text(user: &User) -> String {
    let persona = of(user.persona);
    if user.role == Role::Child { format!("{persona}\n\n{}", CHILD_RULES.trim()) } else { persona.to_owned() }
}

/// A persona's text by itself, as `mommygpt run` uses it.
pub fn of(persona: Persona) -> &'static str {
    match persona {
        Persona::Mom => MOM.trim(),
        Persona::Dad => DAD.trim(),
        Persona::Parent => PARENT.trim(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words times 4/3 is what English costs in common vocabularies.
    fn n_tokens_about(text: &str) -> usize {
        text.split_whitespace().count() * 4 / 3
    }

    #[test]
    fn personas_are_short_and_say_what_they_must() {
        for persona in Persona::ALL {
            let text = of(*persona);
            let n = n_tokens_about(text);
            assert!(n <= 350, "{persona}: about {n} tokens");
            for must in ["program", "danger", "remember", "night"] {
                assert!(text.contains(must), "{persona} says nothing of {must}");
            }
        }
        assert!(n_tokens_about(CHILD_RULES) <= 150);
    }
}
