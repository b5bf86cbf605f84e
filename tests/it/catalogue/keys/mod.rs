//! Key distribution: K1 to K16. What needs two brokers is in [`super::two_nodes`].

#[cfg(feature = "client")]
mod ghosts;
mod kept;
mod made_before;
mod members;
#[cfg(feature = "client")]
mod rewritten;
