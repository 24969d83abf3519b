//! The command line, and what it resolves to: parsing has no side effects, resolution happens
//! once, and [`Settings`] does not change afterwards.

mod settings;

pub use settings::{Layout, Listen, Protocol, Settings};
