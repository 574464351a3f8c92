//! Suggestions for misspelled names.

use strsim::damerau_levenshtein;

/// Returns the candidate that is most likely meant by `wrong`, if one is similar enough.
///
/// One edit is allowed, and one more for every 4 characters of `wrong`; a candidate that would have
/// to be replaced as a whole is not similar. Of equally similar candidates the first one wins.
pub fn closest<C: AsRef<str>>(wrong: &str, candidates: impl IntoIterator<Item = C>) -> Option<C> {
    let edits_max = wrong.chars().count() / 4 + 1;
    candidates
        .into_iter()
        .map(|candidate| (damerau_levenshtein(wrong, candidate.as_ref()), candidate))
        .filter(|(edits, candidate)| {
            *edits <= edits_max && *edits < candidate.as_ref().chars().count()
        })
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Returns whether `given` is so similar to `name` that it is almost certainly a typing error.
///
/// Stricter than [`closest`], for names that are refused if they are misspelled and have no meaning
/// otherwise: case and dashes do not count, and one more edit is allowed in names of at least 8
/// characters. Shorter names are similar to too many others.
pub fn is_typo_of(given: &str, name: &str) -> bool {
    let plain = given.to_lowercase().replace('-', "_");
    damerau_levenshtein(&plain, name) <= usize::from(name.len() >= 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_candidate_is_suggested_if_it_is_similar() {
        let names = ["local", "ipfs", "s3", "custom", "mock"];
        for (wrong, expected) in [
            ("lcoal", Some("local")),
            ("ipsf", Some("ipfs")),
            ("ipfs2", Some("ipfs")),
            ("S3", Some("s3")),
            ("costum", Some("custom")),
            ("moch", Some("mock")),
            ("x", None),
            ("", None),
            ("storage", None),
            ("locale-of-nothing", None),
        ] {
            assert_eq!(closest(wrong, names), expected, "{wrong}");
        }
        assert_eq!(closest("a", ["ab", "ac"]), Some("ab"));
        assert_eq!(closest("max_retrys", ["max_retries", "max_age_days"]), Some("max_retries"));
    }

    #[test]
    fn only_certain_typing_errors_are_refused() {
        for (given, name, expected) in [
            ("Recursive", "recursive", true),
            ("recursiv", "recursive", true),
            ("cid-version", "cid_version", true),
            ("raw_leavs", "raw_leaves", true),
            ("raw_leaf", "raw_leaves", false),
            ("paths", "path", false),
            ("PATH", "path", true),
            ("note", "source", false),
        ] {
            assert_eq!(is_typo_of(given, name), expected, "{given} {name}");
        }
    }
}
