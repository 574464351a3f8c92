//! SIGTERM and SIGINT as a request to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::error::CliError;
use crate::report::ErrorType;
use crate::worker::Stop;

/// The signals received so far.
#[derive(Debug, Clone)]
pub struct Interrupts {
    /// The stop that the signals request.
    pub stop: Stop,
    by_keyboard: Arc<AtomicBool>,
    disabled: bool,
}

impl Interrupts {
    /// Returns interrupts for work that takes a moment: signals keep their default effect.
    pub fn disabled() -> Interrupts {
        Interrupts { stop: Stop::new(), by_keyboard: Arc::default(), disabled: true }
    }

    /// Returns these interrupts, or installed ones if these are disabled.
    pub fn or_install(&self) -> Result<Interrupts, CliError> {
        if self.disabled { Interrupts::install() } else { Ok(self.clone()) }
    }

    /// Installs handlers that stay in place until the process ends.
    pub fn install() -> Result<Interrupts, CliError> {
        let interrupts = Interrupts { disabled: false, ..Interrupts::disabled() };
        let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| {
            let message = format!("cannot install signal handlers: {error}");
            CliError::new(ErrorType::Signals, message).hint(
                "nothing was started; raise the limit of open files, such as with \
                 `ulimit -n 1024`",
            )
        })?;
        let received = interrupts.clone();
        std::thread::spawn(move || {
            for signal in signals.forever() {
                if received.stop.is_urgent() {
                    // The third request ends the process at once: the next run recovers the log.
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                }
                received.by_keyboard.fetch_or(signal == SIGINT, Ordering::SeqCst);
                received.stop.request();
            }
        });
        Ok(interrupts)
    }

    /// Returns whether SIGINT was received: a user, not a service manager, ended the command.
    pub fn by_keyboard(&self) -> bool {
        self.by_keyboard.load(Ordering::SeqCst)
    }
}
