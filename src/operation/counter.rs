use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Below the first one: the position of a log in which nothing has been counted yet.
            pub const ZERO: Self = Self(0);
            /// The first one of a log.
            pub const FIRST: Self = Self(1);
            /// Above every one that a log can reach; also the open end of a range.
            pub const MAX: Self = Self(u64::MAX);

            /// Wraps a value read from a file, an argument or a caller.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// Returns the bare value.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// Returns the one that follows; [`MAX`](Self::MAX) is followed by itself.
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// Returns the one before; [`ZERO`](Self::ZERO) is preceded by itself.
            pub const fn previous(self) -> Self {
                Self(self.0.saturating_sub(1))
            }

            /// Returns the one `count` places later, or `None` beyond [`MAX`](Self::MAX).
            pub const fn checked_add(self, count: u64) -> Option<Self> {
                match self.0.checked_add(count) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            /// Returns the one `count` places later, [`MAX`](Self::MAX) at most.
            pub const fn saturating_add(self, count: u64) -> Self {
                Self(self.0.saturating_add(count))
            }

            /// Returns the number of places from `earlier` to this one; 0 if `earlier` is later.
            pub const fn since(self, earlier: Self) -> u64 {
                self.0.saturating_sub(earlier.0)
            }

            /// Returns all from this one up to `end`, which is excluded.
            pub fn until(self, end: Self) -> impl DoubleEndedIterator<Item = Self> + use<> {
                (self.0..end.0).map(Self)
            }

            /// Returns all from this one through `last`, which is included.
            pub fn through(self, last: Self) -> impl DoubleEndedIterator<Item = Self> + use<> {
                (self.0..=last.0).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;

            fn from_str(text: &str) -> Result<Self, ParseIntError> {
                text.parse().map(Self)
            }
        }
    };
}

counter!(
    /// The small, dense number that an operation gets when it is logged.
    ///
    /// Numbers start at [`Number::FIRST`], rise in the order of logging and are never reused.
    Number
);
counter!(
    /// The position of a transition among all transitions of one log.
    ///
    /// Revisions start at [`Revision::FIRST`]; the revision of an operation is that of its latest
    /// transition.
    Revision
);

/// A range of consecutive numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumberRange {
    /// The first number.
    pub first: Number,
    /// The last number.
    pub last: Number,
}

impl NumberRange {
    /// Returns the number of numbers in the range.
    pub fn count(&self) -> u64 {
        self.last.next().since(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_stops_at_both_ends() {
        assert_eq!(Number::ZERO.next(), Number::FIRST);
        assert_eq!(Number::FIRST.previous().previous(), Number::ZERO);
        assert_eq!(Number::MAX.next(), Number::MAX);
        assert_eq!(Number::MAX.checked_add(1), None);
        assert_eq!(Number::MAX.saturating_add(5), Number::MAX);
        assert_eq!(Number::new(3).since(Number::new(5)), 0);
        assert_eq!(Number::new(3).through(Number::new(2)).count(), 0);
        assert_eq!(Number::new(3).until(Number::new(4)).count(), 1);
        let run: Vec<Number> = Number::new(3).through(Number::new(4)).collect();
        assert_eq!(run, [Number::new(3), Number::new(4)]);
    }

    #[test]
    fn a_number_is_shown_and_serialized_as_a_bare_integer() {
        let number = Number::new(17);
        assert_eq!(format!("{number:>4}|{number:04}|{number:<4}|"), "  17|0017|17  |");
        assert_eq!(serde_json::to_string(&number).unwrap(), "17");
        assert_eq!(serde_json::from_str::<Number>("17").unwrap(), number);
        assert_eq!("17".parse(), Ok(number));
        assert!("-1".parse::<Number>().is_err());
    }
}
