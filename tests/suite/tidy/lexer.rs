//! Splits Rust sources into code, string literals and doc comments.

/// The parts of a source file.
#[derive(Default)]
pub struct Parts {
    /// The code, without comments and with empty literals; line numbers are kept.
    pub code: String,
    /// String literals with the lines on which they begin.
    pub literals: Vec<(usize, String)>,
    /// Lines of doc comments with their numbers.
    pub docs: Vec<(usize, String)>,
}

/// Splits a source file into its parts.
pub fn split(text: &str) -> Parts {
    let mut parts = Parts::default();
    let (mut rest, mut line) = (text, 1);
    while let Some(c) = rest.chars().next() {
        let len = if rest.starts_with("//") {
            let end = rest.find('\n').unwrap_or(rest.len());
            let doc = rest[..end].strip_prefix("///").or(rest[..end].strip_prefix("//!"));
            if let Some(doc) = doc.filter(|doc| !doc.starts_with('/')) {
                parts.docs.push((line, doc.trim().to_owned()));
            }
            end
        } else if rest.starts_with("/*") {
            let end = rest.find("*/").map_or(rest.len(), |at| at + 2);
            parts.code.extend(rest[..end].chars().filter(|c| *c == '\n'));
            end
        } else if let Some(opening) = opening(rest, &parts.code) {
            let body = &rest[opening.len..];
            let end = match opening.has_escapes {
                true => unescaped_quote(body),
                false => body.find(&opening.closing),
            };
            let end = end.unwrap_or(body.len());
            parts.literals.push((line, body[..end].to_owned()));
            parts.code.push_str("\"\"");
            parts.code.extend(body[..end].chars().filter(|c| *c == '\n'));
            opening.len + end + opening.closing.len()
        } else if let Some(len) = char_literal(rest) {
            parts.code.push_str("' '");
            len
        } else {
            parts.code.push(c);
            c.len_utf8()
        };
        let len = len.min(rest.len());
        line += rest[..len].matches('\n').count();
        rest = &rest[len..];
    }
    parts
}

/// The opening of a string literal.
struct Opening {
    len: usize,
    closing: String,
    has_escapes: bool,
}

/// Returns the opening of a literal that the rest of a source begins with.
fn opening(rest: &str, before: &str) -> Option<Opening> {
    if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let prefix = usize::from(rest.starts_with(['b', 'c']));
    let raw = rest[prefix..].starts_with('r');
    let quote = &rest[prefix + usize::from(raw)..];
    let hashes = if raw { quote.len() - quote.trim_start_matches('#').len() } else { 0 };
    quote[hashes..].starts_with('"').then(|| Opening {
        len: prefix + usize::from(raw) + hashes + 1,
        closing: format!("\"{}", "#".repeat(hashes)),
        has_escapes: !raw,
    })
}

fn unescaped_quote(body: &str) -> Option<usize> {
    let mut escaped = false;
    body.char_indices().find_map(|(at, c)| {
        let found = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        found.then_some(at)
    })
}

/// Returns the length of a character literal; none for a lifetime, and for anything else.
fn char_literal(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix('\'')?;
    let first = body.chars().next()?;
    let len = if first == '\\' { 2 } else { first.len_utf8() };
    let end = len + body.get(len..)?.find('\'')?;
    (first == '\\' || end == len).then_some(1 + end + 1)
}

/// Returns the bodies of functions: name, first line, number of lines.
pub fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + 3..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(0);
        if let Some(len) = body(&rest[end..]).filter(|_| end > 0) {
            let first = code[..at].matches('\n').count() + 1;
            let lines = code[at..at + 3 + end + len].matches('\n').count() + 1;
            found.push((rest[..end].to_owned(), first, lines));
        }
    }
    found
}

/// Returns where the body behind a signature ends; none if there is no body.
fn body(rest: &str) -> Option<usize> {
    let (mut round, mut depth) = (0, 0);
    for (at, c) in rest.char_indices() {
        match c {
            '(' | '[' => round += 1,
            ')' | ']' => round -= 1,
            ';' if round == 0 && depth == 0 => return None,
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 && round == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

#[test]
fn sources_are_split_into_code_literals_and_docs() {
    let parts = split(concat!(
        "/// Returns it.\nfn f<'a>(c: char) -> &'a str {\n",
        "    // a \"comment\"\n    let x = ('\"', '\\'', b\"by\\\"te\", r#\"raw \"it\"\"#, r\"c:\\\");\n",
        "    \"two\nlines\"\n}\n"
    ));
    let texts: Vec<&str> = parts.literals.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["by\\\"te", "raw \"it\"", "c:\\", "two\nlines"]);
    assert_eq!(parts.literals[3].0, 5);
    assert_eq!(parts.docs, [(1, "Returns it.".to_owned())]);
    assert_eq!(functions(&parts.code), [("f".to_owned(), 2, 6)]);
    assert!(!parts.code.contains("comment"), "{}", parts.code);
}
