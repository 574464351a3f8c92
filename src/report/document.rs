use serde::Serialize;

/// One JSON document whose fields stand in the order in which they were added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    text: String,
}

impl Document {
    /// A document that begins with whether it all went well.
    pub fn new(success: bool) -> Document {
        Document { text: String::from("{") }.with("success", &success)
    }

    /// The same with one more field.
    pub fn with(mut self, name: &str, value: &(impl Serialize + ?Sized)) -> Document {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        self.text.push_str(&json(name));
        self.text.push(':');
        self.text.push_str(&json(value));
        self
    }

    /// The document on one line, without its end.
    pub fn finish(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

/// A value as JSON. Ours are structs, texts and numbers, for which this cannot fail.
pub(super) fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order() {
        let text = Document::new(true).with("b", "x\ny").with("a", &[1, 2]).finish();
        assert_eq!(text, r#"{"success":true,"b":"x\ny","a":[1,2]}"#);
    }
}
