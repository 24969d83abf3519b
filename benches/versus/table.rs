//! What was measured, as it is shown, and held against what is needed.

use crate::live::{Figures, percentiles};
use crate::process::median;
use crate::rows::Row;
use clap::ValueEnum;
use std::process::ExitCode;
use std::str::FromStr;

/// A ratio that a row must have.
#[derive(Clone, Debug)]
pub struct Need {
    row: Row,
    /// A server, or another row of our own.
    of: String,
    ratio: f64,
}

impl FromStr for Need {
    type Err = String;

    fn from_str(text: &str) -> Result<Need, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let [row, of, ratio] = parts[..] else { return Err("ROW:NAME:RATIO".into()) };
        let ratio = ratio.parse().map_err(|_| format!("{ratio} is no number"))?;
        Ok(Need { row: Row::from_str(row, true)?, of: of.into(), ratio })
    }
}

/// One measurement, without the waits that it was made of.
struct Measured {
    ops: f64,
    cpu: f64,
    ticks: [u64; 2],
    waits: [f64; 3],
    gets: u64,
    hits: u64,
}

/// The rounds of one row of one server.
struct Line {
    row: Row,
    server: String,
    rounds: Vec<Measured>,
}

#[derive(Default)]
pub struct Table(Vec<Line>);

impl Table {
    pub fn add(&mut self, row: Row, server: &str, round: usize, mut figures: Figures) {
        let measured = Measured {
            ops: figures.ops(),
            cpu: figures.cpu_per_op(),
            ticks: figures.ticks,
            waits: percentiles(&mut figures.tally.waits, [0.5, 0.99, 0.999]),
            gets: figures.tally.gets,
            hits: figures.tally.hits,
        };
        if round == 0 {
            self.0.push(Line { row, server: server.into(), rounds: Vec::new() });
        }
        let line = self.0.iter_mut().find(|line| line.row == row && line.server == server);
        line.expect("a line of the first round").rounds.push(measured);
    }

    /// The servers of a row, ours first.
    fn lines(&self, row: Row) -> impl Iterator<Item = &Line> {
        self.0.iter().filter(move |line| line.row == row)
    }

    pub fn print(&self, rows: &[Row]) {
        println!(
            "{:<10} {:<12} {:>9} {:>8} {:>8} {:>7} {:>7} {:>7} {:>6} {:>8}",
            "row",
            "server",
            "ops/s",
            "user ns",
            "sys ns",
            "p50 us",
            "p99",
            "p99.9",
            "hit %",
            "ours/it"
        );
        for &row in rows {
            let ours = self.lines(row).next().expect("a line of ours");
            self.lines(row).for_each(|line| line.print(ours));
        }
    }

    /// The ratio to a server in the row, or to ours in another row.
    fn ratio(&self, row: Row, of: &str) -> Option<f64> {
        let ours = self.lines(row).next()?;
        let server = self.lines(row).find(|line| line.server == of);
        let other_row = || self.lines(Row::from_str(of, true).ok()?).next();
        Some(ours.ratio(server.or_else(other_row)?))
    }

    /// Says what falls short of its need.
    pub fn check(&self, needs: &[Need]) -> ExitCode {
        let mut all_hold = true;
        for Need { row, of, ratio } in needs {
            let row_name = row.name();
            match self.ratio(*row, of) {
                Some(have) if have >= *ratio => {}
                Some(have) => println!("{row_name} is {have:.2} of {of}, needs {ratio}"),
                None => println!("{row_name} was not measured beside {of}"),
            }
            all_hold &= self.ratio(*row, of).is_some_and(|have| have >= *ratio);
        }
        if all_hold { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl Line {
    fn median(&self, figure: impl Fn(&Measured) -> f64) -> f64 {
        median(self.rounds.iter().map(figure))
    }

    /// Operations in times of the other's, taken round by round.
    fn ratio(&self, other: &Line) -> f64 {
        median(self.rounds.iter().zip(&other.rounds).map(|(ours, its)| ours.ops / its.ops))
    }

    fn print(&self, ours: &Line) {
        let cpu = self.median(|round| round.cpu);
        let sum = |mode: usize| self.rounds.iter().map(|round| round.ticks[mode]).sum::<u64>();
        let user = cpu * sum(0) as f64 / (sum(0) + sum(1)).max(1) as f64;
        let [p50, p99, p999] = [0, 1, 2].map(|at| self.median(|round| round.waits[at]));
        let gets: u64 = self.rounds.iter().map(|round| round.gets).sum();
        let hits: u64 = self.rounds.iter().map(|round| round.hits).sum();
        let hit = match gets {
            0 => "-".into(),
            gets => format!("{:.2}", hits as f64 * 100.0 / gets as f64),
        };
        println!(
            "{:<10} {:<12} {:>9.0} {:>8.0} {:>8.0} {:>7.0} {:>7.0} {:>7.0} {hit:>6} {:>8.2}",
            self.row.name(),
            self.server,
            self.median(|round| round.ops),
            user,
            cpu - user,
            p50,
            p99,
            p999,
            ours.ratio(self)
        );
    }
}
