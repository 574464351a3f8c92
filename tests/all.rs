//! All integration tests, as one program that links once.
