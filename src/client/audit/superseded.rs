//! What later operations replaced or took away: it is not gone behind anybody's back.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::backend::{Effect, Reach};
use crate::operation::{BackendName, Revision};

/// How an operation touched a place, as far as others are concerned.
#[derive(Debug, Clone, Copy)]
enum Touch {
    /// It put something there, or took it away.
    Here,
    /// It saw to it that it is there.
    Ensured,
    /// It took it away with all below it.
    Removed,
    /// It may have changed what is below it.
    Below,
    /// It touched something below it.
    Within,
}

/// For each place that completed operations touched, when that happened last, as a revision: clocks may jump.
///
/// Places are kept as hashes of 128 bits, some 40 to 80 bytes for each.
#[derive(Debug, Default)]
pub(super) struct Superseded {
    latest: HashMap<u128, Revision>,
}

impl Superseded {
    /// Whether nothing was noted.
    pub(super) fn is_empty(&self) -> bool {
        self.latest.is_empty()
    }

    /// Notes what an operation touched that was completed at this revision.
    pub(super) fn note(&mut self, backend: &BackendName, effects: &[Effect], revision: Revision) {
        for Effect { place, reach, .. } in effects {
            let touches: &[Touch] = match reach {
                Reach::One => &[Touch::Here],
                Reach::Tree => &[Touch::Here, Touch::Below],
                Reach::Removed => &[Touch::Here, Touch::Removed],
                Reach::Ensured => &[Touch::Ensured],
            };
            let here = touches.iter().map(|touch| (&place[..], *touch));
            for (place, touch) in here.chain(above(place).map(|place| (place, Touch::Within))) {
                let latest = self.latest.entry(hash(backend, place, touch)).or_default();
                *latest = revision.max(*latest);
            }
        }
    }

    fn since(&self, revision: Revision, backend: &BackendName, place: &str, touch: Touch) -> bool {
        self.latest.get(&hash(backend, place, touch)).is_some_and(|latest| *latest > revision)
    }

    /// Whether something that these effects put was replaced or taken away after this revision.
    pub(super) fn certainly(&self, backend: &BackendName, effects: &[Effect], revision: Revision) -> bool {
        effects.iter().filter(|effect| effect.puts).any(|Effect { place, reach, .. }| {
            let since = |place, touch| self.since(revision, backend, place, touch);
            since(place, Touch::Here)
                || (*reach == Reach::Ensured && since(place, Touch::Ensured))
                || above(place).any(|place| since(place, Touch::Removed))
        })
    }

    /// Whether something that these effects put may have been changed after this revision: no reason not to look, but
    /// one why it may be something else.
    pub(super) fn perhaps(&self, backend: &BackendName, effects: &[Effect], revision: Revision) -> bool {
        effects.iter().filter(|effect| effect.puts).any(|Effect { place, reach, .. }| {
            let since = |place, touch| self.since(revision, backend, place, touch);
            above(place).any(|place| since(place, Touch::Below))
                || (*reach == Reach::Tree && since(place, Touch::Within))
        })
    }
}

/// The places that a place is in.
fn above(place: &str) -> impl Iterator<Item = &str> {
    place.match_indices('/').map(|(at, _)| &place[..at])
}

fn hash(backend: &BackendName, place: &str, touch: Touch) -> u128 {
    let hash = Sha256::new().chain_update([touch as u8]).chain_update(backend.as_str()).chain_update(b"\n");
    let digest = hash.chain_update(place).finalize();
    digest.iter().take(16).fold(0, |all, byte| all << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(place: &str, reach: Reach, puts: bool) -> Effect {
        Effect { place: place.into(), reach, puts }
    }

    /// What a later effect means for an earlier one.
    fn verdict(earlier: &Effect, later: &Effect) -> &'static str {
        let (backend, other) = (BackendName::new("a").unwrap(), BackendName::new("b").unwrap());
        let mut superseded = Superseded::default();
        let earlier = std::slice::from_ref(earlier);
        superseded.note(&backend, earlier, 5);
        superseded.note(&backend, std::slice::from_ref(later), 9);
        assert!(!superseded.certainly(&backend, earlier, 9) && !superseded.perhaps(&backend, earlier, 9));
        assert!(!superseded.certainly(&other, earlier, 5) && !superseded.perhaps(&other, earlier, 5));
        match (superseded.certainly(&backend, earlier, 5), superseded.perhaps(&backend, earlier, 5)) {
            (true, _) => "certainly",
            (false, true) => "perhaps",
            (false, false) => "no",
        }
    }

    #[test]
    fn what_later_operations_replace_or_remove_is_superseded_and_nothing_else() {
        use Reach::{Ensured, One, Removed, Tree};
        let put = |place, reach| effect(place, reach, true);
        let taken = |place, reach| effect(place, reach, false);
        for (earlier, later, expected) in [
            (put("content/x", One), put("content/x", One), "certainly"),
            (put("content/x", One), taken("content/x", One), "certainly"),
            (put("content/x", One), put("content/y", One), "no"),
            (put("content/x", One), taken("content", Tree), "perhaps"),
            // A pin keeps what was added, and does not stand for it: it could not bring it back.
            (put("content/x", One), put("content/x", Ensured), "no"),
            (put("content/x", Ensured), put("content/x", One), "certainly"),
            (put("content/x", Ensured), taken("content/x", One), "certainly"),
            (put("name/a/b", Tree), put("name/a/b", Tree), "certainly"),
            (put("name/a/b", Tree), taken("name/a", Removed), "certainly"),
            (put("name/a/b", Tree), taken("name/a/b", Removed), "certainly"),
            (put("name/ab", Tree), taken("name/a", Removed), "no"),
            (put("name/a", Tree), taken("name/ab", Removed), "no"),
            // It may have the same name in it.
            (put("name/a/b", Tree), put("name/a", Tree), "perhaps"),
            // A tree in which something has changed is another tree.
            (put("name/a", Tree), put("name/a/b/c", Tree), "perhaps"),
            (put("name/a", Tree), taken("name/a/b", Removed), "perhaps"),
            (put("name/a", Tree), put("name/a/b", Ensured), "perhaps"),
            // That a directory is seen to be there changes nothing of it.
            (put("name/a", Tree), put("name/a", Ensured), "no"),
            (put("name/a/b", Tree), put("name/a", Ensured), "no"),
            (put("name/a", Ensured), put("name/a", Ensured), "certainly"),
            (put("name/a", Ensured), put("name/a/b", Tree), "no"),
            (put("name/a/b", Ensured), taken("name/a", Removed), "certainly"),
            // Objects have keys, not folders: one does not replace those below it.
            (put("key/b/a/x", One), put("key/b/a", One), "no"),
            (put("key/b/a", One), put("key/b/a/x", One), "no"),
            (put("key/b/a/x", One), taken("key/b/a", Tree), "perhaps"),
            (put("key/b/a//x", One), taken("key/b/a/", Tree), "perhaps"),
            // Nobody looks at what was only taken away.
            (taken("name/a", Removed), put("name/a", Tree), "no"),
        ] {
            assert_eq!(verdict(&earlier, &later), expected, "{earlier:?} then {later:?}");
        }
    }
}
