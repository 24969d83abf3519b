//! Tokens of SASL before a connection of the binary protocol.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustcached::auth::Auth;
use rustcached::config::Protocol;
use std::sync::{Arc, LazyLock};

static USERS: LazyLock<Arc<Auth>> =
    LazyLock::new(|| rustcached_fuzz::users(|s, path| s.sasl_passwords = Some(path)));

fuzz_target!(|input: &[u8]| rustcached_fuzz::gated(Protocol::Binary, USERS.clone(), input));
