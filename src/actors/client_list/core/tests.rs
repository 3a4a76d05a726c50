//! One behaviour each; every order is in `tests/it/interleavings`.
