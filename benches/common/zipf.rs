//! Popular numbers.

/// Numbers below a bound, popular by Zipf's law, the same ones for the same seed. With an exponent
/// of 0 all are as popular.
pub struct Zipf {
    /// Summed weights of the numbers up to each.
    sums: Vec<f64>,
    state: u64,
}

impl Zipf {
    pub fn new(bound: u64, exponent: f64, seed: u64) -> Zipf {
        let add = |sum: &mut f64, rank: u64| {
            *sum += (rank as f64).powf(-exponent);
            Some(*sum)
        };
        let sums = (1..=bound).scan(0.0, add).collect();
        Zipf { sums, state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) }
    }

    pub fn draw(&mut self) -> u64 {
        // Marsaglia's xorshift, which no state but 0 ends.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let share = (self.state >> 11) as f64 / (1u64 << 53) as f64;
        let goal = share * self.sums.last().expect("a key");
        self.sums.partition_point(|sum| *sum <= goal) as u64
    }
}
