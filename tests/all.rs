//! All integration tests, as one program that links once.

// Repeated here so that clippy recognises helpers as test code, which may unwrap.
#[cfg(test)]
mod suite {
    mod acknowledged;
    mod adoption;
    mod adoption_crash;
    mod audit;
    mod batches;
    mod behaviours;
    mod binary;
    mod cli;
    mod clocks;
    mod contract;
    mod corpora;
    mod crash;
    mod crowd;
    mod custom;
    mod damage;
    mod failpoints;
    mod faults;
    mod fleet;
    #[path = "../fuzzing/mod.rs"]
    mod fuzzing;
    mod generations;
    mod interleave;
    mod kill;
    mod kubo;
    mod limits;
    mod model;
    mod moving;
    mod mutations;
    mod order;
    mod outages;
    mod outcomes;
    mod proxy;
    mod pushes;
    mod readers;
    mod registered;
    mod repair;
    mod s3;
    mod scenario;
    mod setups;
    mod spool;
    mod spool_machine;
    mod stopped;
    mod tidy;
    mod tools;
    mod tour;
    mod verbs;
    mod verify;
    mod worker;
}
