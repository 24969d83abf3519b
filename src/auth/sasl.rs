//! SASL: the exchanges by which a client of -S proves who it is. The mechanisms are rsasl's; the
//! users and their passwords are those of the file.

use super::passwords::Passwords;
use log::info;
use parking_lot::Mutex;
use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::config::SASLConfig;
use rsasl::mechanisms::plain::PLAIN;
use rsasl::mechanisms::scram::properties::ScramStoredPassword;
use rsasl::mechanisms::scram::{SCRAM_SHA256, tools};
use rsasl::mechname::Mechname;
use rsasl::prelude::{Mechanism, Registry, SASLServer, Session, SessionError, State, Validation};
use rsasl::property::{AuthId, AuthzId, Password};
use rsasl::validate::{Validate, ValidationError};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// What is offered. With PLAIN a password crosses the network as it is.
static MECHANISMS: &[Mechanism] = &[SCRAM_SHA256, PLAIN];
const MECHANISM_NAMES: &str = "SCRAM-SHA-256 PLAIN";
/// Rounds of SCRAM's key derivation: RFC 7677 asks for at least so many.
const ITERATIONS: u32 = 4096;
/// Keys that are kept; beyond that all are dropped.
const KEYS_MAX: usize = 10_000;
const SALT_LEN: usize = 16;
type Hash = [u8; 32];

/// What every exchange of a server shares.
pub struct Sasl {
    config: Arc<SASLConfig>,
}

/// What an exchange came to by one message of the client.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The client is who it says it is.
    Proven,
    /// It has to answer this.
    Challenge(Vec<u8>),
    Failed,
}

/// One attempt of one client.
pub struct Exchange {
    session: Session<Proof>,
    scram: bool,
    stage: Stage,
}

/// What an exchange waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The client's first message, which may still come by a step of its own.
    First,
    /// The same, which has to come now.
    FirstStep,
    Next,
    /// A word that the client has seen the server's proof: its own was right.
    Seen,
    /// Nothing.
    Over,
}

/// That the client has proven who it is: set by [`Judge`], and by nothing else.
struct Proof;

impl Validation for Proof {
    type Value = ();
}

impl Sasl {
    /// A server whose users are in the file at `path`, of the realm `host`.
    pub fn open(path: PathBuf, host: Vec<u8>) -> Result<Sasl, String> {
        let mut secret = Hash::default();
        getrandom::fill(&mut secret).map_err(|e| format!("-S: no random numbers: {e}"))?;
        let passwords = Passwords::open(path, host);
        let judge = Judge { passwords, secret, keys: Mutex::default() };
        let config = SASLConfig::builder()
            .with_registry(Registry::with_mechanisms(MECHANISMS))
            .with_callback(judge)
            .map_err(|e| format!("-S: cannot initialize SASL: {e}"))?;
        Ok(Sasl { config })
    }

    /// The names of all mechanisms, separated by blanks.
    pub fn mechanisms(&self) -> &'static str {
        MECHANISM_NAMES
    }

    /// Starts an exchange; `None` where there is no such mechanism. Their names may be in any case.
    pub fn start(&self, mechanism: &[u8]) -> Option<Exchange> {
        let name = mechanism.to_ascii_uppercase();
        let server = SASLServer::<Proof>::new(self.config.clone());
        let session = server.start_suggested(Mechname::parse(&name).ok()?).ok()?;
        let scram = session.get_mechname() == SCRAM_SHA256.mechanism;
        Some(Exchange { session, scram, stage: Stage::First })
    }
}

impl Exchange {
    /// Takes one message of the client.
    pub fn step(&mut self, message: &[u8]) -> Step {
        let (step, stage) = match (self.stage, message) {
            (Stage::First, []) => (Step::Challenge(Vec::new()), Stage::FirstStep),
            (Stage::Seen, []) => (Step::Proven, Stage::Over),
            (Stage::Over | Stage::Seen, _) | (_, []) => (Step::Failed, Stage::Over),
            _ if !self.is_readable(message) => (Step::Failed, Stage::Over),
            _ => self.take(message),
        };
        self.stage = stage;
        step
    }

    fn take(&mut self, message: &[u8]) -> (Step, Stage) {
        let mut answer = Vec::new();
        match self.session.step(Some(message), &mut answer) {
            Ok(State::Running) => (Step::Challenge(answer), Stage::Next),
            // The end of an exchange alone proves nothing: a wrong proof ends it as well.
            Ok(State::Finished(_)) if self.session.validation().is_none() => {
                (Step::Failed, Stage::Over)
            }
            Ok(State::Finished(_)) if answer.is_empty() => (Step::Proven, Stage::Over),
            Ok(State::Finished(_)) => (Step::Challenge(answer), Stage::Seen),
            Err(e) => {
                info!("-S: an exchange failed: {e}");
                (Step::Failed, Stage::Over)
            }
        }
    }

    /// SCRAM's messages are attributes of a letter, an equals sign and a value. rsasl takes the
    /// first two bytes of each for granted, but for the flag of the first message, and panics
    /// where they are missing; the name behind the flag may be left out.
    fn is_readable(&self, message: &[u8]) -> bool {
        if !self.scram {
            return true;
        }
        let mut attributes = message.split(|&byte| byte == b',');
        if matches!(self.stage, Stage::First | Stage::FirstStep) {
            attributes.next();
            if attributes.next().is_some_and(|name| name.len() == 1) {
                return false;
            }
        }
        attributes.all(|attribute| attribute.len() >= 2)
    }
}

/// Knows the users.
struct Judge {
    passwords: Passwords,
    /// Makes salts, and the keys of users who do not exist.
    secret: Hash,
    /// SCRAM's keys by user and password, since deriving them is made to be slow.
    keys: Mutex<HashMap<(String, Vec<u8>), Keys>>,
}

#[derive(Clone, Copy)]
struct Keys {
    stored: Hash,
    server: Hash,
}

impl Judge {
    /// The same for a user at each attempt, whether there is such a user or not.
    fn salt(&self, name: &str) -> [u8; SALT_LEN] {
        let hash: Hash =
            Sha256::new().chain_update(self.secret).chain_update(name).finalize().into();
        std::array::from_fn(|i| hash[i])
    }

    /// SCRAM's keys of a user; those of one who does not exist fit no password.
    fn keys(&self, name: &str, salt: &[u8]) -> Keys {
        let users = self.passwords.users();
        let Some(password) = self.passwords.of(&users, name.as_bytes()).first() else {
            let none = |what: &str| {
                let hash = Sha256::new().chain_update(self.secret).chain_update(what);
                hash.chain_update(name).finalize().into()
            };
            return Keys { stored: none("stored:"), server: none("server:") };
        };
        let user = (name.to_owned(), password.clone());
        if let Some(keys) = self.keys.lock().get(&user) {
            return *keys;
        }
        let derived = derive(password, salt);
        let mut keys = self.keys.lock();
        if keys.len() >= KEYS_MAX {
            keys.clear();
        }
        keys.insert(user, derived);
        derived
    }
}

fn derive(password: &[u8], salt: &[u8]) -> Keys {
    let mut salted = Hash::default().into();
    tools::hash_password::<Sha256>(password, ITERATIONS, salt, &mut salted);
    let (client, server) = tools::derive_keys::<Sha256>(&salted);
    Keys { stored: Sha256::digest(client).into(), server: server.into() }
}

/// RFC 5802 has commas and equals signs of names sent in another form.
fn unescape(name: &str) -> String {
    name.replace("=2C", ",").replace("=3D", "=")
}

impl SessionCallback for Judge {
    fn callback(
        &self,
        _: &SessionData,
        context: &Context<'_>,
        request: &mut Request<'_>,
    ) -> Result<(), SessionError> {
        if let Some(name) = context.get_ref::<AuthId>() {
            let name = unescape(name);
            let salt = self.salt(&name);
            let Keys { stored, server } = self.keys(&name, &salt);
            let password = ScramStoredPassword::new(ITERATIONS, &salt, &stored, &server);
            request.satisfy::<ScramStoredPassword<'_>>(&password)?;
        }
        Ok(())
    }

    /// SCRAM asks this only when the proof was right; of PLAIN the password is in the context.
    fn validate(
        &self,
        session: &SessionData,
        context: &Context<'_>,
        validate: &mut Validate<'_>,
    ) -> Result<(), ValidationError> {
        let Some(name) = context.get_ref::<AuthId>() else { return Ok(()) };
        // Nobody may act in another's name.
        let himself = |other: &str| other.is_empty() || other == name;
        let proven = match context.get_ref::<Password>() {
            Some(password) => self.passwords.check(name.as_bytes(), password),
            None => session.mechanism().mechanism == SCRAM_SHA256.mechanism,
        };
        if proven && context.get_ref::<AuthzId>().is_none_or(himself) {
            validate.finalize::<Proof>(());
        } else {
            info!("-S: user {name:?} failed to authenticate");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rsasl::prelude::SASLClient;
    use std::fs;

    fn with_users<T>(name: &str, test: impl FnOnce(&Sasl) -> T) -> T {
        let path = std::env::temp_dir().join(format!("rc-sasl-{name}-{}", std::process::id()));
        fs::write(&path, "jane:pencil\nfull@host:secret\nodd,=name:x\n").unwrap();
        let result = test(&Sasl::open(path.clone(), b"host".to_vec()).unwrap());
        fs::remove_file(&path).unwrap();
        result
    }

    /// What the exchange of rsasl's client with our server comes to.
    fn log_in(sasl: &Sasl, mechanism: &str, name: &str, password: &str) -> Step {
        let credentials =
            SASLConfig::with_credentials(None, name.to_owned(), password.to_owned()).unwrap();
        let name = Mechname::parse(mechanism.as_bytes()).unwrap();
        let mut client = SASLClient::new(credentials).start_suggested(&[name]).unwrap();
        let mut exchange = sasl.start(mechanism.as_bytes()).expect("a mechanism");
        let mut message = Vec::new();
        client.step(None, &mut message).unwrap();
        loop {
            match exchange.step(&message) {
                Step::Challenge(challenge) => {
                    message.clear();
                    client.step(Some(&challenge), &mut message).expect("a server that is right");
                }
                end => return end,
            }
        }
    }

    #[test]
    fn users_prove_who_they_are_by_every_mechanism() {
        with_users("all", |sasl| {
            for mechanism in sasl.mechanisms().split(' ') {
                let log_in = |name, password| log_in(sasl, mechanism, name, password);
                for _ in 0..2 {
                    assert_eq!(log_in("jane", "pencil"), Step::Proven, "{mechanism}");
                    assert_eq!(log_in("full", "secret"), Step::Proven, "{mechanism}");
                    assert_eq!(log_in("full@host", "secret"), Step::Proven, "{mechanism}");
                    assert_eq!(log_in("jane", "pencil "), Step::Failed, "{mechanism}");
                    assert_eq!(log_in("joan", "pencil"), Step::Failed, "{mechanism}");
                }
            }
            assert!(sasl.start(b"plain").is_some());
            for unknown in [&b"CRAM-MD5"[..], b"", b"SCRAM-SHA-256-PLUS", b"\xff", &[b'X'; 40]] {
                assert!(sasl.start(unknown).is_none(), "{}", unknown.escape_ascii());
            }
        });
    }

    #[test]
    fn plain_is_read_as_memcached_reads_it() {
        with_users("plain", |sasl| {
            for (message, step) in [
                (&b"\0jane\0pencil"[..], Step::Proven),
                (b"jane\0jane\0pencil", Step::Proven),
                (b"other\0jane\0pencil", Step::Failed),
                (b"\0jane\0", Step::Failed),
                (b"\0jane\0pencil\0", Step::Failed),
                (b"\0\0\0\0\0", Step::Failed),
                (b"jane", Step::Failed),
                (b"\0jane\xff\0pencil", Step::Failed),
            ] {
                let mut exchange = sasl.start(b"PLAIN").unwrap();
                assert_eq!(exchange.step(message), step, "{}", message.escape_ascii());
            }
            let mut exchange = sasl.start(b"PLAIN").unwrap();
            assert_eq!(exchange.step(b""), Step::Challenge(Vec::new()));
            assert_eq!(exchange.step(b"\0jane\0pencil"), Step::Proven);
            let mut exchange = sasl.start(b"PLAIN").unwrap();
            assert_eq!(exchange.step(b""), Step::Challenge(Vec::new()));
            assert_eq!(exchange.step(b""), Step::Failed);
        });
    }

    #[test]
    fn a_stranger_is_challenged_like_a_user() {
        with_users("stranger", |sasl| {
            let salt = |name: &str| {
                let mut exchange = sasl.start(b"SCRAM-SHA-256").unwrap();
                let Step::Challenge(challenge) =
                    exchange.step(format!("n,,n={name},r=abc").as_bytes())
                else {
                    panic!("{name} is not challenged");
                };
                let text = String::from_utf8(challenge).unwrap();
                text.split_once(",s=").unwrap().1.to_owned()
            };
            assert_eq!(salt("jane"), salt("jane"));
            assert_eq!(salt("nobody"), salt("nobody"));
            assert_eq!(salt("jane").len(), salt("nobody").len());
            assert_eq!(unescape("odd=2C=3Dname"), "odd,=name");
        });
    }

    proptest::proptest! {
        #[test]
        fn no_made_up_messages_prove_anything(
            messages in proptest::collection::vec(proptest::collection::vec(0u8.., 0..60), 1..4),
            scram: bool,
        ) {
            let judge = Sasl::open("/nonexistent/users".into(), Vec::new()).unwrap();
            let mechanism = if scram { &b"SCRAM-SHA-256"[..] } else { b"PLAIN" };
            let mut exchange = judge.start(mechanism).unwrap();
            for message in messages {
                let step = exchange.step(&message);
                proptest::prop_assert_ne!(&step, &Step::Proven);
                if step == Step::Failed {
                    break;
                }
            }
        }

        #[test]
        fn scram_takes_any_words(
            name in "[ -~]{0,20}",
            first in "[nyp],(a=[a-z]*)?,n=[ -~]{0,20},r=[ -~]{0,20}",
            last in "(c=[ -~]{0,20}|c=biws|),r=[ -~]{0,40},(x=y,)?p=[A-Za-z0-9+/=]{0,60}(,.?)?",
            known: bool,
        ) {
            let judge = Sasl::open("/nonexistent/users".into(), name.into_bytes()).unwrap();
            let mut exchange = judge.start(b"SCRAM-SHA-256").unwrap();
            if let Step::Challenge(challenge) = exchange.step(first.as_bytes()) {
                let challenge = String::from_utf8(challenge).unwrap();
                let nonce = challenge.split(',').next().unwrap();
                let last = if known { last.replacen("r=", nonce, 1) } else { last };
                proptest::prop_assert_eq!(exchange.step(last.as_bytes()), Step::Failed);
                proptest::prop_assert_eq!(exchange.step(last.as_bytes()), Step::Failed);
            }
        }
    }
}
