//! Causes of failures: messages without the details of one operation, for grouping.

use super::Failure;

/// Returns the cause of a failure: its message without names, paths, ids and numbers.
///
/// Text in backticks, words with a slash, and words of 16 or more letters and digits (ids, CIDs)
/// become `…`; numbers become `#`.
pub fn normalised(failure: &Failure) -> String {
    let mut plain = String::with_capacity(failure.message.len());
    for (at, part) in failure.message.split('`').enumerate() {
        plain.push_str(if at % 2 == 1 { "…" } else { part });
    }
    let mut words: Vec<String> = Vec::new();
    for word in plain.split_whitespace() {
        let core = word.trim_matches(|c: char| !c.is_alphanumeric() && c != '/' && c != '…');
        let short = if core.contains('/') || is_id(core) {
            word.replace(core, "…")
        } else {
            without_numbers(word)
        };
        // Neighbouring `…` merge into one.
        if short != "…" || words.last().is_none_or(|last| last != "…") {
            words.push(short);
        }
    }
    words.join(" ")
}

/// Returns a short name of a cause: equal for equal error types and normalised messages of any
/// backend.
pub fn fingerprint(failure: &Failure) -> String {
    let text = format!("{}\0{}", failure.error_type, normalised(failure));
    format!("{:08x}", crc32c::crc32c(text.as_bytes()))
}

fn is_id(word: &str) -> bool {
    word.len() >= 16
        && word.bytes().any(|byte| byte.is_ascii_digit())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn without_numbers(word: &str) -> String {
    let mut short = String::with_capacity(word.len());
    for c in word.chars() {
        if !c.is_ascii_digit() {
            short.push(c);
        } else if !short.ends_with('#') {
            short.push('#');
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::super::FailureClass;
    use super::*;

    fn failure(message: &str) -> Failure {
        Failure { class: FailureClass::Permanent, error_type: "x".into(), message: message.into() }
    }

    #[test]
    fn details_of_one_operation_are_left_out() {
        for (message, cause) in [
            ("`/a/b.txt` no longer exists; add it again", "… no longer exists; add it again"),
            ("cannot read /tmp/x y: denied", "cannot read … y: denied"),
            ("status 503 after 12.5s", "status # after #.#s"),
            ("no block QmVj6UxQiUkQKjFLGTewN2r6SzfRjz9EMK8MvjV7V7BC5s.", "no block …."),
            (
                "operation 019f1c2e-0000-7000-8000-000000000000 was deleted",
                "operation … was deleted",
            ),
            ("backend is unreachable", "backend is unreachable"),
        ] {
            assert_eq!(normalised(&failure(message)), cause);
        }
    }

    #[test]
    fn one_cause_has_one_fingerprint() {
        let one = failure("`/a` is missing");
        assert_eq!(fingerprint(&one), fingerprint(&failure("`/b/c` is missing")));
        assert_ne!(fingerprint(&one), fingerprint(&failure("`/a` may not be read")));
        let other = Failure { error_type: "y".into(), ..one.clone() };
        assert_ne!(fingerprint(&one), fingerprint(&other));
    }
}
