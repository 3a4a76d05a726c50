//! Orders and overlaps.
