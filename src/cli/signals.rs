//! TERM and INT become a request to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::error::CliError;
use crate::report::ErrorType;
use crate::worker::Stop;

/// What came in so far.
#[derive(Debug, Clone)]
pub struct Interrupts {
    /// The request to stop that the signals make.
    pub stop: Stop,
    by_keyboard: Arc<AtomicBool>,
    deaf: bool,
}

impl Interrupts {
    /// For what is over in a moment: signals end the program as they always do.
    pub fn none() -> Interrupts {
        Interrupts { stop: Stop::new(), by_keyboard: Arc::default(), deaf: true }
    }

    /// These, or, if nobody listens yet, new ones.
    pub fn or_listen(&self) -> Result<Interrupts, CliError> {
        if self.deaf { Interrupts::listen() } else { Ok(self.clone()) }
    }

    /// Listens from now on, for as long as the program runs.
    pub fn listen() -> Result<Interrupts, CliError> {
        let interrupts = Interrupts { deaf: false, ..Interrupts::none() };
        let mut signals = Signals::new([SIGINT, SIGTERM])
            .map_err(|error| {
                CliError::new(ErrorType::Signals, format!("could not listen for signals: {error}"))
            })
            .map_err(|error| {
                error
                    .hint("allow more open files, such as with `ulimit -n 1024`; nothing was begun")
            })?;
        let theirs = interrupts.clone();
        std::thread::spawn(move || {
            for signal in signals.forever() {
                if theirs.stop.is_urgent() {
                    // Asked three times: whatever holds us up, the next run puts the log in order.
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                }
                theirs.by_keyboard.fetch_or(signal == SIGINT, Ordering::SeqCst);
                theirs.stop.request();
            }
        });
        Ok(interrupts)
    }

    /// Whether one of them was INT: a person wants it to end, rather than a service manager.
    pub fn by_keyboard(&self) -> bool {
        self.by_keyboard.load(Ordering::SeqCst)
    }
}
