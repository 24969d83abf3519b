//! A dump on its way to a client: a step a turn, so that others are served in between and a slow
//! reader costs no more than one step's bytes.

use super::{Connection, Desk, State};
use crate::command::{DumpCommand, DumpForm, Replies, Reply, Say, start_dump};
use crate::protocol::{self, Echo, Encoder};
use crate::store;

/// Bytes from which on a step ends.
const STEP_BYTES: usize = 32 << 10;
/// Lines of the index that one step looks at: few are of use to a dump of a rare class.
const STEP_LINES: usize = 256;

/// A dump that is not all sent.
pub(super) struct Dump {
    form: DumpForm,
    walk: store::Dump,
}

impl Connection {
    /// Starts a dump, or says why there is none.
    pub(super) fn start_dump(
        &mut self,
        command: DumpCommand<'_>,
        piped: bool,
        echo: Echo<'_>,
        desk: &mut Desk,
    ) {
        match start_dump(&desk.store, command, piped) {
            Ok(walk) => {
                desk.outbox.bytes().extend_from_slice(protocol::dump::OPENING);
                self.state = State::Dump(Box::new(Dump { form: command.form, walk }));
            }
            Err(error) => {
                Encoder::new(&mut desk.outbox, &echo).reply(Reply::Say(Say::Error(error)));
            }
        }
    }

    /// The next lines of the dump in hand.
    pub(super) fn go_on_with_dump(&mut self, desk: &mut Desk) {
        let State::Dump(dump) = &mut self.state else { return };
        let Dump { form, ref mut walk } = **dump;
        for _ in 0..STEP_LINES {
            let out = desk.outbox.bytes();
            if !walk.step(&desk.local, |item| protocol::dump::line(out, form, item)) {
                out.extend_from_slice(protocol::dump::ending(form));
                self.state = State::Command;
                return;
            }
            if out.len() >= STEP_BYTES {
                return;
            }
        }
    }
}
