//! `-Y` and `-S`: who may come in, and what that leaves of the other doors.

use super::resolve::Draft;
use super::settings::{Protocol, Settings};
use std::ffi::OsString;
use std::path::PathBuf;

/// memcached's variable: the file of the users of -S.
pub(super) const PASSWORDS: &str = "MEMCACHED_SASL_PWDB";

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Authentication")]
pub(super) struct Authentication {
    /// Clients must say who they are by SASL, in the binary protocol; the users are in the file
    /// that MEMCACHED_SASL_PWDB names
    #[arg(short = 'S', long)]
    enable_sasl: bool,

    /// File of user:password lines: clients must say who they are, in the ascii protocol; read
    /// again on SIGHUP
    #[arg(short = 'Y', long, value_name = "FILE", allow_hyphen_values = true)]
    auth_file: Option<PathBuf>,
}

impl Authentication {
    /// memcached's rule: users bind the server to the protocol that can ask for them.
    /// `protocol_given`: -B was, and is in the settings. `passwords` is the value of [`PASSWORDS`].
    pub(super) fn draft(
        &self,
        s: &mut Settings,
        protocol_given: bool,
        passwords: Option<OsString>,
    ) -> Result<(), String> {
        let (option, protocol, name) = match (self.enable_sasl, &self.auth_file) {
            (false, None) => return Ok(()),
            (true, None) => ("-S", Protocol::Binary, "binary"),
            (false, Some(_)) => ("-Y", Protocol::Ascii, "ascii"),
            (true, Some(_)) => return Err("-S and -Y exclude each other".into()),
        };
        if protocol_given && s.protocol != protocol {
            return Err(format!("{option}: -B must be {name} or not given"));
        }
        s.protocol = protocol;
        s.auth_file.clone_from(&self.auth_file);
        if self.enable_sasl {
            let file = passwords.filter(|path| !path.is_empty());
            let file = file.ok_or_else(|| format!("-S: {PASSWORDS} must name a file of users"))?;
            s.sasl_passwords = Some(file.into());
        }
        Ok(())
    }
}

/// No other door may be left open, once all of them are known. memcached leaves one where -S comes
/// with `proto[ascii]`.
pub(super) fn resolve(draft: &mut Draft) -> Result<(), String> {
    let s = &mut draft.settings;
    let (option, protocol) = match (&s.sasl_passwords, &s.auth_file) {
        (None, None) => return Ok(()),
        (Some(_), _) => ("-S", Protocol::Binary),
        _ => ("-Y", Protocol::Ascii),
    };
    if s.udp_port != 0 {
        return Err(format!("{option}: UDP has no authentication: -U must be 0"));
    }
    let mut negotiating = false;
    for listen in &mut s.listen {
        match listen.traits.protocol {
            given if given == protocol => {}
            Protocol::Auto if protocol == Protocol::Ascii => negotiating = true,
            _ => {
                let (host, port) = (&listen.host, listen.port);
                return Err(format!("-l {host}:{port}: its proto[] cannot go with {option}"));
            }
        }
        listen.traits.protocol = protocol;
    }
    if negotiating {
        draft.warn("-l: with -Y, proto[negotiating] is ascii only".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Listen, ListenTraits};

    fn draft(
        enable_sasl: bool,
        file: Option<&str>,
        protocol: Option<Protocol>,
        passwords: Option<&str>,
    ) -> Result<Settings, String> {
        let options = Authentication { enable_sasl, auth_file: file.map(PathBuf::from) };
        let mut s = Settings::default();
        s.protocol = protocol.unwrap_or(s.protocol);
        options.draft(&mut s, protocol.is_some(), passwords.map(OsString::from)).map(|()| s)
    }

    #[test]
    fn users_bind_the_server_to_their_protocol() {
        let (file, users) = (Some("file"), Some("users"));
        for (sasl, file, protocol, result) in [
            (false, file, None, Protocol::Ascii),
            (false, file, Some(Protocol::Ascii), Protocol::Ascii),
            (true, None, None, Protocol::Binary),
            (true, None, Some(Protocol::Binary), Protocol::Binary),
            (false, None, None, Protocol::Auto),
            (false, None, Some(Protocol::Binary), Protocol::Binary),
        ] {
            let s = draft(sasl, file, protocol, users).expect("they go together");
            assert_eq!(s.protocol, result);
            assert_eq!(s.auth_file, file.map(PathBuf::from));
            assert_eq!(s.sasl_passwords, sasl.then(|| "users".into()));
        }
        for (sasl, file, protocol, users, part) in [
            (false, file, Some(Protocol::Auto), users, "-Y: -B must be ascii"),
            (false, file, Some(Protocol::Binary), users, "-Y: -B must be ascii"),
            (true, None, Some(Protocol::Auto), users, "-S: -B must be binary"),
            (true, None, Some(Protocol::Ascii), users, "-S: -B must be binary"),
            (true, file, None, users, "exclude each other"),
            (true, None, None, None, "MEMCACHED_SASL_PWDB"),
            (true, None, None, Some(""), "MEMCACHED_SASL_PWDB"),
        ] {
            let error = draft(sasl, file, protocol, users).expect_err(part);
            assert!(error.starts_with('-') && error.contains(part), "{error}");
        }
    }

    fn listening(sasl: bool, protocol: Protocol) -> Draft {
        let mut draft = Draft::default();
        draft.settings.auth_file = (!sasl).then(|| "users".into());
        draft.settings.sasl_passwords = sasl.then(|| "users".into());
        let traits = ListenTraits { protocol, ..ListenTraits::default() };
        draft.settings.listen = vec![Listen { traits, ..Listen::default() }];
        draft
    }

    #[test]
    fn every_listener_asks() {
        for (sasl, protocol, warnings) in
            [(false, Protocol::Ascii, 0), (false, Protocol::Auto, 1), (true, Protocol::Binary, 0)]
        {
            let mut draft = listening(sasl, protocol);
            assert_eq!(resolve(&mut draft), Ok(()));
            assert_eq!(draft.settings.warnings.len(), warnings);
            let wanted = if sasl { Protocol::Binary } else { Protocol::Ascii };
            assert_eq!(draft.settings.listen[0].traits.protocol, wanted);
        }
        for (sasl, protocol) in
            [(false, Protocol::Binary), (true, Protocol::Ascii), (true, Protocol::Auto)]
        {
            let error = resolve(&mut listening(sasl, protocol)).expect_err("another protocol");
            assert!(error.starts_with("-l") && error.contains("proto[]"), "{error}");
        }
    }

    #[test]
    fn udp_cannot_ask() {
        for (sasl, protocol) in [(false, Protocol::Ascii), (true, Protocol::Binary)] {
            let mut draft = listening(sasl, protocol);
            draft.settings.udp_port = 11211;
            let error = resolve(&mut draft).expect_err("UDP");
            assert!(error.starts_with('-') && error.contains("UDP"), "{error}");
            (draft.settings.auth_file, draft.settings.sasl_passwords) = (None, None);
            assert_eq!(resolve(&mut draft), Ok(()));
        }
    }
}
