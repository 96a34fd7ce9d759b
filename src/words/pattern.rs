//! Patterns of queue names: what an operator searches for, and which queues a policy is for.

use std::fmt;

/// A pattern that queue names match or not, in the form that [`matches()`] describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// The pattern of this text; every text is one.
    pub fn new(text: &str) -> Pattern {
        Pattern(text.into())
    }

    /// Whether this queue name matches.
    pub fn matches(&self, name: &str) -> bool {
        matches(&self.0, name)
    }

    /// The text of the pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a name matches a pattern in which `*` stands for any characters and letters match in
/// any case. Takes at most the product of both lengths in steps, whatever the pattern.
pub fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().flat_map(char::to_lowercase).collect();
    let name: Vec<char> = name.chars().flat_map(char::to_lowercase).collect();
    let (mut p, mut n) = (0, 0);
    // The last star, and the first character of the name that it does not stand for (yet).
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
        } else if pattern.get(p) == Some(&name[n]) {
            (p, n) = (p + 1, n + 1);
        } else if let Some((star_at, taken)) = star {
            // Try again with one character more for the star.
            star = Some((star_at, taken + 1));
            (p, n) = (star_at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_case_does_not_matter() {
        assert!(matches("mail*", "Mail.out"));
        assert!(matches("*OUT", "mail.out"));
        assert!(matches("m*l*t", "mail.out"));
        assert!(matches("*", ""));
        assert!(!matches("mail", "mail.out"));
        assert!(!matches("", "a"));
        assert!(matches("ÄRGER*", "ärger-1"));
    }

    #[test]
    fn a_pattern_is_its_text() {
        let pattern = Pattern::new("mail.*");
        assert!(pattern.matches("mail.out") && !pattern.matches("mail"));
        assert_eq!(pattern.as_str(), "mail.*");
    }
}
