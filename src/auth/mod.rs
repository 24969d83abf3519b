//! Who may come in: the users that files name, and whether a client is one of them.

mod file;

pub use file::{AuthFile, USERS_MAX};

use crate::config::Settings;

/// What a server asks its clients for; nothing where no option asks.
#[derive(Default)]
pub struct Auth {
    /// -Y
    pub file: Option<AuthFile>,
}

impl Auth {
    /// Reads the files that the options name. An error names the file and the reason.
    pub fn open(settings: &Settings) -> Result<Auth, String> {
        let file = settings.auth_file.clone().map(AuthFile::open).transpose()?;
        Ok(Auth { file })
    }
}
