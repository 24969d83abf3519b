//! The policy alone, over made-up samples.

use super::*;

const TERMS: Terms = Terms { ratio: 0.8, window: 10, eager: false };
const CHUNKS: u64 = 100;

/// Classes as a cache that has them would sample them; counts go on.
struct World {
    policy: Automove,
    classes: Vec<Sample>,
    requests: u64,
    /// Requests are sets, not gets.
    unread: bool,
    now: Seconds,
}

impl World {
    fn new(pages: &[u64]) -> World {
        let class = |pages: &u64| Sample {
            pages: *pages,
            chunks_per_page: CHUNKS,
            probation: 100,
            ..Sample::default()
        };
        let mut world = World {
            policy: Automove::default(),
            classes: pages.iter().map(class).collect(),
            requests: 0,
            unread: false,
            now: 1,
        };
        world.observe();
        world
    }

    fn observe(&mut self) {
        self.policy.observe(&self.classes, self.now);
    }

    /// Gains of the main part: keys that were missed, and are stored again in others' room.
    fn gain(&mut self, class: usize, by: u32) {
        let class = &mut self.classes[class];
        class.gains[1].0 = class.gains[1].0.wrapping_add(by);
        class.evicted = class.evicted.wrapping_add(u64::from(by));
    }

    fn decide(&mut self, memory: Memory, terms: Terms) -> Option<Decision> {
        self.observe();
        let (gets, sets) = if self.unread { (0, self.requests) } else { (self.requests, 0) };
        let decision = self.policy.decide(Load { gets, sets }, memory, self.now, terms);
        if let Some(Decision { from, to, .. }) = decision {
            self.classes[from].pages -= 1;
            if let Some(to) = to {
                self.classes[to].pages += 1;
            }
        }
        decision
    }

    /// A round of requests with these gains: the moves that come of it.
    fn round(&mut self, gains: &[u32], terms: Terms) -> Vec<(usize, Option<usize>)> {
        for (class, by) in gains.iter().enumerate() {
            self.gain(class, *by);
        }
        self.moves(terms)
    }

    /// A round of sets, in which the classes evict so many items.
    fn unread_round(&mut self, evicted: &[u64]) -> Vec<(usize, Option<usize>)> {
        self.unread = true;
        for (class, by) in self.classes.iter_mut().zip(evicted) {
            class.evicted += by;
        }
        self.moves(TERMS)
    }

    fn moves(&mut self, terms: Terms) -> Vec<(usize, Option<usize>)> {
        self.requests += ROUND;
        self.now += 1;
        let mut moves = Vec::new();
        while let Some(decision) = self.decide(Memory::Full, terms) {
            moves.push((decision.from, decision.to));
            assert!(moves.len() <= 1_000, "a round ends");
        }
        moves
    }

    fn pages(&self) -> Vec<u64> {
        self.classes.iter().map(|class| class.pages).collect()
    }
}

/// Moves of `rounds` rounds with the gains of `gains_of`.
fn run(
    world: &mut World,
    rounds: usize,
    gains_of: impl Fn(usize) -> Vec<u32>,
) -> Vec<(usize, Option<usize>)> {
    (0..rounds).flat_map(|n| world.round(&gains_of(n), TERMS)).collect()
}

#[test]
fn a_starving_class_gets_pages() {
    let mut world = World::new(&[100, 100, 2]);
    let moves = run(&mut world, 20, |_| vec![0, 0, 500]);
    assert!(moves.len() >= 10 && moves.iter().all(|(_, to)| *to == Some(2)), "{moves:?}");
    assert!(world.pages()[2] > 10);
}

#[test]
fn a_round_moves_one_page_of_a_hundred() {
    let mut world = World::new(&[500, 100]);
    assert_eq!(world.round(&[0, 100_000], TERMS).len(), 6);
    assert_eq!(World::new(&[20, 10]).round(&[0, 100_000], TERMS).len(), 1);
    // The next round is that many requests away.
    world.requests += ROUND - 1;
    assert_eq!(world.decide(Memory::Full, TERMS), None);
    world.requests += 1;
    world.classes[1].evicted += 1;
    assert!(world.decide(Memory::Full, TERMS).is_some());
}

#[test]
fn a_load_that_stays_moves_more_and_more_pages() {
    let mut world = World::new(&[500, 100, 100]);
    let mut moved = |gains: &[u32]| world.round(gains, TERMS).len();
    let lasting = [0, 1_000_000, 0];
    assert_eq!([(); 5].map(|()| moved(&lasting)), [7, 14, 28, 56, 56]);
    // From now on another one is short: the round that brings this is the last of that size.
    assert_eq!(moved(&[0, 0, 50_000_000]), 56);
    assert_eq!([(); 3].map(|()| moved(&[0, 0, 0])), [14, 28, 56]);
}

/// Load that swings between two classes from round to round.
#[test]
fn oscillating_load_sends_no_page_to_and_fro() {
    for gain in [20, 200, 1_000] {
        let mut world = World::new(&[100, 100]);
        let swing = |n: usize| {
            if n.is_multiple_of(2) { vec![gain, gain / 2] } else { vec![gain / 2, gain] }
        };
        let moves = run(&mut world, 400, swing);
        let turns = moves.windows(2).filter(|pair| pair[0].0 != pair[1].0).count();
        assert!(turns <= 4, "gains of {gain}: {turns} turns in {} moves", moves.len());
        assert!(
            world.pages().iter().all(|pages| (80..=120).contains(pages)),
            "{:?}",
            world.pages()
        );
    }
}

#[test]
fn classes_that_gain_alike_keep_their_pages() {
    for gain in [0, 1, 10, 1_000] {
        let mut world = World::new(&[50, 50, 50]);
        assert_eq!(run(&mut world, 200, |_| vec![gain; 3]), [], "gains of {gain}");
    }
}

/// What could be chance moves nothing.
#[test]
fn no_page_moves_without_significance() {
    for (gains, moves) in [([0, 3], false), ([0, 9], false), ([0, 100], true), ([90, 100], false)] {
        let mut world = World::new(&[50, 50]);
        assert_eq!(!world.round(&gains, TERMS).is_empty(), moves, "{gains:?}");
    }
    // Gains per page of it: a few are much for a class that has little.
    let mut world = World::new(&[50, 2]);
    assert!(!world.round(&[60, 60], TERMS).is_empty());
}

/// False gains count for nothing.
#[test]
fn what_may_be_false_is_taken_off() {
    let mut world = World::new(&[50, 50]);
    world.classes[1].gains[1].1 = 1_000;
    assert_eq!(world.round(&[0, 1_000], TERMS), []);
    assert_ne!(world.round(&[0, 1_000], TERMS), []);
}

#[test]
fn counts_may_wrap() {
    let mut world = World::new(&[50, 50]);
    for class in &mut world.classes {
        class.gains = [(u32::MAX - 5, u32::MAX); 2];
        class.evicted = u64::MAX - 3;
    }
    let mut world = World { policy: Automove::default(), ..world };
    world.observe();
    let moves = world.round(&[0, 300], TERMS);
    assert_eq!(moves.first(), Some(&(0, Some(1))));
}

/// A client that only reads misses what it misses wherever the pages are.
#[test]
fn a_class_that_evicts_nothing_takes_no_page() {
    let mut world = World::new(&[50, 50]);
    for _ in 0..50 {
        world.classes[1].gains[1].0 += 1_000;
        assert_eq!(world.moves(TERMS), []);
    }
    world.classes[1].evicted += 1;
    assert_eq!(world.moves(TERMS), [(0, Some(1))]);
}

#[test]
fn one_giant_class_neither_takes_all_nor_is_robbed() {
    // It gains little per page; the small ones gain nothing: they give until they have one left.
    let mut world = World::new(&[900, 10, 10]);
    run(&mut world, 50, |_| vec![3_000, 0, 0]);
    assert_eq!(world.pages()[1..], [1, 1]);
    // All gain the same per page.
    let mut world = World::new(&[900, 90, 9]);
    let moves = run(&mut world, 50, |_| vec![9_000, 900, 90]);
    assert!(moves.len() < 20, "{moves:?}");
    // The small ones gain more per page.
    let mut world = World::new(&[900, 9]);
    run(&mut world, 10, |_| vec![900, 900]);
    assert!(world.pages()[1] >= 50, "{:?}", world.pages());
}

#[test]
fn a_class_that_falls_silent_becomes_the_giver() {
    let mut world = World::new(&[100, 100, 100]);
    run(&mut world, 50, |_| vec![1_000, 1_000, 1_000]);
    assert_eq!(world.pages(), [100, 100, 100]);
    let moves = run(&mut world, 200, |_| vec![1_000, 0, 1_000]);
    assert!(moves.iter().all(|(from, _)| *from == 1), "{moves:?}");
    assert!(world.pages()[1] < 20, "{:?}", world.pages());
    // And back again.
    let moves = run(&mut world, 60, |_| vec![10, 3_000, 10]);
    assert!(moves.iter().all(|(_, to)| *to == Some(1)) && world.pages()[1] > 50);
}

#[test]
fn a_class_keeps_its_last_page_and_one_without_takes_none() {
    let mut world = World::new(&[1, 1, 0]);
    assert_eq!(world.round(&[0, 100_000, 100_000], TERMS), []);
    let mut world = World::new(&[2, 1, 0]);
    assert_eq!(world.round(&[0, 100_000, 100_000], TERMS), [(0, Some(1))]);
}

#[test]
fn spare_pages_go_to_the_pool_after_the_window_and_no_lower_than_two_and_a_half() {
    let mut world = World::new(&[10, 10]);
    world.classes[0].free_chunks = 5 * CHUNKS;
    world.now += TERMS.window - 1;
    assert_eq!(world.decide(Memory::Full, TERMS), None, "too early");
    world.now += 1;
    let mut given = 0;
    while let Some(decision) = world.decide(Memory::Touched, TERMS) {
        assert_eq!((decision.from, decision.to), (0, None));
        assert_eq!(decision.why, Why::Spare(5.0 - f64::from(given)));
        world.classes[0].free_chunks -= CHUNKS;
        given += 1;
    }
    assert_eq!((given, world.classes[0].free_chunks), (3, 2 * CHUNKS));
    // Exactly so many are not too many.
    world.classes[0].free_chunks = 5 * CHUNKS / 2;
    assert_eq!(world.decide(Memory::Touched, TERMS), None);
    world.classes[0].free_chunks += 1;
    assert!(world.decide(Memory::Touched, TERMS).is_some());
}

#[test]
fn a_class_that_evicts_or_grows_has_nothing_to_spare() {
    let disturbances: [fn(&mut Sample); 2] = [|class| class.evicted += 1, |class| class.pages += 1];
    for disturb in disturbances {
        let mut world = World::new(&[10, 10]);
        world.classes[0].free_chunks = 5 * CHUNKS;
        for _ in 0..5 {
            world.now += TERMS.window - 1;
            disturb(&mut world.classes[0]);
            assert_eq!(world.decide(Memory::Full, TERMS), None);
        }
        world.now += TERMS.window;
        assert!(world.decide(Memory::Full, TERMS).is_some());
    }
}

#[test]
fn memory_that_was_never_used_comes_first() {
    let mut world = World::new(&[10, 10]);
    world.classes[0].free_chunks = 9 * CHUNKS;
    world.now += 100;
    world.gain(1, 100_000);
    world.classes[1].evicted += 100;
    world.requests += ROUND;
    let eager = Terms { eager: true, ..TERMS };
    assert_eq!(world.decide(Memory::Fresh, eager), None);
    // The pool has some: classes give to it, and take from it by themselves.
    world.classes[0].free_chunks = 0;
    assert_eq!(world.decide(Memory::Touched, eager), None);
    assert!(world.decide(Memory::Full, TERMS).is_some());
}

#[test]
fn an_eager_policy_gives_to_whoever_evicts_most() {
    let mut world = World::new(&[10, 10, 10]);
    let eager = Terms { eager: true, ..TERMS };
    assert_eq!(world.decide(Memory::Full, eager), None, "nobody evicts");
    world.classes[1].evicted += 5;
    world.classes[2].evicted += 9;
    let decision = world.decide(Memory::Full, eager).expect("a move");
    assert_eq!((decision.to, decision.why), (Some(2), Why::Evictions(9)));
    assert_ne!(decision.from, 2);
    assert_eq!(world.decide(Memory::Full, eager), None, "these were seen");
    world.classes[1].evicted += 1;
    assert!(world.decide(Memory::Full, eager).is_some());
    // Not so one that is not eager.
    world.classes[1].evicted += 1;
    assert_eq!(world.decide(Memory::Full, TERMS), None);
}

#[test]
fn the_ratio_says_how_far_ahead_the_taker_must_be() {
    // Twice the gain per page, without much doubt.
    for (ratio, moves) in [(0.9, true), (0.6, true), (0.45, false), (0.1, false)] {
        let mut world = World::new(&[50, 50]);
        let terms = Terms { ratio, ..TERMS };
        assert_eq!(!world.round(&[100_000, 200_000], terms).is_empty(), moves, "{ratio}");
    }
    // Nothing is divided by nothing.
    assert_eq!(World::new(&[50, 50]).round(&[10, 20], Terms { ratio: 0.0, ..TERMS }), []);
}

#[test]
fn the_poorest_gains_least_per_page_and_has_two() {
    let mut world = World::new(&[10, 1, 10, 100]);
    world.gain(0, 500);
    world.gain(2, 100);
    world.gain(3, 700);
    world.observe();
    // Of 10 pages 50 and 10 each, of 100 pages 7 each; one page is too few.
    assert_eq!(world.policy.poorest(None), Some(3));
    assert_eq!(world.policy.poorest(Some(3)), Some(2));
    assert_eq!(World::new(&[1, 1]).policy.poorest(None), None);
}

#[test]
fn the_fullest_has_a_free_page_or_is_the_poorest_or_at_least_the_largest() {
    let mut world = World::new(&[10, 10, 10]);
    world.gain(0, 5);
    world.gain(1, 500);
    world.gain(2, 50);
    world.classes[1].free_chunks = CHUNKS;
    world.observe();
    assert_eq!(world.policy.fullest(1), Some(1));
    world.classes[1].free_chunks = CHUNKS - 1;
    world.observe();
    assert_eq!(world.policy.fullest(1), Some(0));
    assert_eq!(World::new(&[1, 0, 0]).policy.fullest(1), Some(0));
    assert_eq!(World::new(&[0, 0]).policy.fullest(1), None);
}

/// A last page that stays is in nobody's way, though all of it is free.
#[test]
fn the_fullest_has_as_many_pages_as_asked_for() {
    let mut world = World::new(&[10, 1]);
    world.classes[1].free_chunks = CHUNKS;
    world.observe();
    assert_eq!((world.policy.fullest(1), world.policy.freest(1)), (Some(1), Some(1)));
    assert_eq!((world.policy.fullest(2), world.policy.freest(2)), (Some(0), None));
    assert_eq!(World::new(&[1, 1]).policy.fullest(2), None);
}

#[test]
fn where_nobody_reads_classes_come_to_hold_on_for_equally_long() {
    let mut world = World::new(&[90, 9, 1, 0]);
    let evicted = [1_000, 1_000, 2_000, 0];
    (0..200).for_each(|_| drop(world.unread_round(&evicted)));
    let pages = world.pages();
    assert_eq!(pages.iter().sum::<u64>(), 100);
    assert!((18..=32).contains(&pages[0]) && (18..=32).contains(&pages[1]), "{pages:?}");
    assert!((40..=60).contains(&pages[2]), "{pages:?}");
}

/// Where a page is much of a class, no two of them turn over alike.
#[test]
fn small_classes_send_no_page_round_where_nobody_reads() {
    for evicted in [[300, 320, 340, 380, 700], [700, 340, 300, 380, 320], [500; 5]] {
        let mut world = World::new(&[3, 3, 3, 4, 7]);
        (0..50).for_each(|_| drop(world.unread_round(&evicted)));
        let settled = world.pages();
        let later: Vec<_> = (0..200).flat_map(|_| world.unread_round(&evicted)).collect();
        assert_eq!(later, [], "{evicted:?}, {settled:?}");
    }
}

/// What `shares` says after `gains` in probation and main, in a class with this share.
fn shares_after(probation: u32, gains: (u32, u32)) -> Vec<(usize, u32)> {
    let mut world = World::new(&[10, 10]);
    world.classes[1].probation = probation;
    world.classes[1].gains[0].0 += gains.0;
    world.classes[1].gains[1].0 += gains.1;
    world.observe();
    let shares = world.policy.shares();
    assert_eq!(world.policy.shares(), [], "gains count once");
    shares
}

#[test]
fn probation_grows_and_shrinks_by_its_gains_within_bounds() {
    assert_eq!(shares_after(100, (200, 20)), [(1, 110)]);
    assert_eq!(shares_after(100, (20, 200)), [(1, 90)]);
    assert_eq!(shares_after(100, (30, 0)), [], "too few to judge");
    assert_eq!(shares_after(100, (220, 100)), [], "probation's count half: too close");
    assert_eq!(shares_after(SHARE_MAX - 1, (200, 0)), [(1, SHARE_MAX)]);
    assert_eq!(shares_after(SHARE_MIN + 1, (0, 200)), [(1, SHARE_MIN)]);
    // From the least to the most and back.
    for (gains, from, end) in [((999, 0), SHARE_MIN, SHARE_MAX), ((0, 999), SHARE_MAX, SHARE_MIN)] {
        let mut share = from;
        for _ in 0..60 {
            share = shares_after(share, gains).first().map_or(share, |(_, share)| *share);
        }
        assert_eq!(share, end);
    }
}
