//! What the tests share.

#[path = "support/by_name.rs"]
pub mod by_name;
#[path = "support/clients_world.rs"]
pub mod clients_world;
#[path = "support/connect_world.rs"]
pub mod connect_world;
#[path = "support/edge_triggered.rs"]
pub mod edge_triggered;
#[path = "support/explore.rs"]
pub mod explore;
#[path = "support/facts.rs"]
pub mod facts;
#[path = "support/held.rs"]
pub mod held;
#[path = "support/mutants.rs"]
pub mod mutants;
#[path = "support/on_presence.rs"]
pub mod on_presence;
#[path = "support/session_world.rs"]
pub mod session_world;
#[path = "support/story.rs"]
pub mod story;
#[path = "support/table.rs"]
pub mod table;
