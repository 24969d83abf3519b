//! rustcached: a drop-in replacement for memcached with a slab allocator at its heart.
//!
//! The layers, each importing only those to its right (`tests/tidy.rs` holds them to it):
//!
//! `server > {connection, maintain} > protocol > command > store > item > slab`
//!
//! `auth`, `config`, `clock`, `privileges`, `stats` and `watch` are leaves that any layer may
//! import.
#![deny(unsafe_code)]

pub mod auth;
pub mod clock;
pub mod config;
pub mod privileges;
pub mod stats;
pub mod tls;
pub mod watch;

pub mod command;
pub mod connection;
#[allow(unsafe_code)]
pub mod item;
pub mod maintain;
pub mod protocol;
pub mod server;
pub mod store;
