//! The least that a server of one thread can do for a get: it reads what came, and for every line
//! end writes an answer that was made beforehand. No parser, no store, no lock.

use crate::live::Dialect;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Result, Write};
use std::{env, fs, thread};

/// An argument of a process that is to be this server; it understands no other.
pub const ARGUMENT: &str = "--as-limit";

const LISTENER: Token = Token(usize::MAX);

/// Serves until the process is ended. Like memcached it writes its port to a file.
pub fn serve(dialect: &Dialect) -> Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    if let Some(file) = env::var_os("MEMCACHED_PORT_FILENAME") {
        fs::write(file, format!("TCP INET: {}\n", listener.local_addr()?.port()))?;
    }
    let (answer, mut input, mut output) = (dialect.answer(), vec![0; 64 << 10], Vec::new());
    let (mut clients, mut events) = (Vec::<Option<TcpStream>>::new(), Events::with_capacity(1024));
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                accept(&poll, &listener, &mut clients)?;
                continue;
            }
            let client = &mut clients[event.token().0];
            if client.as_mut().is_some_and(|c| echo(c, &mut input, &mut output, &answer).is_err()) {
                *client = None;
            }
        }
    }
}

fn accept(poll: &Poll, listener: &TcpListener, clients: &mut Vec<Option<TcpStream>>) -> Result<()> {
    while let Ok((mut client, _)) = listener.accept() {
        client.set_nodelay(true)?;
        poll.registry().register(&mut client, Token(clients.len()), Interest::READABLE)?;
        clients.push(Some(client));
    }
    Ok(())
}

/// Answers what one client sent; an error when it is gone.
fn echo(
    client: &mut TcpStream,
    input: &mut [u8],
    output: &mut Vec<u8>,
    answer: &[u8],
) -> Result<()> {
    loop {
        let len = match client.read(input) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        };
        output.clear();
        for _ in memchr::memchr_iter(b'\n', &input[..len]) {
            output.extend_from_slice(answer);
        }
        let mut sent = 0;
        while sent < output.len() {
            match client.write(&output[sent..]) {
                Ok(len) => sent += len,
                Err(e) if e.kind() == ErrorKind::WouldBlock => thread::yield_now(),
                Err(e) => return Err(e),
            }
        }
        if len < input.len() {
            return Ok(());
        }
    }
}
