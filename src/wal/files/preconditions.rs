//! Checks of the idempotency keys and dependencies of a large batch: while it is staged, and again
//! before it is committed.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use sha2::{Digest, Sha256};

use crate::operation::{Logged, Number, Operation, OperationId};
use crate::wal::change::Written;
use crate::wal::error::{WalError, WalResult};
use crate::wal::read::precheck::{DependencyState, same_or_taken};
use crate::wal::read::view::View;

/// A truncated hash of a key. A collision among millions of keys is negligibly unlikely.
type KeyHash = [u8; 16];

/// The idempotency keys and dependencies of a batch. Empty for a batch without any.
///
/// No other process writes Parquet files meanwhile, so the keys in these are read only once.
#[derive(Debug, Default)]
pub struct BatchPreconditions {
    /// The keys that were logged before the batch; none until they are read.
    existing_keys: Option<HashMap<KeyHash, Number>>,
    /// The keys that the batch logs, each with a hash of the work of its operation.
    batch_keys: HashMap<KeyHash, (u64, Written)>,
    /// The dependencies of its operations; true for those that are not completed.
    dependencies: BTreeMap<OperationId, bool>,
}

/// The decision on one operation of a batch.
#[derive(Debug)]
pub enum Decision {
    /// It is logged, without its completed dependencies.
    New(Box<Logged>),
    /// An operation with the same key and the same work is already logged.
    Existing(Box<Operation>),
    /// The batch already logs an operation with the same key and the same work.
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
            if let Some(number) = self.existing_keys(view)?.get(&hash)
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

    /// Records an operation that the batch logs.
    pub fn record(&mut self, logged: &Logged, written: &Written) {
        if let Some(key) = &logged.idempotency_key {
            self.batch_keys.insert(hash_of(key), (work_of(logged), written.clone()));
        }
    }

    /// Fails if another process has logged one of the keys meanwhile, or deleted a dependency.
    /// Called under `lock`.
    ///
    /// A dependency may have ended meanwhile: drain loops check all dependencies.
    pub fn recheck(&self, view: &View) -> WalResult<()> {
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

    /// Returns the keys that were logged before the batch.
    fn existing_keys(&mut self, view: &View) -> WalResult<&HashMap<KeyHash, Number>> {
        if self.existing_keys.is_none() {
            let mut keys = HashMap::new();
            for file in view.files().iter().filter(|file| file.keys > 0) {
                for row in view.table(file)?.read_all()? {
                    // A deleted operation may still have its row.
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
            // Keys in the journal are later, and replace those of deleted operations.
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

/// Returns a hash of the work of an operation.
fn work_of(logged: &Logged) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&logged.operation_type, &logged.backend, &logged.parameters).hash(&mut hasher);
    hasher.finish()
}
