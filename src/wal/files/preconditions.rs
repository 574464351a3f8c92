//! Keys and dependencies of a large batch, checked while it is staged and again before it is
//! committed.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use sha2::{Digest, Sha256};

use crate::operation::{Logged, Number, Operation, OperationId};
use crate::wal::change::Written;
use crate::wal::error::{WalError, WalResult};
use crate::wal::read::precheck::{DependencyState, same_or_taken};
use crate::wal::read::view::View;

/// A key, short: of a million, no two are the same.
type KeyHash = [u8; 16];

/// What a batch has to know of keys and dependencies. Empty for a batch without any.
///
/// Nobody but the batch writes Parquet files while it runs, so the keys in those are read once.
#[derive(Debug, Default)]
pub struct BatchPreconditions {
    /// Keys of operations that were there before; none: not read yet.
    existing_keys: Option<HashMap<KeyHash, Number>>,
    /// Keys that the batch logs, with a hash of the work of their operations.
    batch_keys: HashMap<KeyHash, (u64, Written)>,
    /// What its operations wait for, and whether that is still to come.
    dependencies: BTreeMap<OperationId, bool>,
}

/// What becomes of one operation of a batch.
#[derive(Debug)]
pub enum Decision {
    /// It is logged; what it waited for and is completed has been dropped.
    New(Box<Logged>),
    /// Its key is there already, with the same parameters.
    Existing(Box<Operation>),
    /// The batch already uses its key, with the same parameters.
    Duplicate(Written, Box<Logged>),
}

impl BatchPreconditions {
    /// Decides on an operation.
    pub fn decide(&mut self, view: &View, mut logged: Logged) -> WalResult<Decision> {
        if let Some(key) = &logged.idempotency_key {
            let hash = hash_of(key);
            if let Some((work, written)) = self.batch_keys.get(&hash) {
                if *work != work_of(&logged) {
                    return Err(WalError::KeyTwice { key: key.clone() });
                }
                return Ok(Decision::Duplicate(written.clone(), Box::new(logged)));
            }
            if let Some(number) = self.keys_before(view)?.get(&hash)
                && let Some(existing) = view.operation(*number)?
            {
                return same_or_taken(existing, &logged).map(Decision::Existing);
            }
        }
        let mut open = Vec::with_capacity(logged.depends_on.len());
        for id in std::mem::take(&mut logged.depends_on) {
            let is_open = match self.dependencies.get(&id) {
                Some(known) => *known,
                None => match view.dependency_state(id)? {
                    DependencyState::Unknown => return Err(WalError::UnknownDependency { id }),
                    DependencyState::Done => false,
                    DependencyState::Open(_) | DependencyState::Failed(_) => true,
                },
            };
            self.dependencies.insert(id, is_open);
            if is_open && !open.contains(&id) {
                open.push(id);
            }
        }
        logged.depends_on = open;
        Ok(Decision::New(Box::new(logged)))
    }

    /// The batch logs this operation.
    pub fn logged(&mut self, logged: &Logged, written: &Written) {
        if let Some(key) = &logged.idempotency_key {
            self.batch_keys.insert(hash_of(key), (work_of(logged), written.clone()));
        }
    }

    /// Whether it all still holds, under `lock`: others may have logged or deleted something
    /// meanwhile.
    ///
    /// That a dependency has ended since is seen by the drain loop, which looks at all of them.
    pub fn still_hold(&self, view: &View) -> WalResult<()> {
        if !self.batch_keys.is_empty() {
            for (key, number) in view.logged_keys() {
                if self.batch_keys.contains_key(&hash_of(&key)) && view.operation(number)?.is_some()
                {
                    return Err(WalError::KeyTaken { key, number });
                }
            }
        }
        for (id, is_open) in &self.dependencies {
            if *is_open && matches!(view.dependency_state(*id)?, DependencyState::Unknown) {
                return Err(WalError::UnknownDependency { id: *id });
            }
        }
        Ok(())
    }

    fn keys_before(&mut self, view: &View) -> WalResult<&HashMap<KeyHash, Number>> {
        if self.existing_keys.is_none() {
            let mut keys = HashMap::new();
            for file in view.files().iter().filter(|file| file.keys > 0) {
                for row in view.table(file)?.read_all()? {
                    // One that was deleted may still have its row.
                    if view.is_touched(row.number)
                        && view.revision_and_status(row.number, row.id)?.is_none()
                    {
                        continue;
                    }
                    if let Some(key) =
                        row.idempotency_key.filter(|_| !file.superseded.contains(row.number))
                    {
                        keys.insert(hash_of(&key), row.number);
                    }
                }
            }
            // The journal's are later: where a deleted operation had the same key, they count.
            keys.extend(
                view.logged_keys().into_iter().map(|(key, number)| (hash_of(&key), number)),
            );
            self.existing_keys = Some(keys);
        }
        Ok(self.existing_keys.get_or_insert_default())
    }
}

fn hash_of(key: &str) -> KeyHash {
    let mut hash = KeyHash::default();
    hash.copy_from_slice(&Sha256::digest(key.as_bytes())[..16]);
    hash
}

/// Returns a hash of what an operation is to do.
fn work_of(logged: &Logged) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&logged.operation_type, &logged.backend, &logged.parameters).hash(&mut hasher);
    hasher.finish()
}
