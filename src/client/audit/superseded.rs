//! What later operations replaced or took away: it is not gone behind anybody's back.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::backend::{Effect, EffectKind, Reach};
use crate::operation::{BackendName, Revision};

/// What has become of what was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// It is not there any more.
    Gone,
    /// It is something else.
    Altered,
}

/// How an operation touched a place, as far as others are concerned.
#[derive(Debug, Clone, Copy)]
enum Touch {
    /// It put something there, or took it away.
    Here,
    /// It saw to it that it is there.
    Ensured,
    /// It took it away with all below it.
    Removed,
    /// It may have put something below it.
    Below,
    /// It may have taken away what is below it.
    BelowTaken,
    /// It touched something below it.
    Within,
}

/// For each place that operations touched, when that happened last: as a revision, since clocks may jump, or as
/// the number of the operation.
///
/// Places are kept as hashes of 128 bits. A name takes some 40 to 80 bytes for itself, and again for each of the
/// folders above it that no other name is in.
#[derive(Debug, Default)]
pub(super) struct Superseded<M = Revision> {
    latest: HashMap<u128, M>,
}

impl<M: Copy + Ord> Superseded<M> {
    /// Whether nothing was noted.
    pub(super) fn is_empty(&self) -> bool {
        self.latest.is_empty()
    }

    /// Notes what an operation touched, with its revision or number.
    pub(super) fn note(&mut self, backend: &BackendName, effects: &[Effect], mark: M) {
        for Effect { target: place, kind, reach } in effects {
            use EffectKind::{Read, Remove, Write};
            let touches: &[Touch] = match (reach, kind) {
                (_, Read) => continue,
                (Reach::Exact, _) => &[Touch::Here],
                (Reach::Tree | Reach::Prefix, Write) => &[Touch::Here, Touch::Below],
                (Reach::Tree | Reach::Prefix, Remove) => &[Touch::Here, Touch::BelowTaken],
                (Reach::Removed, _) => &[Touch::Here, Touch::Removed],
                (Reach::Ensured, _) => &[Touch::Ensured],
            };
            let here = touches.iter().map(|touch| (&place[..], *touch));
            for (place, touch) in here.chain(above(place).map(|place| (place, Touch::Within))) {
                let latest = self.latest.entry(hash(backend, place, touch)).or_insert(mark);
                *latest = mark.max(*latest);
            }
        }
    }

    /// The latest revision in which something that these effects put was replaced or taken away, for certain.
    fn surely(&self, backend: &BackendName, effects: &[Effect]) -> Option<M> {
        let puts = effects.iter().filter(|effect| effect.is_write());
        puts.filter_map(|Effect { target: place, reach, .. }| {
            let at = |place, touch| self.latest.get(&hash(backend, place, touch)).copied();
            let ensured = (*reach == Reach::Ensured).then(|| at(place, Touch::Ensured)).flatten();
            at(place, Touch::Here)
                .max(ensured)
                .max(above(place).filter_map(|place| at(place, Touch::Removed)).max())
        })
        .max()
    }

    /// The latest revision in which something that these effects put may have become what was found there.
    fn maybe(&self, backend: &BackendName, effects: &[Effect], loss: Loss) -> Option<M> {
        let puts = effects.iter().filter(|effect| effect.is_write());
        puts.filter_map(|Effect { target: place, reach, .. }| {
            let at = |place, touch| self.latest.get(&hash(backend, place, touch)).copied();
            let has_parts = matches!(reach, Reach::Tree | Reach::Prefix);
            let below = above(place).filter_map(|place| at(place, Touch::Below)).max();
            // What is one piece is not changed by taking away.
            let taken = || above(place).filter_map(|place| at(place, Touch::BelowTaken)).max();
            let taken = (has_parts || loss == Loss::Gone).then(taken).flatten();
            // A folder stays when something in it goes, unless it is only what the names in it have in common.
            let may_shrink =
                *reach == Reach::Prefix || (*reach == Reach::Tree && loss == Loss::Altered);
            let within = may_shrink.then(|| at(place, Touch::Within)).flatten();
            below.max(taken).max(within)
        })
        .max()
    }

    /// Whether something that these effects put was replaced or taken away after this revision.
    pub(super) fn certainly(&self, backend: &BackendName, effects: &[Effect], revision: M) -> bool {
        self.surely(backend, effects).is_some_and(|latest| latest > revision)
    }

    /// Whether what these effects put may have been lost by operations after this revision: no reason not to look, but
    /// one why it may be gone, or something else.
    pub(super) fn perhaps(
        &self,
        backend: &BackendName,
        effects: &[Effect],
        revision: M,
        loss: Loss,
    ) -> bool {
        self.maybe(backend, effects, loss).is_some_and(|latest| latest > revision)
    }

    /// The latest revision in which anything of what these effects put was touched, by any means.
    pub(super) fn last_touched(&self, backend: &BackendName, effects: &[Effect]) -> Option<M> {
        let maybe = [Loss::Gone, Loss::Altered].map(|loss| self.maybe(backend, effects, loss));
        maybe.into_iter().flatten().chain(self.surely(backend, effects)).max()
    }
}

/// The places that a place is in.
fn above(place: &str) -> impl Iterator<Item = &str> {
    place.match_indices('/').map(|(at, _)| &place[..at])
}

fn hash(backend: &BackendName, place: &str, touch: Touch) -> u128 {
    let hash = Sha256::new()
        .chain_update([touch as u8])
        .chain_update(backend.as_str())
        .chain_update(b"\n");
    let digest = hash.chain_update(place).finalize();
    digest.iter().take(16).fold(0, |all, byte| all << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a later effect means for an earlier one.
    fn verdict(earlier: &Effect, later: &Effect) -> &'static str {
        let (backend, other) = (BackendName::new("a").unwrap(), BackendName::new("b").unwrap());
        let mut superseded = Superseded::default();
        let earlier = std::slice::from_ref(earlier);
        superseded.note(&backend, earlier, Revision::new(5));
        superseded.note(&backend, std::slice::from_ref(later), Revision::new(9));
        let losses = [Loss::Gone, Loss::Altered];
        let perhaps = |backend, revision| {
            losses.map(|loss| superseded.perhaps(backend, earlier, revision, loss))
        };
        assert!(
            !superseded.certainly(&backend, earlier, Revision::new(9))
                && perhaps(&backend, Revision::new(9)) == [false; 2]
        );
        assert!(
            !superseded.certainly(&other, earlier, Revision::new(5))
                && perhaps(&other, Revision::new(5)) == [false; 2]
        );
        let found = match (
            superseded.certainly(&backend, earlier, Revision::new(5)),
            perhaps(&backend, Revision::new(5)),
        ) {
            (true, _) => "certainly",
            (false, [true, true]) => "perhaps",
            (false, [true, false]) => "gone",
            (false, [false, true]) => "altered",
            (false, [false, false]) => "no",
        };
        let touched = superseded
            .last_touched(&backend, earlier)
            .is_some_and(|revision| revision == Revision::new(9));
        assert_eq!(touched, found != "no", "{earlier:?}");
        found
    }

    #[test]
    fn what_later_operations_replace_or_remove_is_superseded_and_nothing_else() {
        use Reach::{Ensured, Exact, Prefix, Removed, Tree};
        let put = |place: &str, reach| Effect::writes(place, reach);
        let taken = |place: &str, reach| Effect::removes(place, reach);
        for (earlier, later, expected) in [
            (put("content/x", Exact), put("content/x", Exact), "certainly"),
            (put("content/x", Exact), taken("content/x", Exact), "certainly"),
            (put("content/x", Exact), put("content/y", Exact), "no"),
            // Bytes are not damaged by taking away.
            (put("content/x", Exact), taken("content", Tree), "gone"),
            // A pin keeps what was added, and does not stand for it: it could not bring it back.
            (put("content/x", Exact), put("content/x", Ensured), "no"),
            (put("content/x", Ensured), put("content/x", Exact), "certainly"),
            (put("content/x", Ensured), taken("content/x", Exact), "certainly"),
            (put("name/a/b", Tree), put("name/a/b", Tree), "certainly"),
            (put("name/a/b", Tree), taken("name/a", Removed), "certainly"),
            (put("name/a/b", Tree), taken("name/a/b", Removed), "certainly"),
            (put("name/ab", Tree), taken("name/a", Removed), "no"),
            (put("name/a", Tree), taken("name/ab", Removed), "no"),
            // It may have the same name in it.
            (put("name/a/b", Tree), put("name/a", Tree), "perhaps"),
            // A tree in which something has changed is another tree.
            (put("name/a", Tree), put("name/a/b/c", Tree), "altered"),
            (put("name/a", Tree), taken("name/a/b", Removed), "altered"),
            (put("name/a", Tree), put("name/a/b", Ensured), "altered"),
            // That a directory is seen to be there changes nothing of it.
            (put("name/a", Tree), put("name/a", Ensured), "no"),
            (put("name/a/b", Tree), put("name/a", Ensured), "no"),
            (put("name/a", Ensured), put("name/a", Ensured), "certainly"),
            (put("name/a", Ensured), put("name/a/b", Tree), "no"),
            (put("name/a/b", Ensured), taken("name/a", Removed), "certainly"),
            // Objects have keys, not folders: one does not replace those below it.
            (put("key/b/a/x", Exact), put("key/b/a", Exact), "no"),
            (put("key/b/a", Exact), put("key/b/a/x", Exact), "no"),
            (put("key/b/a/x", Exact), taken("key/b/a", Prefix), "gone"),
            (put("key/b/a//x", Exact), taken("key/b/a/", Prefix), "gone"),
            (put("key/b/a/x", Exact), put("key/b/a", Prefix), "perhaps"),
            (put("key/b/a", Prefix), taken("key/b/a/x", Prefix), "perhaps"),
            (put("key/b/a/b", Prefix), taken("key/b/a", Prefix), "perhaps"),
            // Nobody looks at what was only taken away.
            (taken("name/a", Removed), put("name/a", Tree), "no"),
        ] {
            assert_eq!(verdict(&earlier, &later), expected, "{earlier:?} then {later:?}");
        }
    }
}
