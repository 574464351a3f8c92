//! Effects that later operations replaced or removed: their absence is not a loss.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::backend::{Effect, EffectKind, Reach};
use crate::operation::{BackendName, Revision};

/// The loss of an effect that an audit found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// The target no longer exists.
    Missing,
    /// The target has changed.
    Altered,
}

/// The way in which an operation touched a target.
#[derive(Debug, Clone, Copy)]
enum Touch {
    /// Wrote or removed the target.
    Here,
    /// Ensured that the target exists.
    Ensured,
    /// Removed the target and everything below it.
    Removed,
    /// May have written something below the target.
    Below,
    /// May have removed something below the target.
    BelowRemoved,
    /// Touched something below the target.
    Within,
}

/// The latest touch of each target: its revision, since clocks may jump, or the number of the
/// operation.
///
/// Targets are kept as hashes of 128 bits. A name takes 40 to 80 bytes, and the same again for each
/// directory above it that contains no other name.
#[derive(Debug, Default)]
pub(super) struct TouchIndex<M = Revision> {
    latest: HashMap<u128, M>,
}

impl<M: Copy + Ord> TouchIndex<M> {
    /// Returns `true` if no target was touched.
    pub(super) fn is_empty(&self) -> bool {
        self.latest.is_empty()
    }

    /// Records the effects of an operation, with its revision or number.
    pub(super) fn record(&mut self, backend: &BackendName, effects: &[Effect], mark: M) {
        for Effect { target, kind, reach } in effects {
            use EffectKind::{Read, Remove, Write};
            let touches: &[Touch] = match (reach, kind) {
                (_, Read) => continue,
                (Reach::Exact, _) => &[Touch::Here],
                (Reach::Tree | Reach::Prefix, Write) => &[Touch::Here, Touch::Below],
                (Reach::Tree | Reach::Prefix, Remove) => &[Touch::Here, Touch::BelowRemoved],
                (Reach::Removed, _) => &[Touch::Here, Touch::Removed],
                (Reach::Ensured, _) => &[Touch::Ensured],
            };
            let here = touches.iter().map(|touch| (&target[..], *touch));
            for (target, touch) in here.chain(above(target).map(|target| (target, Touch::Within))) {
                let latest = self.latest.entry(hash(backend, target, touch)).or_insert(mark);
                *latest = mark.max(*latest);
            }
        }
    }

    /// Returns the latest revision that certainly replaced or removed a target of these effects.
    fn last_replaced(&self, backend: &BackendName, effects: &[Effect]) -> Option<M> {
        let writes = effects.iter().filter(|effect| effect.is_write());
        writes
            .filter_map(|Effect { target, reach, .. }| {
                let at = |target, touch| self.latest.get(&hash(backend, target, touch)).copied();
                let ensured =
                    (*reach == Reach::Ensured).then(|| at(target, Touch::Ensured)).flatten();
                at(target, Touch::Here)
                    .max(ensured)
                    .max(above(target).filter_map(|target| at(target, Touch::Removed)).max())
            })
            .max()
    }

    /// Returns the latest revision that may explain the loss of a target of these effects.
    fn last_maybe_lost(&self, backend: &BackendName, effects: &[Effect], loss: Loss) -> Option<M> {
        let writes = effects.iter().filter(|effect| effect.is_write());
        writes
            .filter_map(|Effect { target, reach, .. }| {
                let at = |target, touch| self.latest.get(&hash(backend, target, touch)).copied();
                let has_parts = matches!(reach, Reach::Tree | Reach::Prefix);
                let below = above(target).filter_map(|target| at(target, Touch::Below)).max();
                // Removing something else does not alter a single object.
                let removed =
                    || above(target).filter_map(|target| at(target, Touch::BelowRemoved)).max();
                let removed = (has_parts || loss == Loss::Missing).then(removed).flatten();
                // A directory outlives its content, unless it is only a common prefix of keys.
                let may_shrink =
                    *reach == Reach::Prefix || (*reach == Reach::Tree && loss == Loss::Altered);
                let within = may_shrink.then(|| at(target, Touch::Within)).flatten();
                below.max(removed).max(within)
            })
            .max()
    }

    /// Returns `true` if a later revision certainly replaced or removed a target of these effects.
    pub(super) fn was_replaced_after(
        &self,
        backend: &BackendName,
        effects: &[Effect],
        revision: M,
    ) -> bool {
        self.last_replaced(backend, effects).is_some_and(|latest| latest > revision)
    }

    /// Returns `true` if operations after this revision may explain the loss that the audit found.
    pub(super) fn may_be_lost_after(
        &self,
        backend: &BackendName,
        effects: &[Effect],
        revision: M,
        loss: Loss,
    ) -> bool {
        self.last_maybe_lost(backend, effects, loss).is_some_and(|latest| latest > revision)
    }

    /// Returns the latest revision in which a target of these effects was touched in any way.
    pub(super) fn last_touched(&self, backend: &BackendName, effects: &[Effect]) -> Option<M> {
        let lost = [Loss::Missing, Loss::Altered];
        let lost = lost.map(|loss| self.last_maybe_lost(backend, effects, loss));
        lost.into_iter().flatten().chain(self.last_replaced(backend, effects)).max()
    }
}

/// Returns the targets that contain a target.
fn above(target: &str) -> impl Iterator<Item = &str> {
    target.match_indices('/').map(|(at, _)| &target[..at])
}

fn hash(backend: &BackendName, target: &str, touch: Touch) -> u128 {
    let hash = Sha256::new()
        .chain_update([touch as u8])
        .chain_update(backend.as_str())
        .chain_update(b"\n");
    let digest = hash.chain_update(target).finalize();
    digest.iter().take(16).fold(0, |all, byte| all << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the consequence of a later effect for an earlier one.
    fn verdict(earlier: &Effect, later: &Effect) -> &'static str {
        let (backend, other) = (BackendName::new("a").unwrap(), BackendName::new("b").unwrap());
        let (at_first, at_last) = (Revision::new(5), Revision::new(9));
        let mut index = TouchIndex::default();
        let earlier = std::slice::from_ref(earlier);
        index.record(&backend, earlier, at_first);
        index.record(&backend, std::slice::from_ref(later), at_last);
        let replaced = |backend, after| index.was_replaced_after(backend, earlier, after);
        let lost = |backend, after| {
            let losses = [Loss::Missing, Loss::Altered];
            losses.map(|loss| index.may_be_lost_after(backend, earlier, after, loss))
        };
        assert!(!replaced(&backend, at_last) && lost(&backend, at_last) == [false; 2]);
        assert!(!replaced(&other, at_first) && lost(&other, at_first) == [false; 2]);
        let found = match (replaced(&backend, at_first), lost(&backend, at_first)) {
            (true, _) => "replaced",
            (false, [true, true]) => "any loss",
            (false, [true, false]) => "missing",
            (false, [false, true]) => "altered",
            (false, [false, false]) => "no",
        };
        let touched = index.last_touched(&backend, earlier) == Some(at_last);
        assert_eq!(touched, found != "no", "{earlier:?}");
        found
    }

    #[test]
    fn later_operations_supersede_what_they_replace_or_remove() {
        use Reach::{Ensured, Exact, Prefix, Removed, Tree};
        let put = |target: &str, reach| Effect::writes(target, reach);
        let removed = |target: &str, reach| Effect::removes(target, reach);
        for (earlier, later, expected) in [
            (put("content/x", Exact), put("content/x", Exact), "replaced"),
            (put("content/x", Exact), removed("content/x", Exact), "replaced"),
            (put("content/x", Exact), put("content/y", Exact), "no"),
            // Removing the directory does not alter the bytes.
            (put("content/x", Exact), removed("content", Tree), "missing"),
            // A pin keeps what was added; it cannot restore it.
            (put("content/x", Exact), put("content/x", Ensured), "no"),
            (put("content/x", Ensured), put("content/x", Exact), "replaced"),
            (put("content/x", Ensured), removed("content/x", Exact), "replaced"),
            (put("name/a/b", Tree), put("name/a/b", Tree), "replaced"),
            (put("name/a/b", Tree), removed("name/a", Removed), "replaced"),
            (put("name/a/b", Tree), removed("name/a/b", Removed), "replaced"),
            (put("name/ab", Tree), removed("name/a", Removed), "no"),
            (put("name/a", Tree), removed("name/ab", Removed), "no"),
            // The new tree may have the same name in it.
            (put("name/a/b", Tree), put("name/a", Tree), "any loss"),
            // A tree is altered when something in it changes.
            (put("name/a", Tree), put("name/a/b/c", Tree), "altered"),
            (put("name/a", Tree), removed("name/a/b", Removed), "altered"),
            (put("name/a", Tree), put("name/a/b", Ensured), "altered"),
            // Making sure that a directory exists changes nothing in it.
            (put("name/a", Tree), put("name/a", Ensured), "no"),
            (put("name/a/b", Tree), put("name/a", Ensured), "no"),
            (put("name/a", Ensured), put("name/a", Ensured), "replaced"),
            (put("name/a", Ensured), put("name/a/b", Tree), "no"),
            (put("name/a/b", Ensured), removed("name/a", Removed), "replaced"),
            // Objects have keys, not directories: one does not replace those below it.
            (put("key/b/a/x", Exact), put("key/b/a", Exact), "no"),
            (put("key/b/a", Exact), put("key/b/a/x", Exact), "no"),
            (put("key/b/a/x", Exact), removed("key/b/a", Prefix), "missing"),
            (put("key/b/a//x", Exact), removed("key/b/a/", Prefix), "missing"),
            (put("key/b/a/x", Exact), put("key/b/a", Prefix), "any loss"),
            (put("key/b/a", Prefix), removed("key/b/a/x", Prefix), "any loss"),
            (put("key/b/a/b", Prefix), removed("key/b/a", Prefix), "any loss"),
            // A removal has no effect to check.
            (removed("name/a", Removed), put("name/a", Tree), "no"),
        ] {
            assert_eq!(verdict(&earlier, &later), expected, "{earlier:?} then {later:?}");
        }
    }
}
