//! Clients of a live server, in text: classic lines, and meta's where those cannot say it.

use crate::clients::{Port, Wish, key_name};
use crate::common::Client;
use crate::history::{Answer, Mode, Op, Seen, exptime_of, term_of};
use std::io::Write;

pub struct Socket(pub Client);

impl Port for Socket {
    const BATCHES: bool = true;

    fn run(&mut self, wishes: &[Wish]) -> Vec<Answer> {
        let mut bytes = Vec::new();
        for wish in wishes {
            request(wish, &mut bytes);
        }
        // Who is not told is told that it is done.
        bytes.extend_from_slice(b"mn\r\n");
        self.0.send(&bytes);
        let answers = wishes.iter().map(|wish| self.answer(wish)).collect();
        self.0.expect(b"MN\r\n");
        answers
    }
}

/// What has a form that asks for no answer, and is to have none.
fn is_quiet(wish: &Wish) -> bool {
    let classic = match &wish.op {
        Op::Store { unique, .. } => !unique,
        Op::Cas { .. } | Op::Arith(_) | Op::Delete | Op::Touch(_) => true,
        _ => false,
    };
    wish.quiet && classic
}

fn request(wish: &Wish, out: &mut Vec<u8>) {
    let key = key_name(wish.key);
    let quiet = if is_quiet(wish) { " noreply" } else { "" };
    let mut payload = None;
    let line = match &wish.op {
        Op::Get => format!("get {key}"),
        Op::Gets => format!("gets {key}"),
        Op::Look => format!("mg {key} c f t v"),
        Op::Gat(term) => format!("gat {} {key}", exptime_of(*term)),
        Op::Store { mode, value, flags, term, unique } => {
            payload = Some(value);
            let (len, exptime) = (value.len(), exptime_of(*term));
            match *unique {
                true => format!("ms {key} {len} c F{flags} T{exptime} M{}", letter(*mode)),
                false => format!("{} {key} {flags} {exptime} {len}{quiet}", verb(*mode)),
            }
        }
        Op::Cas { value, flags, term, compare } => {
            payload = Some(value);
            let (len, exptime) = (value.len(), exptime_of(*term));
            format!("cas {key} {flags} {exptime} {len} {compare}{quiet}")
        }
        Op::Arith(delta @ 0..) => format!("incr {key} {delta}{quiet}"),
        Op::Arith(delta) => format!("decr {key} {}{quiet}", delta.unsigned_abs()),
        Op::Delete => format!("delete {key}{quiet}"),
        Op::DeleteIf(compare) => format!("md {key} C{compare}"),
        Op::Touch(term) => format!("touch {key} {}{quiet}", exptime_of(*term)),
        Op::Flush => "flush_all".into(),
    };
    write!(out, "{line}\r\n").expect("memory takes all");
    if let Some(value) = payload {
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

fn verb(mode: Mode) -> &'static str {
    match mode {
        Mode::Set => "set",
        Mode::Add => "add",
        Mode::Replace => "replace",
        Mode::Append => "append",
        Mode::Prepend => "prepend",
    }
}

fn letter(mode: Mode) -> char {
    match mode {
        Mode::Set => 'S',
        Mode::Add => 'E',
        Mode::Replace => 'R',
        Mode::Append => 'A',
        Mode::Prepend => 'P',
    }
}

impl Socket {
    fn answer(&mut self, wish: &Wish) -> Answer {
        if is_quiet(wish) {
            return Answer::Unheard;
        }
        let line = self.0.line();
        let words: Vec<&str> = line.split(' ').collect();
        match (&wish.op, words[0]) {
            (_, "SERVER_ERROR") if line.contains("out of memory") => Answer::Refused,
            (Op::Get | Op::Gets | Op::Gat(_), "END") | (Op::Look, "EN") => Answer::Miss,
            (Op::Get | Op::Gets | Op::Gat(_), "VALUE") => {
                assert_eq!(words[1], key_name(wish.key));
                let unique = words.get(4).map(|word| word.parse().expect("a unique"));
                assert_eq!(unique.is_some(), wish.op == Op::Gets, "{line}");
                let answer = self.hit(words[3], words[2], unique, None);
                self.0.expect(b"END\r\n");
                answer
            }
            (Op::Look, "VA") => {
                let flag = |n: usize, letter| words[n].strip_prefix(letter).expect("a flag");
                let left = Some(flag(4, 't')).filter(|left| *left != "-1");
                let left = left.map(|left| left.parse().expect("seconds"));
                let unique = flag(2, 'c').parse().expect("a unique");
                self.hit(words[1], flag(3, 'f'), Some(unique), Some(left))
            }
            (_, "STORED") => Answer::Stored(None),
            (Op::Store { .. }, "HD") => {
                Answer::Stored(words[1].strip_prefix('c').and_then(|word| word.parse().ok()))
            }
            (_, "NOT_STORED" | "NS") => Answer::NotStored,
            (_, "EXISTS" | "EX") => Answer::Exists,
            (_, "NOT_FOUND" | "NF") => Answer::Miss,
            (_, "DELETED" | "TOUCHED" | "OK" | "HD") => Answer::Done,
            (Op::Arith(_), "CLIENT_ERROR") => Answer::NotNumeric,
            (Op::Arith(_), number) => Answer::Number(number.parse().expect("a number")),
            _ => panic!("{line:?} to {:?}", wish.op),
        }
    }

    /// Takes the value behind a line.
    fn hit(
        &mut self,
        len: &str,
        flags: &str,
        unique: Option<u64>,
        left: Option<Option<u32>>,
    ) -> Answer {
        let value = self.0.take(len.parse().expect("a length"));
        self.0.expect(b"\r\n");
        let term = left.map(|left| {
            term_of(left).unwrap_or_else(|| panic!("{left:?} seconds left: nobody said so"))
        });
        let flags = flags.parse().expect("flags");
        Answer::Hit(Seen { value: value.into(), flags, unique, term })
    }
}
