//! `-l`: the addresses to listen on, in memcached's notation.

use super::settings::{Listen, ListenTls, ListenTraits, Protocol};
use super::size::number;

const NO_TAG: [u8; 8] = [0; 8];

/// What the entries of all `-l` add up to.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// In the order given, without repetitions.
    pub(super) addresses: Vec<Listen>,
    /// True where an entry carries a tag.
    pub(super) tagged: bool,
}

/// Reads every `-l` of a command line, each a list separated by commas or semicolons. An entry gets
/// `port` and `traits` where it names none of its own.
pub(super) fn listeners(
    lists: &[String],
    port: u16,
    traits: ListenTraits,
) -> Result<Listeners, String> {
    let mut all = Listeners::default();
    for list in lists {
        let mut entries =
            list.split([',', ';']).map(str::trim).filter(|e| !e.is_empty()).peekable();
        if entries.peek().is_none() {
            return Err(format!("-l: '{list}' names no address"));
        }
        for entry in entries {
            all.add(listen(entry, port, traits)?)?;
        }
    }
    Ok(all)
}

impl Listeners {
    fn add(&mut self, listen: Listen) -> Result<(), String> {
        let same = |other: &&Listen| (&other.host, other.port) == (&listen.host, listen.port);
        match self.addresses.iter().find(same) {
            // Each ephemeral port is another.
            Some(other) if other.traits != listen.traits && listen.port != 0 => {
                let (host, port) = (&listen.host, listen.port);
                Err(format!("-l: '{host}' port {port} is named twice, with different prefixes"))
            }
            Some(other) if other.traits == listen.traits => Ok(()),
            _ => {
                self.tagged |= listen.traits.tag != NO_TAG;
                self.addresses.push(listen);
                Ok(())
            }
        }
    }
}

impl ListenTraits {
    /// These, changed by the name of a socket that was handed over: words joined by dashes, some of
    /// which are those of `-l`'s prefixes. Any other word is the operator's own.
    pub fn named(mut self, name: &str) -> Result<ListenTraits, String> {
        for word in name.split('-') {
            let prefix = match word {
                "notls" | "btls" | "mtls" => format!("{word}:"),
                "ascii" | "binary" | "negotiating" => format!("proto[{word}]"),
                _ => continue,
            };
            take_tls(&prefix, &mut self).and_then(|rest| take_protocol(rest, &mut self))?;
        }
        Ok(self)
    }
}

/// `[tls:][proto[name]:][tag[name]:]address`
fn listen(entry: &str, port: u16, mut traits: ListenTraits) -> Result<Listen, String> {
    let rest = take_tls(entry, &mut traits)?;
    let rest = take_protocol(rest, &mut traits)?;
    let rest = take_tag(rest, &mut traits)?;
    let (host, port) = address(rest, port)?;
    Ok(Listen { host: host.to_owned(), port, traits })
}

/// Takes off `notls:`, `btls:` or `mtls:`, which need -Z.
fn take_tls<'a>(entry: &'a str, traits: &mut ListenTraits) -> Result<&'a str, String> {
    let words = [("notls", ListenTls::Off), ("btls", ListenTls::NoPeer), ("mtls", ListenTls::Peer)];
    for (word, tls) in words {
        let Some(rest) = entry.strip_prefix(word).and_then(|rest| rest.strip_prefix(':')) else {
            continue;
        };
        if traits.tls == ListenTls::Off {
            return Err(format!("-l {entry}: {word} means something only with -Z (TLS)"));
        }
        traits.tls = tls;
        return Ok(rest);
    }
    Ok(entry)
}

/// Takes off `proto[name]:`.
fn take_protocol<'a>(entry: &'a str, traits: &mut ListenTraits) -> Result<&'a str, String> {
    let Some(rest) = entry.strip_prefix("proto[") else { return Ok(entry) };
    let (name, rest) = rest
        .split_once(']')
        .ok_or_else(|| format!("-l {entry}: the ']' after the protocol is missing"))?;
    traits.protocol = match name {
        "ascii" => Protocol::Ascii,
        "negotiating" => Protocol::Auto,
        "binary" => Protocol::Binary,
        "proxy" => {
            return Err(format!("-l {entry}: proto[proxy] is not available in this release"));
        }
        _ => return Err(format!("-l {entry}: unknown protocol '{name}'")),
    };
    Ok(rest.strip_prefix(':').unwrap_or(rest))
}

/// Takes off `tag[name]:` or `tag_name_:`. Only the proxy of memcached asks for a listener's tag.
fn take_tag<'a>(entry: &'a str, traits: &mut ListenTraits) -> Result<&'a str, String> {
    let (rest, end) = match (entry.strip_prefix("tag["), entry.strip_prefix("tag_")) {
        (Some(rest), _) => (rest, ']'),
        (_, Some(rest)) => (rest, '_'),
        _ => return Ok(entry),
    };
    let (tag, rest) = rest
        .split_once(end)
        .ok_or_else(|| format!("-l {entry}: the '{end}' after the tag is missing"))?;
    if !(1..=traits.tag.len()).contains(&tag.len()) {
        return Err(format!("-l {entry}: a tag has 1 to {} characters", traits.tag.len()));
    }
    traits.tag = NO_TAG;
    traits.tag[..tag.len()].copy_from_slice(tag.as_bytes());
    Ok(rest.strip_prefix(':').unwrap_or(rest))
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`, a bare v6 address, `*` or `*:port`.
fn address(entry: &str, default_port: u16) -> Result<(&str, u16), String> {
    let (host, port) = match entry.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest
                .split_once(']')
                .ok_or_else(|| format!("-l {entry}: the ']' after the address is missing"))?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(format!("-l {entry}: what follows ']' must be ':port'")),
            }
        }
        None => match entry.split_once(':') {
            // More than one colon without brackets: an IPv6 address without a port.
            Some((_, rest)) if rest.contains(':') => (entry, None),
            Some((host, port)) => (host, Some(port)),
            None => (entry, None),
        },
    };
    let port = match port {
        Some(text) => listen_port(text).map_err(|e| format!("-l {entry}: the port {e}"))?,
        None => default_port,
    };
    Ok((if host == "*" { "" } else { host }, port))
}

/// Like `-p`, -1 is ephemeral; so is 0, which here cannot mean "off".
fn listen_port(text: &str) -> Result<u16, String> {
    number(text, -1..=i32::from(u16::MAX)).map(|port| u16::try_from(port).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(list: &str) -> Result<Listeners, String> {
        listeners(&[list.to_owned()], 11211, ListenTraits::default())
    }

    fn read(list: &str) -> Result<Vec<(String, u16)>, String> {
        let all = all(list)?;
        Ok(all.addresses.into_iter().map(|l| (l.host, l.port)).collect())
    }

    #[test]
    fn a_sockets_name_may_say_what_it_serves() {
        let base = ListenTraits::default();
        assert_eq!(base.named("cache"), Ok(base));
        assert_eq!(base.named("my-asciis"), Ok(base));
        let ascii = ListenTraits { protocol: Protocol::Ascii, ..base };
        assert_eq!(base.named("cache-ascii"), Ok(ascii));
        assert_eq!(ascii.named("negotiating"), Ok(base));
        let tls = ListenTraits { tls: ListenTls::Default, ..base };
        assert_eq!(tls.named("notls"), Ok(base));
        let peer = ListenTraits { tls: ListenTls::Peer, ..ascii };
        assert_eq!(tls.named("mtls-ascii"), Ok(peer));
        assert!(base.named("mtls").is_err_and(|e| e.contains("-Z")));
    }

    #[test]
    fn every_notation_of_an_address() {
        for (list, expect) in [
            ("127.0.0.1", vec![("127.0.0.1", 11211)]),
            ("127.0.0.1:11300", vec![("127.0.0.1", 11300)]),
            ("localhost", vec![("localhost", 11211)]),
            ("::1", vec![("::1", 11211)]),
            ("[::1]", vec![("::1", 11211)]),
            ("[::1]:11300", vec![("::1", 11300)]),
            ("*", vec![("", 11211)]),
            ("*:11300", vec![("", 11300)]),
            (":11300", vec![("", 11300)]),
            ("a:1,b:2;c", vec![("a", 1), ("b", 2), ("c", 11211)]),
            ("a,a:11211,", vec![("a", 11211)]),
            ("a:0,a:-1", vec![("a", 0)]),
            ("tag_b_:127.0.0.1:12052", vec![("127.0.0.1", 12052)]),
            ("tag[services]:::1", vec![("::1", 11211)]),
            ("proto[ascii]:tag_tools_:127.0.0.1:11212", vec![("127.0.0.1", 11212)]),
            ("proto[negotiating]:[::1]:5", vec![("::1", 5)]),
            ("proto[binary]:tag[services]:127.0.0.1:11211", vec![("127.0.0.1", 11211)]),
            (
                "protocol.example,tagged.example",
                vec![("protocol.example", 11211), ("tagged.example", 11211)],
            ),
        ] {
            let expect: Vec<_> = expect.into_iter().map(|(h, p)| (h.to_owned(), p)).collect();
            assert_eq!(read(list), Ok(expect), "{list}");
        }
    }

    #[test]
    fn bad_addresses_are_named() {
        for (list, part) in [
            ("", "names no address"),
            (",;", "names no address"),
            ("a:x", "the port must be a number"),
            ("a:65536", "the port must be a number"),
            ("a:", "the port must be a number"),
            ("[::1", "']' after the address"),
            ("[::1]11211", "must be ':port'"),
            ("tag_abc", "'_' after the tag"),
            ("tag[abc", "']' after the tag"),
            ("tag__:a", "1 to 8 characters"),
            ("tag[ninechars]:a", "1 to 8 characters"),
            ("proto[ascii", "']' after the protocol"),
            ("proto[http]:a", "unknown protocol"),
            ("proto[proxy]:a", "not available in this release"),
            ("notls:127.0.0.1", "only with -Z"),
            ("btls:127.0.0.1", "only with -Z"),
            ("mtls:127.0.0.1", "only with -Z"),
            ("a:1,proto[ascii]:a:1", "named twice"),
        ] {
            let error = read(list).expect_err(list);
            assert!(error.starts_with("-l") && error.contains(part), "{list}: {error}");
        }
    }

    #[test]
    fn tags_are_noticed() {
        let tagged = |list: &str| all(list).map(|all| all.tagged);
        assert_eq!(tagged("a,tag_x_:b"), Ok(true));
        assert_eq!(tagged("a,b"), Ok(false));
    }

    #[test]
    fn prefixes_are_the_traits_of_their_entry_alone() {
        let given = ListenTraits { tls: ListenTls::Default, ..ListenTraits::default() };
        let list = "mtls:proto[ascii]:tag[tools]:a,b,btls:c,notls:tag_eightchr_:d:1,e:0,notls:e:0";
        let all = listeners(&[list.to_owned()], 11211, given).expect("a list");
        let traits: Vec<_> = all.addresses.iter().map(|listen| listen.traits).collect();
        let tls = |tls| ListenTraits { tls, ..given };
        let mtls = ListenTraits {
            protocol: Protocol::Ascii,
            tag: *b"tools\0\0\0",
            ..tls(ListenTls::Peer)
        };
        let plain = ListenTraits { tag: *b"eightchr", ..tls(ListenTls::Off) };
        let (basic, off) = (tls(ListenTls::NoPeer), tls(ListenTls::Off));
        assert_eq!(traits, [mtls, given, basic, plain, given, off]);
    }
}
