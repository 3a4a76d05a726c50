//! What AgentPlacer takes beyond the facts of others.

use crate::actors::shell::{Reply, told};

/// Session → AgentPlacer. Delete our own pods, of every image, from the connected namespace now (`disconnect --clean`);
/// ephemeral containers stay.
#[derive(Debug)]
pub struct RemoveAll {
    /// What could not be removed, empty when all is gone.
    pub reply: Reply<Vec<String>>,
}

told!(RemoveAll);
