//! Who may come in: the users that files name, and whether a client is one of them.

mod file;
mod passwords;
mod sasl;

pub use file::{AuthFile, USERS_MAX};
pub use sasl::{Exchange, Sasl, Step};

use crate::config::Settings;

/// What a server asks its clients for; nothing where no option asks.
#[derive(Default)]
pub struct Auth {
    /// -Y
    pub file: Option<AuthFile>,
    /// -S
    pub sasl: Option<Sasl>,
}

impl Auth {
    /// Reads the files that the options name. An error names the file and the reason.
    pub fn open(settings: &Settings) -> Result<Auth, String> {
        let file = settings.auth_file.clone().map(AuthFile::open).transpose()?;
        let sasl =
            settings.sasl_passwords.clone().map(|path| Sasl::open(path, host())).transpose()?;
        Ok(Auth { file, sasl })
    }
}

/// The machine's name, empty where it has none.
fn host() -> Vec<u8> {
    nix::unistd::gethostname().map(|name| name.into_encoded_bytes()).unwrap_or_default()
}
