//! What the patterns came to, as it is shown, and the bounds that our server is held to.

use crate::rows::{Recovery, Row, Unit};
use std::path::Path;

/// Hits of ours that are enough, in times of the other's.
const ENOUGH: f64 = 0.97;
/// Time of ours to recover that is short enough, in times of the other's.
const SOON: f64 = 1.2;

pub struct Table;

impl Table {
    pub fn start(megabytes: u64, other: Option<&Path>) -> Table {
        let other = other.and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        println!("-m {megabytes}");
        print!("{:<26} {:>10} {other:>10} {:>8}", "row", "rustcached", "points");
        println!(" {:>12} {:>12} {:>6}  below", "recovered", "it", "times");
        Table
    }

    /// Prints the rows of a pattern; how many are below the bounds.
    pub fn print(&self, pattern: &str, ours: &[Row], its: Option<&[Row]>) -> usize {
        let its = |at: usize| its.map(|its| &its[at]);
        ours.iter().enumerate().filter(|(at, row)| print(pattern, row, its(*at))).count()
    }
}

/// Prints a row; true where it is below the bounds.
fn print(pattern: &str, ours: &Row, its: Option<&Row>) -> bool {
    let name = format!("{pattern} {}", ours.part);
    print!("{:<26} {:>10.2}", name.trim_end(), ours.share() * 100.0);
    let fewer = its.is_some_and(|its| ours.share() < ENOUGH * its.share());
    match its {
        Some(its) => {
            let points = (ours.share() - its.share()) * 100.0;
            print!(" {:>10.2} {points:>+8.2}", its.share() * 100.0);
        }
        None => print!(" {:>10} {:>8}", "-", "-"),
    }
    let slower = print_recovery(ours, its);
    if ours.within {
        println!("  within");
        return false;
    }
    let below = [(fewer, "hits"), (slower, "time")];
    let below = below.map(|(is, what)| if is { what } else { "" }).join(" ");
    println!("  {}", below.trim());
    fewer || slower
}

/// Prints when both have recovered; true where ours takes too long.
fn print_recovery(ours: &Row, its: Option<&Row>) -> bool {
    let other = its.and_then(|its| its.recovery.as_ref());
    let Some(recovery) = &ours.recovery else {
        print!(" {:>12} {:>12} {:>6}", "", "", "");
        return false;
    };
    let end = other.unwrap_or(recovery).end();
    let goal = recovery.goal.unwrap_or(ENOUGH * end);
    let reached = recovery.reached(goal);
    print!(" {:>12}", when(recovery, goal));
    let Some(other) = other else {
        print!(" {:>12} {:>6}", "-", "-");
        return false;
    };
    let times = reached / other.reached(goal);
    let times = if times.is_nan() { "-".into() } else { format!("{times:.2}") };
    print!(" {:>12} {times:>6}", when(other, goal));
    reached > SOON * other.reached(goal)
}

fn when(recovery: &Recovery, goal: f64) -> String {
    match (recovery.reached(goal), recovery.unit) {
        (f64::INFINITY, _) => "never".into(),
        (at, Unit::Seconds) => format!("{at:.2} s"),
        (at, Unit::Requests) => format!("{:.0}k req", at / 1000.0),
    }
}
