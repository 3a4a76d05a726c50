//! What goes wrong on purpose.

/// The faults in force. A clone is another handle to the same ones.
#[derive(Clone, Debug, Default)]
pub struct Faults {}
