//! The invocation of the program, so that suggested commands can be pasted as they are.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::args::Global;

/// The name under which the program was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `wal-cli …`
    WalCli,
    /// `ipfs-kit wal …`
    IpfsKit,
}

impl Program {
    /// Returns the program that the first argument names.
    pub fn of(name: Option<&OsString>) -> Program {
        match name.and_then(|name| Path::new(name).file_name()) {
            Some(name) if name == OsStr::new("ipfs-kit") => Program::IpfsKit,
            _ => Program::WalCli,
        }
    }

    /// Returns the words that are typed before the name of a command.
    pub fn name(self) -> &'static str {
        match self {
            Program::WalCli => "wal-cli",
            Program::IpfsKit => "ipfs-kit wal",
        }
    }
}

/// The beginning of a command in a text.
const COMMAND: &str = "`wal-cli";

/// The invocation of the program: its name, and the flags that select the log and the configuration
/// file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The program's name.
    pub program: Program,
    /// `--base-path` and `--config` as they were given, quoted for a shell, each after a space.
    flags: String,
}

impl Invocation {
    /// Returns the invocation with these flags. Values from the environment or the configuration
    /// file apply to the next command as well, and are not repeated.
    pub fn new(program: Program, global: &Global) -> Invocation {
        let mut flags = String::new();
        for (flag, path) in [("base-path", &global.base_path), ("config", &global.config)] {
            if let Some(path) = path {
                flags.push_str(&format!(" --{flag} {}", quoted(path)));
            }
        }
        Invocation { program, flags }
    }

    /// Returns an invocation whose arguments could not be parsed.
    pub fn unparsed(program: Program) -> Invocation {
        Invocation { program, flags: String::new() }
    }

    /// Returns the text with each command in backticks, such as `` `wal-cli list` ``, adapted to
    /// this invocation: with its program name and its flags.
    pub fn pasteable<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !text.contains(COMMAND) || (self.program == Program::WalCli && self.flags.is_empty()) {
            return Cow::Borrowed(text);
        }
        let mut whole = String::with_capacity(text.len() + self.flags.len());
        let mut rest = text;
        while let Some(at) = rest.find(COMMAND) {
            let (before, after) = (&rest[..at], &rest[at + COMMAND.len()..]);
            whole.push_str(before);
            whole.push('`');
            let arguments = after.split('`').next().unwrap_or(after);
            match arguments.chars().next() {
                // The program itself, not a command of it.
                None => whole.push_str(self.program.name()),
                Some(' ') => {
                    whole.push_str(self.program.name());
                    // Help is the same for every log.
                    if !arguments.split(' ').any(|word| word == "--help") {
                        whole.push_str(&self.flags);
                    }
                }
                // A longer word, such as a file's name.
                Some(_) => whole.push_str("wal-cli"),
            }
            rest = after;
        }
        whole.push_str(rest);
        Cow::Owned(whole)
    }
}

/// Returns the path quoted for a shell. A path with a NUL cannot be an argument at all.
fn quoted(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let quoted = shlex::bytes::try_quote(bytes).unwrap_or(Cow::Borrowed(bytes));
    String::from_utf8_lossy(&quoted).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation(program: Program, base_path: &str, config: &str) -> Invocation {
        let path = |text: &str| (!text.is_empty()).then(|| text.into());
        Invocation::new(
            program,
            &Global {
                json: false,
                base_path: path(base_path),
                config: path(config),
                debug: false,
                quiet: false,
                color: super::super::args::ColorWhen::Never,
                lock_timeout: None,
            },
        )
    }

    #[test]
    fn commands_in_texts_can_be_pasted() {
        let plain = invocation(Program::WalCli, "", "");
        let flags = invocation(Program::WalCli, "/srv/wal", "my wal.toml");
        let other = invocation(Program::IpfsKit, "", "");
        let spaces = invocation(Program::IpfsKit, "it's here", "");
        for (invocation, text, expected) in [
            (&plain, "run `wal-cli list all`", "run `wal-cli list all`"),
            (
                &flags,
                "run `wal-cli list all`, then `wal-cli process`",
                "run `wal-cli --base-path /srv/wal --config 'my wal.toml' list all`, \
                 then `wal-cli --base-path /srv/wal --config 'my wal.toml' process`",
            ),
            (&other, "run `wal-cli list all`", "run `ipfs-kit wal list all`"),
            (
                &spaces,
                "run `wal-cli show 3`",
                "run `ipfs-kit wal --base-path \"it's here\" show 3`",
            ),
            (&flags, "`wal-cli submit --help` lists them", "`wal-cli submit --help` lists them"),
            (
                &other,
                "`wal-cli submit --help` lists them",
                "`ipfs-kit wal submit --help` lists them",
            ),
            (&flags, "the environment of `wal-cli`", "the environment of `wal-cli`"),
            (&other, "the environment of `wal-cli`", "the environment of `ipfs-kit wal`"),
            (&other, "`wal-cli.txt` and /src/wal-cli", "`wal-cli.txt` and /src/wal-cli"),
            (&flags, "pass `--lock-timeout 60s`", "pass `--lock-timeout 60s`"),
            (&flags, "", ""),
            (&other, "an open `wal-cli show", "an open `ipfs-kit wal show"),
        ] {
            assert_eq!(invocation.pasteable(text), expected, "{text}");
        }
    }
}
