//! Authorisation: Z1 to Z14.
