use crate::operation::{Number, Operation};
use crate::wal::{Damage, View, WalError, WalResult};

/// The loop's view of the log. Damage to one file does not stop the rest from being executed.
#[derive(Debug)]
pub(super) struct LogView {
    pub(super) view: View,
    /// True if files have changed during a read, so that the queue has to be rebuilt.
    pub(super) is_stale: bool,
    /// The first damage that was found.
    damage: Option<Damage>,
}

impl LogView {
    pub(super) fn new(view: View) -> LogView {
        LogView { view, is_stale: false, damage: None }
    }

    /// Returns what was read, or `None` if the file is damaged or has vanished.
    pub(super) fn skip_damaged<T>(&mut self, read: WalResult<T>) -> WalResult<Option<T>> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_vanished() => {
                self.view.reload()?;
                self.is_stale = true;
                Ok(None)
            }
            Err(WalError::Damaged(damage)) => {
                self.damage.get_or_insert(damage);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn operation(&mut self, number: Number) -> WalResult<Option<Operation>> {
        let read = self.view.operation(number);
        Ok(self.skip_damaged(read)?.flatten())
    }

    pub(super) fn take_damage(&mut self) -> Option<Damage> {
        self.damage.take()
    }
}
