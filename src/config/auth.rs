//! `-Y`: who may come in, and what that leaves of the other doors.

use super::resolve::Draft;
use super::settings::{Protocol, Settings};
use std::path::PathBuf;

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Authentication")]
pub(super) struct Authentication {
    /// File of user:password lines: clients must say who they are, in the ascii protocol; read
    /// again on SIGHUP
    #[arg(short = 'Y', long, value_name = "FILE", allow_hyphen_values = true)]
    auth_file: Option<PathBuf>,
}

impl Authentication {
    /// memcached's rule: a file of users binds the server to the protocol that can ask for them.
    /// `protocol_given`: -B was, and is in the settings.
    pub(super) fn draft(&self, s: &mut Settings, protocol_given: bool) -> Result<(), String> {
        s.auth_file = self.auth_file.clone();
        if s.auth_file.is_some() {
            if protocol_given && s.protocol != Protocol::Ascii {
                return Err("-Y: only ascii has tokens: -B must be ascii or not given".into());
            }
            s.protocol = Protocol::Ascii;
        }
        Ok(())
    }
}

/// No other door may be left open, once all of them are known.
pub(super) fn resolve(draft: &mut Draft) -> Result<(), String> {
    let s = &mut draft.settings;
    if s.auth_file.is_none() {
        return Ok(());
    }
    if s.udp_port != 0 {
        return Err("-Y: UDP has no authentication: -U must be 0".into());
    }
    let mut negotiating = false;
    for listen in &mut s.listen {
        match listen.traits.protocol {
            Protocol::Ascii => {}
            Protocol::Auto => negotiating = true,
            Protocol::Binary => {
                let (host, port) = (&listen.host, listen.port);
                return Err(format!("-l {host}:{port}: proto[binary] excludes -Y"));
            }
        }
        listen.traits.protocol = Protocol::Ascii;
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

    const FILE: fn() -> Authentication = || Authentication { auth_file: Some("users".into()) };

    #[test]
    fn a_file_of_users_means_ascii() {
        let mut s = Settings::default();
        assert_eq!(FILE().draft(&mut s, false), Ok(()));
        assert_eq!(s.protocol, Protocol::Ascii);
        assert_eq!(FILE().draft(&mut s, true), Ok(()));
        for protocol in [Protocol::Auto, Protocol::Binary] {
            s.protocol = protocol;
            let error = FILE().draft(&mut s, true).expect_err("not ascii");
            assert!(error.starts_with("-Y") && error.contains("-B"), "{error}");
        }
        let mut s = Settings::default();
        assert_eq!(Authentication { auth_file: None }.draft(&mut s, false), Ok(()));
        assert_eq!(s.protocol, Protocol::Auto);
    }

    fn listening(protocol: Protocol) -> Draft {
        let mut draft = Draft::default();
        draft.settings.auth_file = Some("users".into());
        let traits = ListenTraits { protocol, ..ListenTraits::default() };
        draft.settings.listen = vec![Listen { traits, ..Listen::default() }];
        draft
    }

    #[test]
    fn every_listener_asks() {
        for (protocol, warnings) in [(Protocol::Ascii, 0), (Protocol::Auto, 1)] {
            let mut draft = listening(protocol);
            assert_eq!(resolve(&mut draft), Ok(()));
            assert_eq!(draft.settings.warnings.len(), warnings);
            assert_eq!(draft.settings.listen[0].traits.protocol, Protocol::Ascii);
        }
        let error = resolve(&mut listening(Protocol::Binary)).expect_err("binary");
        assert!(error.starts_with("-l") && error.contains("-Y"), "{error}");
        let mut draft = listening(Protocol::Ascii);
        draft.settings.udp_port = 11211;
        let error = resolve(&mut draft).expect_err("UDP");
        assert!(error.starts_with("-Y") && error.contains("UDP"), "{error}");
        draft.settings.auth_file = None;
        assert_eq!(resolve(&mut draft), Ok(()));
    }
}
