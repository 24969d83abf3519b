//! Chunk sizes: which classes there are and which class a size belongs to. Pure.

/// A slab class. 0 is none: a page of class 0 is free. Classes count from 1, as memcached's do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub u16);

impl ClassId {
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Page size and the ladder of chunk sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    page_size: u32,
    /// Bytes, ascending, with the tail; class n is at n - 1.
    sizes: Vec<u32>,
    /// Bytes at each chunk's end that are not for what the chunk holds.
    tail: u32,
    /// Class of each size up to [`TABLE_MAX`], in steps of 4 bytes.
    table: Vec<u16>,
}

const TABLE_MAX: usize = 8192;
/// Smallest chunk: an 8-byte header and room to speak of.
const CHUNK_MIN: u32 = 24;
const MIB: u32 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeometryError {
    /// The factor must be above 1.
    Factor,
    /// Sizes must ascend, be multiples of 4, at least 24, and fit a page.
    Sizes,
}

impl Geometry {
    /// The compact layout's ladder: sizes of page/k rounded down to 4 bytes, from `smallest` to
    /// page/8, each at most `factor` times the one before where there is such a k, else the next.
    /// Nothing is left over at a page's end that could have made the chunks larger.
    pub fn compact(page_size: u32, factor: f64, smallest: u32) -> Result<Geometry, GeometryError> {
        if factor.is_nan() || factor <= 1.0 {
            return Err(GeometryError::Factor);
        }
        let largest = page_size / 8;
        let mut sizes = Vec::new();
        let mut size = smallest.clamp(CHUNK_MIN, largest).next_multiple_of(4);
        while size < largest {
            sizes.push(size);
            // The fewest chunks whose size is still within one step, but fewer than before.
            let within_step = (f64::from(page_size) / (f64::from(size) * factor)).ceil() as u32;
            let per_page = within_step.min(page_size / (size + 4)).max(8);
            size = page_size / per_page / 4 * 4;
        }
        sizes.push(largest);
        Geometry::new(page_size, sizes)
    }

    /// memcached's ladder (`slabs_init` in its slabs.c): from 48 bytes of item header plus
    /// `chunk_size`, times `factor`, rounded up to 8, until the next would pass `chunk_max`.
    pub fn memcached(
        factor: f64,
        chunk_size: u32,
        chunk_max: u32,
    ) -> Result<Geometry, GeometryError> {
        if factor.is_nan() || factor <= 1.0 {
            return Err(GeometryError::Factor);
        }
        let mut sizes = Vec::new();
        let mut size = 48 + chunk_size;
        while f64::from(size) < f64::from(chunk_max) / factor {
            size = size.next_multiple_of(8);
            sizes.push(size);
            size = ((f64::from(size) * factor) as u32).max(size + 1);
        }
        sizes.push(chunk_max);
        Geometry::new(MIB, sizes)
    }

    /// memcached's `-o slab_sizes`, with `chunk_max` as the last.
    pub fn listed(sizes: &[u32], chunk_max: u32) -> Result<Geometry, GeometryError> {
        let mut sizes: Vec<u32> = sizes.iter().map(|s| s.next_multiple_of(8)).collect();
        sizes.push(chunk_max);
        sizes.dedup();
        Geometry::new(MIB, sizes)
    }

    /// Any ascending sizes.
    pub fn new(page_size: u32, sizes: Vec<u32>) -> Result<Geometry, GeometryError> {
        let fits = |s: &u32| *s >= CHUNK_MIN && *s <= page_size && s.is_multiple_of(4);
        let ascends = sizes.windows(2).all(|w| w[0] < w[1]);
        let many = sizes.len() > usize::from(u16::MAX - 1);
        if sizes.is_empty() || !sizes.iter().all(fits) || !ascends || many {
            return Err(GeometryError::Sizes);
        }
        let class_of = |size: usize| sizes.partition_point(|s| (*s as usize) < size) as u16 + 1;
        let table = (0..=TABLE_MAX / 4).map(|n| class_of(n * 4)).collect();
        Ok(Geometry { page_size, sizes, tail: 0, table })
    }

    /// The same ladder with `tail` bytes of each chunk, a multiple of 4 and less than the smallest,
    /// set aside at its end.
    pub fn with_tail(self, tail: u32) -> Geometry {
        debug_assert!(tail.is_multiple_of(4) && tail < CHUNK_MIN);
        Geometry { tail, ..self }
    }

    pub fn tail(&self) -> u32 {
        self.tail
    }

    pub fn page_size(&self) -> u32 {
        self.page_size
    }

    /// All classes, smallest chunks first.
    pub fn classes(&self) -> impl DoubleEndedIterator<Item = ClassId> + use<> {
        (1..=self.sizes.len() as u16).map(ClassId)
    }

    /// The class with the largest chunks.
    pub fn largest(&self) -> ClassId {
        ClassId(self.sizes.len() as u16)
    }

    /// Bytes that a chunk of `class` holds.
    #[inline]
    pub fn chunk_size(&self, class: ClassId) -> u32 {
        self.whole_size(class) - self.tail
    }

    /// Bytes from a chunk of `class` to the next, with its tail.
    #[inline]
    pub fn whole_size(&self, class: ClassId) -> u32 {
        self.sizes[class.index() - 1]
    }

    #[inline]
    pub fn chunks_per_page(&self, class: ClassId) -> u32 {
        self.page_size / self.whole_size(class)
    }

    /// The smallest class whose chunks hold `size` bytes.
    #[inline]
    pub fn class_for(&self, size: usize) -> Option<ClassId> {
        let size = size + self.tail as usize;
        let class = if size <= TABLE_MAX {
            self.table[size.div_ceil(4)]
        } else {
            self.sizes.partition_point(|s| (*s as usize) < size) as u16 + 1
        };
        (usize::from(class) <= self.sizes.len()).then_some(ClassId(class))
    }
}

// Arithmetic alone: much work for Miri, and nothing to find.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn memcached_default_ladder() {
        let g = Geometry::memcached(1.25, 48, 524_288).unwrap();
        let sizes: Vec<u32> = g.classes().map(|c| g.chunk_size(c)).collect();
        assert_eq!(&sizes[..6], &[96, 120, 152, 192, 240, 304]);
        assert_eq!(sizes.len(), 39);
        assert_eq!((sizes[30], sizes[37], sizes[38]), (82_792, 394_840, 524_288));
        assert_eq!(g.class_for(96), Some(ClassId(1)));
        assert_eq!(g.class_for(97), Some(ClassId(2)));
        assert_eq!(g.class_for(524_289), None);
        assert_eq!(g.class_for(82_792), Some(ClassId(31)));
    }

    /// What memcached 1.6.45 prints with -vv: factor, -n, largest chunk, classes, and of those but
    /// the largest: the last size, the sum of the sizes, the sum of the chunks per page. It stops
    /// at 63 classes, where ours goes on.
    const OF_MEMCACHED: [(f64, u32, u32, usize, u32, u32, u32); 15] = [
        (1.25, 48, 524_288, 39, 394_840, 1_973_448, 53_391),
        (1.08, 48, 524_288, 63, 13_800, 182_888, 130_283),
        (1.5, 48, 524_288, 22, 327_712, 982_864, 32_572),
        (2.0, 48, 524_288, 13, 196_608, 393_120, 21_834),
        (1.25, 1, 524_288, 41, 394_840, 1_973_576, 86_678),
        (1.1, 5, 524_288, 63, 26_696, 291_400, 176_725),
        (1.25, 500, 524_288, 31, 367_192, 1_833_416, 9_336),
        (1.3, 100, 524_288, 31, 323_160, 1_399_592, 29_202),
        (1.25, 48, 16_384, 23, 11_104, 54_952, 53_032),
        (1.25, 48, 1_048_576, 42, 771_184, 3_855_128, 53_395),
        (1.25, 48, 1_024, 11, 752, 3_320, 47_892),
        (1.07, 20, 65_536, 63, 6_544, 96_736, 184_818),
        (1.02, 48, 524_288, 63, 712, 22_168, 239_676),
        (1.25, 400_000, 524_288, 2, 400_048, 400_048, 2),
        (10.0, 48, 524_288, 4, 9_600, 10_656, 12_123),
    ];

    #[test]
    fn ladders_are_memcacheds_to_the_last_figure() {
        for (factor, chunk_size, chunk_max, classes, last, sum, per_page) in OF_MEMCACHED {
            let g = Geometry::memcached(factor, chunk_size, chunk_max).unwrap();
            let (of_sizes, name) =
                (&g.sizes[..classes - 1], format!("-f {factor} -n {chunk_size}"));
            assert_eq!(of_sizes.last(), Some(&last), "{name}");
            assert_eq!(of_sizes.iter().sum::<u32>(), sum, "{name}");
            let ids = g.classes().take(classes - 1);
            assert_eq!(ids.map(|c| g.chunks_per_page(c)).sum::<u32>(), per_page, "{name}");
            assert_eq!(g.chunk_size(g.largest()), chunk_max, "{name}");
            assert!(g.sizes.len() == classes || classes == 63, "{name}: {}", g.sizes.len());
        }
        assert_eq!(Geometry::memcached(1.02, 48, 524_288).unwrap().classes().count(), 386);
    }

    #[test]
    fn compact_ladder_grows_by_the_factor_and_wastes_no_page_end() {
        let g = Geometry::compact(65_536, 1.12, 24).unwrap();
        let sizes: Vec<u32> = g.classes().map(|c| g.chunk_size(c)).collect();
        assert_eq!((sizes[0], *sizes.last().unwrap()), (24, 8192));
        for pair in sizes.windows(2) {
            let step = f64::from(pair[1]) / f64::from(pair[0]);
            let next = 65_536 / (65_536 / pair[0] - 1) / 4 * 4;
            assert!(step <= 1.12 || pair[1] - pair[0] <= 4 || pair[1] == next, "{pair:?}");
        }
        for class in g.classes() {
            let used = g.chunks_per_page(class) * g.chunk_size(class);
            assert!(65_536 - used < 4 * g.chunks_per_page(class), "class {class:?}");
        }
        assert_eq!(g.class_for(8193), None);
    }

    #[test]
    fn every_size_has_the_smallest_class_that_holds_it() {
        for g in [
            Geometry::compact(65_536, 1.12, 24).unwrap(),
            Geometry::memcached(1.25, 48, 16_384).unwrap(),
            Geometry::compact(65_536, 1.12, 24).unwrap().with_tail(4),
        ] {
            for size in 0..20_000usize {
                let expected = g.classes().find(|c| g.chunk_size(*c) as usize >= size);
                assert_eq!(g.class_for(size), expected, "size {size}");
            }
        }
    }

    #[test]
    fn bad_ladders_are_refused() {
        assert_eq!(Geometry::compact(65_536, 1.0, 24), Err(GeometryError::Factor));
        assert_eq!(Geometry::memcached(f64::NAN, 48, 524_288), Err(GeometryError::Factor));
        assert_eq!(Geometry::new(65_536, vec![32, 24]), Err(GeometryError::Sizes));
        assert_eq!(Geometry::new(65_536, vec![]), Err(GeometryError::Sizes));
        assert_eq!(Geometry::new(65_536, vec![70_000]), Err(GeometryError::Sizes));
    }
}
