//! `podway demo`: a miniature cluster in namespaces, the real daemon on a workstation beside it, a real connection, and
//! a request that shows where it came from.
//!
//! - [`steps`]: what is started, in which order, and what ends it. [`stage`]: the sandbox and commands in it.
//! - [`seen`]: what the answers prove. [`report`]: how it is told. Both are pure.
//! - [`probe`]: the plain client that measures; a program of its own that knows nothing of podway.
//! - [`join`]: a command of the user's on the workstation.
//!
//! All that it starts ends with it: see `podway_minicluster::sandbox`.

pub mod args;
pub mod error;
pub mod join;
pub mod probe;
pub mod report;
pub mod screen;
pub mod seen;
pub mod signals;
pub mod stage;
pub mod steps;

pub use steps::run;
