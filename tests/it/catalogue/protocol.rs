//! Protocol: W1 to W18.
