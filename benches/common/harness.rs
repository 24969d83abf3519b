//! What cargo adds to the command line of a bench.

use clap::Args;

#[derive(Args)]
pub struct Harness {
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true)]
    test: bool,
    #[arg(hide = true)]
    filter: Option<String>,
}

impl Harness {
    /// True unless the command line asks for other benches.
    pub fn wants(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()))
    }

    /// True where it is `cargo test` that runs this, and only wants to see it work.
    pub fn smoke(&self) -> bool {
        self.test || !self.bench
    }
}
