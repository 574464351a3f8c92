#![no_main]

libfuzzer_sys::fuzz_target!(init: wal_cli_fuzz::init(), |data: &[u8]| wal_cli_fuzz::run(wal_cli_fuzz::fuzzing::args::run, data));
