use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

use super::Time;

/// The id of an operation: a UUIDv7, so that ids sort by the time of logging.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(Uuid);

impl OperationId {
    /// Returns the id of the `nth` operation of a batch logged at `now`; `random` makes it unique.
    ///
    /// The first random field of the UUID counts within the batch, so that ids sort as numbers do.
    pub fn new(now: Time, nth: usize, random: u128) -> OperationId {
        let mut bytes = [0u8; 10];
        bytes.copy_from_slice(&random.to_be_bytes()[..10]);
        let counter = (nth as u16) & 0x0fff;
        bytes[0] = (counter >> 8) as u8;
        bytes[1] = (counter & 0xff) as u8;
        let millis = now.as_millis().max(0) as u64;
        OperationId(Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid())
    }

    /// Returns the time that it contains: that of logging, if the clock was right.
    pub fn made_at(&self) -> Time {
        let millis =
            self.as_bytes()[..6].iter().fold(0, |millis, byte| millis << 8 | i64::from(*byte));
        Time::from_millis(millis)
    }

    /// Wraps 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> OperationId {
        OperationId(Uuid::from_bytes(bytes))
    }

    /// Returns its 16 bytes; they sort as the text does.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Parses the hyphenated text form of a UUID.
    pub fn parse(text: &str) -> Option<OperationId> {
        if text.len() != 36 {
            return None;
        }
        Uuid::try_parse(text).ok().map(OperationId)
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    }
}

impl Serialize for OperationId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    }
}

impl<'de> Deserialize<'de> for OperationId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        OperationId::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not an operation id")))
    }
}

/// A name that does not match `[a-z][a-z0-9_]{0,63}` (types), or the same with `-` (backends).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is not a valid {what}: it must start with a letter a-z, followed by letters, digits \
     or `_`{dash}, 64 characters at most"
)]
pub struct InvalidName {
    name: String,
    what: &'static str,
    dash: &'static str,
}

fn is_word(text: &str, dash: bool) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 64
        && bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || (dash && b == b'-')
        })
}

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $what:literal, $dash:literal, $note:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns true if `text` is a valid name.
            pub fn is_valid(text: &str) -> bool {
                is_word(text, $dash)
            }

            /// Fails if `text` is not a valid name.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                if Self::is_valid(text) {
                    Ok(Self(Arc::from(text)))
                } else {
                    Err(InvalidName { name: text.to_owned(), what: $what, dash: $note })
                }
            }

            /// Fills the place of a name that a decoder adds later; no valid name is empty.
            pub(super) fn placeholder() -> Self {
                Self(Arc::from(""))
            }

            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

word!(
    /// The type of an operation: `add`, `pin`, or one that a custom backend defines.
    OperationType, "operation type", false, ""
);
word!(
    /// The name of a backend in the configuration.
    BackendName, "backend name", true, " or `-`"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_batch_sort_like_their_numbers() {
        let ids: Vec<_> = (0..1000)
            .map(|n| OperationId::new(Time::from_millis(1_700_000_000_000), n, n as u128 * 77))
            .collect();
        assert!(ids.is_sorted());
        assert_eq!(ids[999].made_at(), Time::from_millis(1_700_000_000_000));
        for id in &ids {
            assert_eq!(OperationId::parse(&id.to_string()), Some(*id));
        }
    }

    #[test]
    fn names_follow_the_pattern() {
        for good in ["add", "a", "my_op2"] {
            assert!(OperationType::new(good).is_ok());
        }
        for bad in ["", "Add", "2a", "a-b", "a b", "ä", &"a".repeat(65)] {
            assert!(OperationType::new(bad).is_err(), "{bad}");
        }
        assert!(BackendName::new("my-s3").is_ok());
    }
}
