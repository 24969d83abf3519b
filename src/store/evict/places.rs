//! A queue of chunks in blocks: one that lay in one piece would be copied as it grows, and its
//! class locked for milliseconds meanwhile.

use slab::ChunkRef;
use std::collections::VecDeque;

/// Places in a block, of which the first grows as it fills.
pub(super) const BLOCK: usize = 1024;

#[derive(Default)]
pub(super) struct Places {
    /// None is empty, and none has more than [`BLOCK`].
    blocks: VecDeque<VecDeque<ChunkRef>>,
    len: usize,
}

impl Places {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn front(&self) -> Option<ChunkRef> {
        self.blocks.front()?.front().copied()
    }

    /// The place that so many come before.
    pub fn get(&self, at: usize) -> Option<ChunkRef> {
        match self.blocks.front()?.get(at) {
            Some(chunk) => Some(*chunk),
            None => self.iter().nth(at),
        }
    }

    pub fn push_back(&mut self, chunk: ChunkRef) {
        self.len += 1;
        match self.blocks.back_mut() {
            Some(block) if block.len() < BLOCK => block.push_back(chunk),
            last => {
                let mut block = VecDeque::with_capacity(if last.is_some() { BLOCK } else { 0 });
                block.push_back(chunk);
                self.blocks.push_back(block);
            }
        }
    }

    pub fn push_front(&mut self, chunk: ChunkRef) {
        self.len += 1;
        match self.blocks.front_mut() {
            Some(block) if block.len() < BLOCK => block.push_front(chunk),
            _ => self.blocks.push_front(VecDeque::from([chunk])),
        }
    }

    pub fn pop_front(&mut self) -> Option<ChunkRef> {
        let block = self.blocks.front_mut()?;
        let chunk = block.pop_front();
        if block.is_empty() {
            self.blocks.pop_front();
        }
        self.len -= 1;
        chunk
    }

    /// Keeps what is wanted, in its order.
    pub fn retain(&mut self, wanted: impl Fn(ChunkRef) -> bool) {
        for block in &mut self.blocks {
            block.retain(|chunk| wanted(*chunk));
            if block.len() < block.capacity() / 2 {
                block.shrink_to_fit();
            }
        }
        self.blocks.retain(|block| !block.is_empty());
        self.len = self.blocks.iter().map(VecDeque::len).sum();
    }

    pub fn iter(&self) -> impl Iterator<Item = ChunkRef> {
        self.blocks.iter().flatten().copied()
    }

    /// Places that there is memory for.
    pub fn capacity(&self) -> usize {
        self.blocks.iter().map(VecDeque::capacity).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Op {
        Back(usize),
        Front(usize),
        Pop(usize),
        Retain(u32),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0..3 * BLOCK).prop_map(Op::Back),
            (0..2 * BLOCK).prop_map(Op::Front),
            (0..3 * BLOCK).prop_map(Op::Pop),
            (1..9u32).prop_map(Op::Retain),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn they_are_a_queue_and_take_no_more_memory_than_they_need(
            ops in prop::collection::vec(op(), 1..12),
        ) {
            let (mut places, mut model) = (Places::default(), VecDeque::new());
            let mut numbers = (1..).map(|n| ChunkRef::from_u32(n).expect("not 0"));
            for op in ops {
                match op {
                    Op::Back(count) => numbers.by_ref().take(count).for_each(|chunk| {
                        places.push_back(chunk);
                        model.push_back(chunk);
                    }),
                    Op::Front(count) => numbers.by_ref().take(count).for_each(|chunk| {
                        places.push_front(chunk);
                        model.push_front(chunk);
                    }),
                    Op::Pop(count) => (0..count).for_each(|_| {
                        assert_eq!(places.pop_front(), model.pop_front());
                    }),
                    Op::Retain(nth) => {
                        places.retain(|chunk| chunk.to_u32() % nth != 0);
                        model.retain(|chunk| chunk.to_u32() % nth != 0);
                    }
                }
                assert_eq!((places.len(), places.is_empty()), (model.len(), model.is_empty()));
                assert_eq!(places.front(), model.front().copied());
                assert_eq!(places.get(1000), model.get(1000).copied());
                assert!(places.iter().eq(model.iter().copied()));
                assert!(places.capacity() <= 2 * places.len() + 3 * BLOCK);
            }
        }
    }
}
