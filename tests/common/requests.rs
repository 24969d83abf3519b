//! Requests drawn at random: every command of the text and meta protocols, right and wrong.

use crate::common::Random;

/// A piece of a request; CAS uniques are numbers that each server counts its own way.
pub enum Part {
    Bytes(Vec<u8>),
    /// The unix time on the server's clock, and so many seconds.
    Moment(i64),
    /// The unique last seen for a key, or that less 1.
    Cas {
        key: String,
        less: u64,
    },
}

/// One request with its value.
#[derive(Default)]
pub struct Request {
    pub parts: Vec<Part>,
    /// The key whose unique the reply tells, for replies that do not name it.
    pub key: String,
    /// Not in a batch with others: changes a number in place, which memcached does only while no
    /// unsent reply holds it; or others have to follow at once.
    pub alone: bool,
    /// The server hangs up.
    pub closes: bool,
    /// No request, but so many seconds that go by.
    pub advance: Option<u64>,
}

/// Stands in a line for a unix time: the server's, and as many seconds as the digit behind it, less
/// [`MOMENT_ZERO`].
const MOMENT: char = '@';
const MOMENT_ZERO: i64 = 3;

/// What requests are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Each is a datagram of its own.
    Datagrams,
    /// The servers' clocks are moved between them.
    Timed,
}

impl Request {
    fn text(text: impl AsRef<[u8]>) -> Request {
        let mut request = Request::default();
        request.push(text);
        request
    }

    fn line(line: &str) -> Request {
        let mut request = Request::default();
        request.push_line(line);
        request
    }

    fn push(&mut self, text: impl AsRef<[u8]>) {
        self.parts.push(Part::Bytes(text.as_ref().to_vec()));
    }

    /// A piece of a line, in which there may be moments.
    fn push_line(&mut self, line: &str) {
        let mut pieces = line.split(MOMENT);
        self.push(pieces.next().unwrap_or_default());
        for piece in pieces {
            let (digit, rest) = piece.split_at(1);
            let after: i64 = digit.parse().expect("a digit behind a moment");
            self.parts.push(Part::Moment(after - MOMENT_ZERO));
            self.push(rest);
        }
    }

    fn push_cas(&mut self, random: &mut Random) {
        let less = u64::from(random.once_in(4));
        self.parts.push(Part::Cas { key: self.key.clone(), less });
    }
}

/// What to draw from.
pub struct Generator {
    pub random: Random,
    /// False for an older memcached: nothing wrong, no flushes, only the flags it knows.
    pub full: bool,
    pub kind: Kind,
    /// Seconds that went by, and when a flush is due.
    now: u64,
    flush_at: Option<u64>,
    /// A flush came: what it left lying comes back with the next one that is for later, unless
    /// somebody asks for it before.
    flushed: bool,
    put_back: Option<Request>,
}

const PLAIN_KEYS: usize = 200;
/// Keys whose uniques clients choose; such a unique may be above those that the server counts, so
/// they stay out of the comparisons by order.
const CHOSEN_KEYS: usize = 20;
/// Keys in base64.
const BINARY_KEYS: [&str; 4] = ["AAECAwQF", "/w==", "Zm9vIGJhcg==", "DQoNCg=="];

impl Generator {
    pub fn new(random: Random, full: bool, kind: Kind) -> Generator {
        Generator { random, full, kind, now: 0, flush_at: None, flushed: false, put_back: None }
    }

    /// Gives `request` out again, next.
    pub fn put_back(&mut self, request: Request) {
        self.put_back = Some(request);
    }

    pub fn next(&mut self) -> Request {
        if let Some(request) = self.put_back.take() {
            return request;
        }
        if std::mem::take(&mut self.flushed) && self.kind != Kind::Datagrams {
            return self.sweep();
        }
        if self.kind == Kind::Timed && self.random.once_in(40) {
            return self.step();
        }
        match self.random.below(100) {
            0..18 => self.storage(),
            18..34 => self.retrieval(),
            34..40 => self.arithmetic(),
            40..45 => self.delete_or_touch(),
            45..61 => self.meta_get(),
            61..75 => self.meta_set(),
            75..80 => self.meta_delete(),
            80..86 => self.meta_arithmetic(),
            86..96 if self.full => self.wrong(),
            _ => self.rare(),
        }
    }

    /// Some seconds go by.
    fn step(&mut self) -> Request {
        const STEPS: [u64; 8] = [1, 1, 1, 2, 3, 5, 61, 100_000];
        let mut seconds = *self.random.pick(&STEPS);
        // memcached flushes a second early, and what is stored in that second, too.
        if self.flush_at == Some(self.now + seconds + 1) {
            seconds += 1;
        }
        self.now += seconds;
        if self.flush_at.is_some_and(|at| at <= self.now) {
            (self.flush_at, self.flushed) = (None, true);
        }
        Request { advance: Some(seconds), ..Request::default() }
    }

    /// Now or later; only two seconds ahead and more is later for memcached.
    fn flush(&mut self) -> Request {
        const LATER: [u64; 4] = [2, 3, 60, 100_000];
        let later = *self.random.pick(&LATER);
        let line = match self.random.below(3) {
            0 => "flush_all".into(),
            1 => "flush_all 0 noreply".into(),
            _ if self.kind == Kind::Datagrams => "flush_all".into(),
            _ if self.kind == Kind::Timed => format!("flush_all {later}"),
            _ => "flush_all 100000".into(),
        };
        let is_later = !line.ends_with("all") && !line.ends_with("noreply");
        self.flush_at = is_later.then_some(self.now + later);
        self.flushed = !is_later;
        Request { alone: true, ..Request::text(line + "\r\n") }
    }

    /// Asks for every key.
    fn sweep(&mut self) -> Request {
        let plain = (0..PLAIN_KEYS).map(|n| format!("key{n}"));
        let chosen = (0..CHOSEN_KEYS).map(|n| format!("chosen{n}"));
        let keys = plain.chain(chosen).chain(["k".repeat(250)]);
        let mut lines: Vec<String> = keys.map(|key| format!("get {key}\r\n")).collect();
        lines.extend(BINARY_KEYS.map(|key| format!("mg {key} b\r\n")));
        Request { alone: true, ..Request::text(lines.concat()) }
    }

    fn key(&mut self) -> String {
        if self.full && self.random.once_in(50) { "k".repeat(251) } else { self.short_key() }
    }

    fn short_key(&mut self) -> String {
        match self.random.below(40) {
            0 => "k".repeat(250),
            2..6 => format!("chosen{}", self.random.below(CHOSEN_KEYS)),
            _ => format!("key{}", self.random.below(PLAIN_KEYS)),
        }
    }

    /// Bits that numbers do without: an older memcached looks for a minus sign from 2^63 on.
    fn short(&self) -> u32 {
        if self.full { 0 } else { 8 }
    }

    fn value(&mut self) -> Vec<u8> {
        let short = self.short();
        let random = &mut self.random;
        match random.below(6) {
            0 | 1 => random.below(1000).to_string().into_bytes(),
            2 => (random.next() >> short).to_string().into_bytes(),
            3 => format!("{}  ", random.below(100)).into_bytes(),
            // In numbers from 2^63 on memcached looks for a minus sign, beyond their end too.
            4 => {
                let bytes = (0..random.below(3000)).map(|_| random.below(256) as u8 & !0x40);
                bytes.filter(|byte| *byte != b'-').collect()
            }
            _ => vec![b'a' + random.below(26) as u8; random.below(100)],
        }
    }

    fn exptime(&mut self) -> &'static str {
        const TIMES: [&str; 8] = ["0", "0", "0", "0", "-1", "100000", "2000000000", "2592001"];
        const SOON: [&str; 8] = ["1", "2", "3", "7", "60", "@2", "@4", "@9"];
        let soon = self.kind == Kind::Timed && self.random.once_in(2);
        self.random.pick::<&str>(if soon { &SOON } else { &TIMES })
    }

    /// Flags with times that come soon, where time goes by.
    fn soon(&mut self, flags: &mut Vec<&'static str>, more: &[&'static str]) {
        if self.kind == Kind::Timed {
            flags.extend(more.iter().filter(|_| self.random.once_in(2)));
        }
    }

    fn noreply(&mut self) -> &'static str {
        if self.random.once_in(6) { " noreply" } else { "" }
    }

    fn storage(&mut self) -> Request {
        const VERBS: [&str; 8] =
            ["set", "set", "set", "add", "replace", "append", "prepend", "cas"];
        let verb = *self.random.pick(&VERBS);
        let mut value = self.value();
        let mut request = Request { key: self.key(), ..Request::default() };
        let flags = if self.random.once_in(2) { 0 } else { self.random.next() as u32 };
        let (exptime, len) = (self.exptime(), value.len());
        request.push_line(&format!("{verb} {} {flags} {exptime} {len}", request.key));
        if verb == "cas" {
            request.push(" ");
            request.push_cas(&mut self.random);
        }
        request.push(self.noreply());
        value.extend_from_slice(b"\r\n");
        request.push("\r\n");
        request.push(value);
        request
    }

    fn retrieval(&mut self) -> Request {
        const VERBS: [&str; 6] = ["get", "get", "gets", "gets", "gat", "gats"];
        let verb = *self.random.pick(&VERBS);
        let mut line = verb.to_owned();
        if verb.starts_with("gat") {
            line = format!("{verb} {}", self.exptime());
        }
        let more = if self.kind == Kind::Datagrams { 0 } else { self.random.below(4) };
        for _ in 0..=more {
            let blanks = if self.random.once_in(10) { "  " } else { " " };
            // A long key among several makes memcached drop replies and send an empty line.
            line = line + blanks + &self.short_key();
        }
        Request::line(&(line + if self.random.once_in(10) { "\n" } else { "\r\n" }))
    }

    fn arithmetic(&mut self) -> Request {
        let verb = *self.random.pick(&["incr", "decr"]);
        let short = self.short();
        let delta = if self.random.once_in(4) { self.random.next() >> short } else { 7 };
        let key = self.key();
        let line = format!("{verb} {key} {delta}{}\r\n", self.noreply());
        Request { alone: true, key, ..Request::text(line) }
    }

    fn delete_or_touch(&mut self) -> Request {
        let (key, exptime, noreply) = (self.key(), self.exptime(), self.noreply());
        let line = match self.random.below(2) {
            0 => format!("delete {key}{noreply}\r\n"),
            _ => format!("touch {key} {exptime}{noreply}\r\n"),
        };
        Request { key, ..Request::line(&line) }
    }

    /// A key for a meta command and the `b` that says it is base64.
    fn meta_key(&mut self) -> (String, &'static str) {
        if self.random.once_in(8) {
            return ((*self.random.pick(&BINARY_KEYS)).into(), " b");
        }
        (self.key(), "")
    }

    /// Some of `flags`, each at most once, in any order.
    fn some_flags(&mut self, flags: &[&str]) -> String {
        let mut left = flags.to_vec();
        let mut line = String::new();
        for _ in 0..self.random.below(6).min(flags.len()) {
            let flag = left.swap_remove(self.random.below(left.len()));
            line = line + " " + flag;
        }
        line
    }

    fn meta_get(&mut self) -> Request {
        let (key, b) = self.meta_key();
        let mut flags = vec!["c", "f", "h", "k", "Oabc", "q", "s", "t", "u", "v", "T0", "R1000"];
        flags.extend(["T-1", "T100000"].into_iter().filter(|_| self.random.once_in(8)));
        // An item that memcached makes on a miss, or copies to change it, forgets that its key was
        // base64, and k says the raw bytes.
        if !b.is_empty() {
            flags.retain(|flag| *flag != "k");
        }
        let create = self.random.once_in(2);
        flags.extend(["N0", "N100000"].into_iter().filter(|_| b.is_empty() && create));
        self.soon(&mut flags, &["T1", "T2", "T@4", "R3", "R60"]);
        if b.is_empty() && create {
            self.soon(&mut flags, &["N1", "N3"]);
        }
        keep_one_of(&mut flags, 'R', &mut self.random);
        keep_one_of(&mut flags, 'T', &mut self.random);
        keep_one_of(&mut flags, 'N', &mut self.random);
        // memcached does flags one by one: t before N tells no time, and of T and N the last sets
        // it. A time in the past it tells as one of 136 years ahead.
        if flags.iter().any(|flag| flag.starts_with('N')) {
            flags.retain(|flag| !flag.starts_with(['t', 'T']));
        } else if flags.contains(&"T-1") {
            flags.retain(|flag| *flag != "t");
        }
        let mut request = Request { key: key.clone(), ..Request::default() };
        let line = format!("mg {key}{b}{}", self.some_flags(&flags));
        request.push_line(&line);
        if self.full && self.random.once_in(5) {
            request.push(" C");
            request.push_cas(&mut self.random);
        }
        request.push("\r\n");
        request
    }

    fn meta_set(&mut self) -> Request {
        let (key, b) = self.meta_key();
        let chosen = key.starts_with("chosen");
        let mut flags = vec!["c", "k", "Oabc", "q", "F7", "T0"];
        flags.extend(["T-1", "T100000", "I"].into_iter().filter(|_| self.random.once_in(3)));
        self.soon(&mut flags, &["T1", "T2", "T5", "T@4"]);
        keep_one_of(&mut flags, 'T', &mut self.random);
        if self.full {
            flags.extend(["s", "N100000"]);
            self.soon(&mut flags, &["N2"]);
            keep_one_of(&mut flags, 'N', &mut self.random);
        }
        // An older memcached gives a stale item the new time.
        if chosen || !self.full {
            flags.retain(|flag| *flag != "I");
        }
        let mode = match self.random.below(16) {
            0 => " ME",
            1 => " MA",
            2 => " MP",
            3 => " MR",
            4 => " MS",
            _ => "",
        };
        let mut value = self.value();
        let mut request = Request { key: key.clone(), ..Request::default() };
        let line = format!("ms {key} {}{b}{mode}{}", value.len(), self.some_flags(&flags));
        request.push_line(&line);
        if self.random.once_in(4) {
            request.push(" C");
            request.push_cas(&mut self.random);
        }
        if self.full && chosen && self.random.once_in(2) {
            request.push(format!(" E{}", (1_u64 << 40) + self.random.next() % 1000));
        }
        request.push("\r\n");
        value.extend_from_slice(b"\r\n");
        request.push(value);
        request
    }

    fn meta_delete(&mut self) -> Request {
        let (key, b) = self.meta_key();
        let mut flags = vec!["k", "Oabc", "q", "I", "T100000"];
        self.soon(&mut flags, &["T1", "T3"]);
        keep_one_of(&mut flags, 'T', &mut self.random);
        if self.full {
            flags.push("x");
        }
        let mut request = Request { key: key.clone(), ..Request::default() };
        request.push(format!("md {key}{b}{}", self.some_flags(&flags)));
        if self.random.once_in(3) {
            request.push(" C");
            request.push_cas(&mut self.random);
        }
        request.push("\r\n");
        request
    }

    fn meta_arithmetic(&mut self) -> Request {
        let (key, b) = self.meta_key();
        let create = self.random.once_in(2);
        let mut flags = vec!["c", "k", "Oabc", "q", "t", "v", "D5", "MI", "MD", "T0"];
        flags.extend(["M+", "M-", "T100000"].into_iter().filter(|_| self.random.once_in(3)));
        self.soon(&mut flags, &["T1", "T2"]);
        flags.extend(["N0", "J17"].into_iter().filter(|_| b.is_empty() && create));
        if !self.full {
            flags.retain(|flag| *flag != "q");
        }
        keep_one_of(&mut flags, 'M', &mut self.random);
        keep_one_of(&mut flags, 'T', &mut self.random);
        if flags.contains(&"N0") {
            flags.retain(|flag| !flag.starts_with(['t', 'T']));
        }
        let mut request = Request { key: key.clone(), alone: true, ..Request::default() };
        let flags = self.some_flags(&flags);
        request.push(format!("ma {key}{b}{flags}"));
        if self.random.once_in(5) {
            request.push(" C");
            request.push_cas(&mut self.random);
        }
        request.push("\r\n");
        // Where the number gets longer, memcached tells of the new time and forgets it.
        if let Some(touch) = flags.split(' ').find(|flag| flag.starts_with('T')) {
            request.push(format!("mg {key}{b} {touch}\r\n"));
        }
        request
    }

    /// Lines that are not as they should be, alike in every release since 1.6.45.
    fn wrong(&mut self) -> Request {
        const LINES: [&str; 33] = [
            "",
            "x",
            "xx",
            "bogus command",
            "get",
            "gets ",
            "gat 0",
            "set",
            "set a 0 0",
            "touch a",
            "incr a",
            "decr a x",
            "incr a -1",
            "incr a 18446744073709551616",
            "touch a x",
            "gat x a",
            "set a 0 0 -1",
            "set a 0 0 2147483647",
            "set a 0 0 x",
            "ms a",
            "ms a x",
            "ms a -1",
            "mg a z",
            "mg a v v",
            "mg a !",
            "mg a Tx",
            "mg a Nx v",
            "md a Cx",
            "ma a Dx",
            "mg !!! b",
            "delete a 1 2 3",
            "mg a q v s t k f c h u l I x O1 P2 L3 MS F1 N0",
            "verbosity x",
        ];
        const VALUED: [&str; 10] = [
            "set a x 0",
            "set a 0 x",
            "cas a 0 0",
            "set a -1 0",
            "ms a 4 z",
            "ms a 4 k k",
            "ms a 4 MX",
            "ms a 4 Tx",
            "ms a 4 Fx",
            "ms a 4 Cx",
        ];
        let key = self.key();
        match self.random.below(4) {
            0 | 1 => {
                Request::text(self.random.pick(&LINES).replace(" a", &format!(" {key}")) + "\r\n")
            }
            2 => {
                let line = *self.random.pick(&VALUED);
                let len = if line.starts_with("ms") { "" } else { " 4" };
                let named = line.replacen(" a", &format!(" {key}"), 1);
                Request::text(format!("{named}{len}\r\nabcd\r\n"))
            }
            _ => {
                // A length that is off; what follows makes up for it.
                let len = self.random.below(16);
                let end = "x".repeat(30);
                Request::text(format!("set {key} 0 0 {len}\r\nabcdefgh\r\n{end}\r\n"))
            }
        }
    }

    fn inspection(&mut self) -> Request {
        let key = self.key();
        Request { key: key.clone(), ..Request::text(format!("me {key}\r\n")) }
    }

    /// An operator's command, right or wrong, that starts no background thread of memcached's, and
    /// whose answer does not depend on slab classes.
    fn operation(&mut self) -> Request {
        const FORMS: [(&str, &[&str]); 9] = [
            ("lru_crawler", &["sleep", "tocrawl", "crawl", "metadump", "mgdump", "disable", "x"]),
            ("lru_crawler", &["sleep", "tocrawl"]),
            ("lru", &["tune", "mode", "temp_ttl", "x"]),
            ("lru tune 10 20", &["0.1", "2", "0", "-1", "x", "1e400", ".5", "1x"]),
            ("lru tune", &["10", "80", "81", "0", "x", "-1"]),
            ("slabs", &["automove", "x"]),
            ("slabs automove", &["0", "3", "ratio", "freeratio", "window", "x", "-1"]),
            ("slabs reassign", &["1000", "-2", "1001", "x"]),
            ("cache_memlimit", &["64", "7", "0", "1000000001", "4294967296", "x", "-1"]),
        ];
        const WORDS: [&str; 12] =
            ["0", "3", "10", "1800", "1801", "0.5", "-1", "x", "all", "flat", "1,x", "4294967296"];
        // Dumps are refused over UDP, whatever else is wrong with them.
        let first = usize::from(self.kind == Kind::Datagrams);
        let (verb, subs) = *self.random.pick(&FORMS[first..]);
        let mut line = verb.to_owned();
        let sub = *self.random.pick(subs);
        let shortened = self.random.once_in(3) && sub.starts_with(|c: char| c.is_alphabetic());
        let cut = if shortened { 1 + self.random.below(sub.len()) } else { sub.len() };
        line = line + " " + &sub[..cut];
        for _ in 0..self.random.below(4) {
            line = line + " " + *self.random.pick(&WORDS);
        }
        if self.random.once_in(8) {
            line += " noreply";
        }
        Request::text(line + "\r\n")
    }

    fn rare(&mut self) -> Request {
        match self.random.below(60) {
            0..3 if self.full => self.flush(),
            3 => Request::text("verbosity 0\r\n"),
            // No connection that could be closed, nothing long.
            4..8 if self.kind == Kind::Datagrams => Request::text("mn\r\n"),
            4 => Request { closes: true, ..Request::text("quit\r\n") },
            5 => Request { closes: true, ..Request::text("GET / HTTP/1.1\r\n") },
            6 => Request::text(format!("get {}\r\n", "a_key_that_is_not_there ".repeat(200))),
            7 => Request::text(format!("gets {}\r\n", "key1 key2 chosen3 ".repeat(150))),
            8..20 if self.full => self.inspection(),
            20..36 if self.full => self.operation(),
            _ => Request::text("mn\r\n"),
        }
    }
}

/// Of the flags that start with `letter` keeps one, so that it is no duplicate.
fn keep_one_of(flags: &mut Vec<&str>, letter: char, random: &mut Random) {
    let alike: Vec<&str> = flags.iter().copied().filter(|f| f.starts_with(letter)).collect();
    if !alike.is_empty() {
        let kept = *random.pick(&alike);
        flags.retain(|flag| !flag.starts_with(letter) || *flag == kept);
    }
}
