//! The commands, a file each. To add one: write its file, and name it here twice.

mod add;
mod archive;
mod bench;
mod cancel;
mod checkpoint;
mod cleanup;
mod completions;
mod config;
mod delete;
mod durability_helper;
mod failures;
mod health;
mod hold;
mod list;
mod prioritize;
mod process;
mod release;
mod retry;
mod schema;
mod show;
mod status;
mod submit;
mod verify;
mod wait;
mod why;

use super::command::Entry;

/// All commands, in the order of `--help`.
pub const ALL: &[Entry] = &[
    Entry::of::<add::Add>(),
    Entry::of::<submit::Submit>(),
    Entry::of::<status::Status>(),
    Entry::of::<list::List>(),
    Entry::of::<show::Show>(),
    Entry::of::<wait::Wait>(),
    Entry::of::<why::Why>(),
    Entry::of::<failures::Failures>(),
    Entry::of::<retry::Retry>(),
    Entry::of::<cancel::Cancel>(),
    Entry::of::<hold::Hold>(),
    Entry::of::<release::Release>(),
    Entry::of::<delete::Delete>(),
    Entry::of::<prioritize::Prioritize>(),
    Entry::of::<process::Process>(),
    Entry::of::<archive::Archive>(),
    Entry::of::<cleanup::Cleanup>(),
    Entry::of::<checkpoint::Checkpoint>(),
    Entry::of::<verify::Verify>(),
    Entry::of::<durability_helper::DurabilityHelper>(),
    Entry::of::<health::Health>(),
    Entry::of::<bench::Bench>(),
    Entry::of::<config::Config>(),
    Entry::of::<schema::Schema>(),
    Entry::of::<completions::Completions>(),
];
