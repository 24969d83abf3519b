//! The clients of the soak: those who know what they must be answered, and those who are a burden.

use crate::common::load::{Memory, is_value_of, value_of};
use crate::common::{Client, Random};
use crate::world::World;

/// Keys of large values, and the bytes of one.
const BIGS: usize = 8;
const BIG_BYTES: usize = 1_000_000;
/// Clients that dribble, and those that are slow to read, at a time.
const DRIBBLERS: usize = 30;
const SLUGGARDS: usize = 24;
/// Connections that a flood is refused before it goes back.
const REFUSALS: usize = 50;

/// A client that remembers, on one connection after another.
pub fn remember(world: &World, n: usize, seed: u64) {
    let mut random = Random::new(seed);
    for life in 0.. {
        // Nobody knows what became of the last one's last steps, so this one has keys of its own.
        let mut memory = Memory::new(format!("{n}.{life}"), random.next());
        while let Some(mut client) = world.enter() {
            let (before, batches) = (memory.steps, 200 + random.below(2_000));
            let mut goes_on = true;
            for _ in 0..batches {
                goes_on = goes_on && !world.is_over() && memory.work(&mut client);
            }
            world.count("steps checked", memory.steps - before);
            for wrong in &memory.wrong {
                world.report(format!("out of step: {wrong}"));
            }
            if !goes_on {
                break;
            }
        }
        if world.is_over() {
            return;
        }
        world.count("connections lost", 1);
    }
}

/// Stores large values again and again.
pub fn store_bigs(world: &World, seed: u64) {
    let mut random = Random::new(seed);
    let Some(mut client) = world.enter() else { return };
    for version in 0.. {
        let key = format!("big{}", random.below(BIGS));
        let value = value_of(&key, version, BIG_BYTES);
        let head = format!("set {key} 0 0 {}\r\n", value.len());
        client.send(&[head.as_bytes(), &value, b"\r\n"].concat());
        match client.line().as_str() {
            "STORED" => world.count("large values stored", 1),
            line if line.starts_with("SERVER_ERROR out of memory") => {
                world.count("large values refused", 1);
            }
            "" => match world.enter() {
                Some(next) => {
                    world.count("connections lost", 1);
                    client = next;
                }
                None => return,
            },
            line => world.report(format!("to a set of {key}: {line:?}")),
        }
        world.rest(10);
        if world.is_over() {
            return;
        }
    }
}

/// Asks for large values and takes a long time to read them, or never does.
pub fn read_slowly(world: &World, seed: u64) {
    let mut random = Random::new(seed);
    let mut waiting = Vec::new();
    while let Some(mut client) = world.enter() {
        let keys: String = (0..6).map(|_| format!(" big{}", random.below(BIGS))).collect();
        client.send(format!("get{keys}\r\nmn\r\n").as_bytes());
        waiting.push(client);
        if waiting.len() == SLUGGARDS {
            let client = waiting.swap_remove(random.below(SLUGGARDS));
            match random.below(4) {
                0 => client.reset(),
                1 => world.count("clients that vanished", client.vanish().into()),
                _ => take_bigs(world, client),
            }
        }
        world.rest(20);
    }
}

fn take_bigs(world: &World, mut client: Client) {
    loop {
        let line = client.line();
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["END"] => {}
            ["MN"] => return world.count("slow readers satisfied", 1),
            ["VALUE", key, "0", len] if !client.cut_off => {
                let len: usize = len.parse().expect("a length");
                let value = client.take(len + 2);
                if value.len() < len + 2 {
                    return world.count("slow readers cut off", 1);
                }
                if !is_value_of(key, &value[..len]) || !value.ends_with(b"\r\n") {
                    return world.report(format!("{len} bytes that are not {key}'s"));
                }
                world.count("large values checked", 1);
            }
            _ if client.cut_off => return world.count("slow readers cut off", 1),
            _ => return world.report(format!("to a get of large values: {line:?}")),
        }
    }
}

/// Sends requests a byte at a time.
pub fn dribble(world: &World, seed: u64) {
    let mut random = Random::new(seed);
    let mut clients: Vec<(Client, String, usize)> = Vec::new();
    while !world.is_over() {
        if clients.len() < DRIBBLERS
            && let Some(client) = world.enter()
        {
            let request = format!("mg none k O{} v\r\n", random.below(1_000_000));
            clients.push((client, request, 0));
        }
        clients.retain_mut(|(client, request, at)| {
            client.send(&request.as_bytes()[*at..*at + 1]);
            *at += 1;
            if *at < request.len() {
                return true;
            }
            let opaque = request.split(' ').nth(3).expect("an opaque");
            match client.line() {
                line if line == format!("EN knone {opaque}") => world.count("lines dribbled", 1),
                line if line.is_empty() => world.count("connections lost", 1),
                line => world.report(format!("to {request:?}: {line:?}")),
            }
            false
        });
        world.rest(20);
    }
}

/// Opens and closes connections as fast as it can.
pub fn come_and_go(world: &World, seed: u64) {
    let mut random = Random::new(seed);
    while !world.is_over() {
        let Some(mut client) = world.connect() else { continue };
        match random.below(16) {
            0 => {
                world.is_served(&mut client);
                client.close();
            }
            1 => {
                client.send(b"set half 0 0 900000\r\nof a value");
                client.reset();
            }
            2 => client.close(),
            // No port is kept from the next ones by these.
            _ => client.reset(),
        }
        world.count("connections that came and went", 1);
    }
}

/// Takes all connections that there are, and tries for more.
pub fn flood(world: &World, seed: u64) {
    let mut random = Random::new(seed);
    while !world.is_over() {
        let (mut held, mut refused) = (Vec::new(), 0);
        while refused < REFUSALS && !world.is_over() {
            let Some(mut client) = world.connect() else { continue };
            match world.is_served(&mut client) {
                true => held.push(client),
                false => refused += 1,
            }
        }
        world.count("floods", 1);
        world.rest(random.below(200));
        for client in &mut held {
            client.send(b"mn\r\n");
            let line = client.line();
            if line != "MN" && !(line.is_empty() && client.cut_off) {
                world.report(format!("to mn: {line:?}"));
            }
        }
        drop(held);
        world.rest(300 + random.below(500));
    }
}
