//! The known word that was probably meant by an unknown one.

/// How alike a known word must be to be proposed for an unknown one (1.0 is the same).
const LIKENESS_MIN: f64 = 0.7;

/// Words of other programs for what has another name here.
const SYNONYMS: &[(&str, &str)] = &[
    ("fatal", "crit"),
    ("emergency", "crit"),
    ("notice", "info"),
    ("verbose", "debug"),
    ("always", "sync"),
    ("fsync", "sync"),
    ("journal", "journald"),
    ("text", "plain"),
];

/// The nearest of the known words, if any is near.
pub(super) fn nearest<'k>(
    typed: &str,
    known: impl Iterator<Item = &'k str> + Clone,
) -> Option<&'k str> {
    let typed = typed.trim().to_lowercase();
    let synonym = SYNONYMS.iter().find(|(other, _)| *other == typed);
    if let Some(found) = synonym.and_then(|(_, ours)| known.clone().find(|word| word == ours)) {
        return Some(found);
    }
    let likeness = |word: &&str| strsim::jaro_winkler(word, &typed);
    let best = known.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) >= LIKENESS_MIN).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_that_was_meant_is_found() {
        let levels = ["crit", "error", "warn", "info", "debug", "trace"];
        for (typed, meant) in [
            ("warning", "warn"),
            ("WARN", "warn"),
            ("err", "error"),
            ("critical", "crit"),
            ("information", "info"),
            ("notice", "info"),
            ("fatal", "crit"),
        ] {
            assert_eq!(nearest(typed, levels.into_iter()), Some(meant), "{typed}");
        }
        assert_eq!(nearest("xyzzy", levels.into_iter()), None);
        assert_eq!(nearest("fatal", ["one", "two"].into_iter()), None);
    }
}
