//! `-l`: the addresses to listen on, in memcached's notation.

use super::settings::Listen;
use super::size::number;

/// memcached's limit on a listener's tag, in bytes.
const TAG_MAX: usize = 8;

/// What the entries of all `-l` add up to.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// In the order given, without repetitions.
    pub(super) addresses: Vec<Listen>,
    /// True where an entry carries a tag.
    pub(super) tagged: bool,
}

/// Reads every `-l` of a command line, each a list separated by commas or semicolons. An entry
/// without a port of its own gets `port`.
pub(super) fn listeners(lists: &[String], port: u16) -> Result<Listeners, String> {
    let mut all = Listeners::default();
    for list in lists {
        let mut entries =
            list.split([',', ';']).map(str::trim).filter(|e| !e.is_empty()).peekable();
        if entries.peek().is_none() {
            return Err(format!("-l: '{list}' names no address"));
        }
        for entry in entries {
            let rest = strip_protocol(entry)?;
            let (rest, tagged) = strip_tag(rest)?;
            let address = address(rest, port)?;
            all.tagged |= tagged;
            if !all.addresses.contains(&address) {
                all.addresses.push(address);
            }
        }
    }
    Ok(all)
}

/// Takes off `proto[name]:`. Until the binary protocol is here, `ascii` and `negotiating` are the
/// same, so nothing is left to remember of it.
fn strip_protocol(entry: &str) -> Result<&str, String> {
    for tls in ["notls", "btls", "mtls"] {
        if entry.strip_prefix(tls).is_some_and(|rest| rest.starts_with(':')) {
            return Err(format!("-l {entry}: {tls} (TLS) is not available in this release"));
        }
    }
    let Some(rest) = entry.strip_prefix("proto[") else { return Ok(entry) };
    let (name, rest) = rest
        .split_once(']')
        .ok_or_else(|| format!("-l {entry}: the ']' after the protocol is missing"))?;
    match name {
        "ascii" | "negotiating" => Ok(rest.strip_prefix(':').unwrap_or(rest)),
        "binary" | "proxy" => {
            Err(format!("-l {entry}: proto[{name}] is not available in this release"))
        }
        _ => Err(format!("-l {entry}: unknown protocol '{name}'")),
    }
}

/// Takes off `tag[name]:` or `tag_name_:`; true where there was one. Only the proxy of memcached
/// asks for a listener's tag.
fn strip_tag(entry: &str) -> Result<(&str, bool), String> {
    let (rest, end) = match (entry.strip_prefix("tag["), entry.strip_prefix("tag_")) {
        (Some(rest), _) => (rest, ']'),
        (_, Some(rest)) => (rest, '_'),
        _ => return Ok((entry, false)),
    };
    let (tag, rest) = rest
        .split_once(end)
        .ok_or_else(|| format!("-l {entry}: the '{end}' after the tag is missing"))?;
    if !(1..=TAG_MAX).contains(&tag.len()) {
        return Err(format!("-l {entry}: a tag has 1 to {TAG_MAX} characters"));
    }
    Ok((rest.strip_prefix(':').unwrap_or(rest), true))
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`, a bare v6 address, `*` or `*:port`.
fn address(entry: &str, default_port: u16) -> Result<Listen, String> {
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
    let host = if host == "*" { "" } else { host };
    Ok(Listen { host: host.to_owned(), port })
}

/// Like `-p`, -1 is ephemeral; so is 0, which here cannot mean "off".
fn listen_port(text: &str) -> Result<u16, String> {
    number(text, -1..=i32::from(u16::MAX)).map(|port| u16::try_from(port).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &str) -> Result<Vec<(String, u16)>, String> {
        let all = listeners(&[list.to_owned()], 11211)?;
        Ok(all.addresses.into_iter().map(|l| (l.host, l.port)).collect())
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
            ("proto[binary]:a", "not available in this release"),
            ("notls:127.0.0.1", "TLS"),
            ("mtls:127.0.0.1", "TLS"),
        ] {
            let error = read(list).expect_err(list);
            assert!(error.starts_with("-l") && error.contains(part), "{list}: {error}");
        }
    }

    #[test]
    fn tags_are_noticed() {
        let tagged = |list: &str| listeners(&[list.to_owned()], 1).map(|all| all.tagged);
        assert_eq!(tagged("a,tag_x_:b"), Ok(true));
        assert_eq!(tagged("a,b"), Ok(false));
    }
}
