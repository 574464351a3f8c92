//! All integration tests, as one program that links once.

mod suite {
    mod model;
    mod tidy;
    mod tools;
}
