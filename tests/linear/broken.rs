//! The checker itself: it must refuse histories that no order explains, take those that one does,
//! and agree with a search through every order where that can be done.

use crate::check::Checker;
use crate::common::Random;
use crate::history::{Answer, Bytes, DEAD, Mode, Op, Record, Seen};
use crate::spec::{Rules, State, Values, next};

const KEEPS: Rules = Rules { evicts: false };
const EVICTS: Rules = Rules { evicts: true };

fn bytes(text: &str) -> Bytes {
    text.as_bytes().to_vec().into()
}

fn record(client: u8, (sent, answered): (u64, u64), op: Op, answer: Answer) -> Record {
    Record { client, key: 0, sent, answered, op, answer }
}

fn store(mode: Mode, value: &str) -> Op {
    Op::Store { mode, value: bytes(value), flags: 0, term: 0, unique: false }
}

fn set(value: &str) -> Op {
    store(Mode::Set, value)
}

fn cas(value: &str, compare: u64) -> Op {
    Op::Cas { value: bytes(value), flags: 0, term: 0, compare }
}

fn hit(value: &str) -> Answer {
    Answer::Hit(Seen { value: bytes(value), flags: 0, unique: None, term: None })
}

fn hit_with(value: &str, unique: u64) -> Answer {
    Answer::Hit(Seen { value: bytes(value), flags: 0, unique: Some(unique), term: None })
}

fn hit_until(value: &str, term: u8) -> Answer {
    Answer::Hit(Seen { value: bytes(value), flags: 0, unique: None, term: Some(term) })
}

const STORED: Answer = Answer::Stored(None);

/// One client, one operation after the other.
fn in_turn(steps: &[(Op, Answer)]) -> Vec<Record> {
    let numbered = (0..).zip(steps);
    numbered
        .map(|(n, (op, answer))| record(0, (10 * n, 10 * n + 5), op.clone(), answer.clone()))
        .collect()
}

fn is_fine(rules: Rules, history: &[Record]) -> bool {
    Checker::new(rules).check(history).is_ok()
}

/// Refused also where items may be evicted.
fn refuse(what: &str, history: &[Record]) {
    assert!(!is_fine(KEEPS, history) && !is_fine(EVICTS, history), "taken: {what}");
}

fn accept(what: &str, history: &[Record]) {
    assert!(is_fine(KEEPS, history) && is_fine(EVICTS, history), "refused: {what}");
}

#[test]
fn wrong_answers_to_one_client_are_refused() {
    let a = || (set("a"), STORED);
    let wrong: [(&str, Vec<(Op, Answer)>); 18] = [
        ("never stored", vec![(Op::Get, hit("x"))]),
        ("torn", vec![(set("aaaa"), STORED), (set("bbbb"), STORED), (Op::Get, hit("aabb"))]),
        ("stale", vec![a(), (set("b"), STORED), (Op::Get, hit("a"))]),
        ("back from the dead", vec![a(), (Op::Delete, Answer::Done), (Op::Get, hit("a"))]),
        ("back from an eviction", vec![a(), (Op::Get, Answer::Miss), (Op::Get, hit("a"))]),
        ("outlived a flush", vec![a(), (Op::Flush, Answer::Done), (Op::Get, hit("a"))]),
        ("outlived its end", vec![a(), (Op::Touch(DEAD), Answer::Done), (Op::Get, hit("a"))]),
        ("replaced nothing", vec![(store(Mode::Replace, "a"), STORED)]),
        ("counted wrong", vec![(set("5"), STORED), (Op::Arith(2), Answer::Number(8))]),
        (
            "counted, not kept",
            vec![(set("5"), STORED), (Op::Arith(2), Answer::Number(7)), (Op::Get, hit("5"))],
        ),
        (
            "appended at the front",
            vec![a(), (store(Mode::Append, "b"), STORED), (Op::Get, hit("ba"))],
        ),
        ("touch lost", vec![a(), (Op::Touch(2), Answer::Done), (Op::Look, hit_until("a", 0))]),
        (
            "two uniques of one item",
            vec![a(), (Op::Gets, hit_with("a", 7)), (Op::Gets, hit_with("a", 6))],
        ),
        (
            "one unique of two items",
            vec![
                a(),
                (Op::Gets, hit_with("a", 7)),
                (set("b"), STORED),
                (Op::Gets, hit_with("b", 7)),
            ],
        ),
        (
            "a unique that falls",
            vec![
                a(),
                (Op::Gets, hit_with("a", 7)),
                (set("b"), STORED),
                (Op::Gets, hit_with("b", 6)),
            ],
        ),
        (
            "cas with an old unique",
            vec![a(), (Op::Gets, hit_with("a", 7)), (set("b"), STORED), (cas("c", 7), STORED)],
        ),
        (
            "two cas with one unique",
            vec![a(), (Op::Gets, hit_with("a", 7)), (cas("b", 7), STORED), (cas("c", 7), STORED)],
        ),
        (
            "delete with an old unique",
            vec![
                a(),
                (Op::Gets, hit_with("a", 7)),
                (set("b"), STORED),
                (Op::DeleteIf(7), Answer::Done),
            ],
        ),
    ];
    for (what, steps) in wrong {
        refuse(what, &in_turn(&steps));
    }
}

#[test]
fn what_only_an_eviction_explains_is_refused_where_nothing_is_evicted() {
    let a = || (set("a"), STORED);
    let lost: [Vec<(Op, Answer)>; 7] = [
        vec![a(), (Op::Get, Answer::Miss)],
        vec![a(), (Op::Delete, Answer::Miss)],
        vec![a(), (Op::Touch(1), Answer::Miss)],
        vec![a(), (store(Mode::Add, "b"), STORED)],
        vec![a(), (store(Mode::Append, "b"), Answer::NotStored), (Op::Get, hit("a"))],
        vec![a(), (set("b"), Answer::Refused), (Op::Get, hit("a"))],
        vec![a(), (Op::Gets, hit_with("a", 7)), (cas("b", 7), Answer::Miss)],
    ];
    for steps in lost {
        let history = in_turn(&steps);
        assert!(is_fine(EVICTS, &history) && !is_fine(KEEPS, &history), "{steps:?}");
    }
}

#[test]
fn who_is_under_way_may_come_first_or_last() {
    // b is set while others read; both orders are fine, but not one after the other.
    let base = |reads: [&str; 2]| {
        vec![
            record(0, (0, 5), set("a"), STORED),
            record(0, (10, 50), set("b"), STORED),
            record(1, (12, 20), Op::Get, hit(reads[0])),
            record(1, (22, 30), Op::Get, hit(reads[1])),
        ]
    };
    accept("old, old", &base(["a", "a"]));
    accept("old, new", &base(["a", "b"]));
    accept("new, new", &base(["b", "b"]));
    refuse("new, old", &base(["b", "a"]));
    let increments = |second| {
        vec![
            record(0, (0, 5), set("9"), STORED),
            record(0, (10, 50), Op::Arith(1), Answer::Number(10)),
            record(1, (12, 40), Op::Arith(2), Answer::Number(second)),
        ]
    };
    accept("both counted", &increments(12));
    refuse("one lost", &increments(11));
    let adds = |second: Answer| {
        vec![
            record(0, (10, 50), store(Mode::Add, "a"), STORED),
            record(1, (12, 40), store(Mode::Add, "b"), second),
            record(0, (60, 70), Op::Get, hit("a")),
        ]
    };
    accept("one added", &adds(Answer::NotStored));
    assert!(!is_fine(KEEPS, &adds(STORED)), "two added");
    let deletes = |second: Answer| {
        vec![
            record(0, (0, 5), set("a"), STORED),
            record(0, (10, 50), Op::Delete, Answer::Done),
            record(1, (12, 40), Op::Delete, second),
        ]
    };
    accept("one deleted", &deletes(Answer::Miss));
    refuse("two deleted one", &deletes(Answer::Done));
}

/// What the checker knows at the end of one part it knows in the next.
#[test]
fn parts_of_a_history_are_one() {
    let mut checker = Checker::new(KEEPS);
    checker.check(&[record(0, (0, 5), set("a"), STORED)]).expect("fine");
    checker.check(&[record(1, (10, 15), Op::Get, hit("a"))]).expect("fine");
    assert!(checker.check(&[record(1, (20, 25), Op::Get, Answer::Miss)]).is_err());
}

/// An answer that the specification allows in some state; random, so often not in this one.
fn draw(random: &mut Random) -> (Op, Answer) {
    let value = *random.pick(&["1", "2", "12"]);
    let unique = 1 + random.below(3) as u64;
    let op = match random.below(9) {
        0 => Op::Get,
        1 => Op::Gets,
        2 | 3 => set(value),
        4 => store(Mode::Add, value),
        5 => store(Mode::Append, "2"),
        6 => cas(value, unique),
        7 => Op::Arith(1),
        _ => Op::Delete,
    };
    let answers: &[Answer] = match op {
        Op::Get => &[Answer::Miss, hit("1"), hit("2"), hit("12"), hit("13")],
        Op::Gets => &[Answer::Miss, hit_with(value, unique)],
        Op::Store { mode: Mode::Set, .. } => &[STORED],
        Op::Store { .. } => &[STORED, Answer::NotStored],
        Op::Cas { .. } => &[STORED, Answer::Exists, Answer::Miss],
        Op::Arith(_) => &[Answer::Number(2), Answer::Number(3), Answer::Number(13), Answer::Miss],
        _ => &[Answer::Done, Answer::Miss],
    };
    let answer = random.pick(answers).clone();
    (op, answer)
}

/// Up to six operations of three clients.
fn draw_history(random: &mut Random) -> Vec<Record> {
    let mut history = Vec::new();
    let mut free = [0_u64; 3];
    for _ in 0..2 + random.below(5) {
        let client = random.below(3);
        let sent = free[client] + 1 + random.below(6) as u64;
        let answered = sent + random.below(12) as u64;
        free[client] = answered;
        let (op, answer) = draw(random);
        history.push(record(client as u8, (sent, answered), op, answer));
    }
    history
}

/// Every order that time allows, one operation after the other.
fn some_order_explains(rules: Rules, values: &mut Values, state: State, left: &[Record]) -> bool {
    let Some(first_end) = left.iter().map(|record| record.answered).min() else { return true };
    (0..left.len()).any(|n| {
        // Whoever was sent after another was answered cannot come before it.
        if left[n].sent > first_end {
            return false;
        }
        let mut rest = left.to_vec();
        let chosen = rest.remove(n);
        let lost = State { item: None, ..state };
        let starts = if rules.evicts { vec![state, lost] } else { vec![state] };
        starts.into_iter().any(|start| {
            let ends = next(rules, values, start, &chosen.op, &chosen.answer);
            ends.into_iter().any(|end| some_order_explains(rules, values, end, &rest))
        })
    })
}

#[test]
fn the_checker_agrees_with_a_search_through_every_order() {
    let seed = Random::seed_from("LINEAR_SEED");
    let mut random = Random::new(seed);
    let (mut fine, mut broken) = (0, 0);
    while fine < 400 || broken < 400 {
        let history = draw_history(&mut random);
        for rules in [KEEPS, EVICTS] {
            let mut values = Values::default();
            let truth = some_order_explains(rules, &mut values, State::default(), &history);
            let said = is_fine(rules, &history);
            assert_eq!(said, truth, "LINEAR_SEED={seed} {rules:?} {history:?}");
            *(if truth { &mut fine } else { &mut broken }) += 1;
        }
    }
}
