//! `-o ssl_ciphers`: OpenSSL's notation for a choice among the suites of TLS 1.2.
//!
//! rustls has six of them, all with ECDHE and authenticated encryption, so that most words for weak
//! ones choose or exclude nothing. Those of TLS 1.3 are always on, as in memcached.

use log::warn;
use rustls::SupportedCipherSuite;

/// Words that all suites answer to.
const GENERAL: [&str; 10] =
    ["ALL", "DEFAULT", "HIGH", "ECDH", "ECDHE", "EECDH", "kECDHE", "kEECDH", "TLSv1.2", "AEAD"];

/// The suites among `all` that a list allows. Words that choose nothing are warned of; a list that
/// leaves none is an error.
pub(super) fn chosen(
    list: &str,
    all: &[SupportedCipherSuite],
) -> Result<Vec<SupportedCipherSuite>, String> {
    let mut chosen: Vec<SupportedCipherSuite> = Vec::new();
    let mut killed: Vec<SupportedCipherSuite> = Vec::new();
    for word in list.split([':', ' ']).filter(|word| !word.is_empty()) {
        let (sign, name) = match word.split_at_checked(1) {
            Some((sign @ ("!" | "-" | "+" | "@"), name)) => (sign, name),
            _ => ("", word),
        };
        let found = || all.iter().filter(|suite| answers_to(suite, name)).copied();
        match sign {
            "!" => {
                killed.extend(found());
                chosen.retain(|suite| !killed.contains(suite));
            }
            "-" => chosen.retain(|suite| !answers_to(suite, name)),
            // Words of order: rustls keeps its own.
            "+" | "@" => {}
            _ => {
                let before = chosen.len();
                let fresh: Vec<_> = found().filter(|suite| !killed.contains(suite)).collect();
                if fresh.is_empty() {
                    warn!("-o ssl_ciphers: '{name}' names no cipher of TLS 1.2 that there is");
                }
                chosen.extend(fresh);
                dedup(&mut chosen, before);
            }
        }
    }
    if chosen.is_empty() {
        return Err(format!("-o ssl_ciphers: '{list}' leaves no cipher of TLS 1.2 that there is"));
    }
    let kept = |suite: &&SupportedCipherSuite| suite.tls13().is_some() || chosen.contains(suite);
    Ok(all.iter().filter(kept).copied().collect())
}

/// Drops from `suites[from..]` what comes before `from` already.
fn dedup(suites: &mut Vec<SupportedCipherSuite>, from: usize) {
    let fresh = suites.split_off(from);
    for suite in fresh {
        if !suites.contains(&suite) {
            suites.push(suite);
        }
    }
}

/// True for a suite of TLS 1.2 by its name in either notation, or by words joined by `+` that all
/// are true of it.
fn answers_to(suite: &SupportedCipherSuite, words: &str) -> bool {
    let Some(iana) = suite.suite().as_str().filter(|_| suite.tls13().is_none()) else {
        return false;
    };
    let openssl = openssl_name(iana);
    words == iana || words == openssl || words.split('+').all(|word| is_one(&openssl, word))
}

fn is_one(openssl: &str, word: &str) -> bool {
    let parts: Vec<&str> = openssl.split('-').collect();
    let has = |part: &str| parts.contains(&part);
    match word {
        "aRSA" => has("RSA"),
        "aECDSA" => has("ECDSA"),
        "AES" => !has("CHACHA20"),
        "AESGCM" => has("GCM"),
        "CHACHA20" | "RSA" | "ECDSA" | "AES128" | "AES256" | "SHA256" | "SHA384" => has(word),
        _ => GENERAL.contains(&word),
    }
}

/// `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256` is `ECDHE-RSA-AES128-GCM-SHA256`, and
/// `TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256` is `ECDHE-RSA-CHACHA20-POLY1305`.
fn openssl_name(iana: &str) -> String {
    let name = iana.strip_prefix("TLS_").unwrap_or(iana).replace("_WITH_", "_");
    let name = name.replace("AES_", "AES").replace("POLY1305_SHA256", "POLY1305");
    name.replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::ring::ALL_CIPHER_SUITES;

    /// The OpenSSL names of the suites of TLS 1.2 that a list leaves.
    fn names(list: &str) -> Vec<String> {
        let chosen = chosen(list, ALL_CIPHER_SUITES).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(chosen.iter().filter(|s| s.tls13().is_some()).count(), 3, "{list}");
        let old = chosen.iter().filter(|suite| suite.tls13().is_none());
        old.filter_map(|suite| suite.suite().as_str().map(openssl_name)).collect()
    }

    #[test]
    fn suites_by_either_name_and_by_words() {
        for (list, expect) in [
            ("ECDHE-RSA-AES128-GCM-SHA256", &["ECDHE-RSA-AES128-GCM-SHA256"][..]),
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", &["ECDHE-RSA-AES128-GCM-SHA256"]),
            ("ECDHE-ECDSA-CHACHA20-POLY1305", &["ECDHE-ECDSA-CHACHA20-POLY1305"]),
            ("RC4-SHA:ECDHE-RSA-AES256-GCM-SHA384", &["ECDHE-RSA-AES256-GCM-SHA384"]),
            ("ECDHE+AESGCM+aRSA", &["ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"]),
            ("HIGH:!AES:-ECDSA", &["ECDHE-RSA-CHACHA20-POLY1305"]),
            ("!CHACHA20:ALL:!ECDSA:!AES256", &["ECDHE-RSA-AES128-GCM-SHA256"]),
        ] {
            assert_eq!(names(list), expect, "{list}");
        }
        assert_eq!(names("DEFAULT:!aNULL:!eNULL:@STRENGTH").len(), 6);
        assert_eq!(names("HIGH:HIGH").len(), 6);
    }

    #[test]
    fn a_list_that_leaves_nothing_is_refused() {
        for list in ["", ":", "RC4-SHA", "AES128-SHA:MD5", "HIGH:!ALL", "TLS_AES_128_GCM_SHA256"] {
            let error = chosen(list, ALL_CIPHER_SUITES).expect_err(list);
            assert!(error.contains("leaves no cipher"), "{list}: {error}");
        }
    }
}
