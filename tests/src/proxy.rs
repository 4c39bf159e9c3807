use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// A TCP proxy between the program and a registry. It counts bytes and injects one fault at a chosen byte.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// The direction in which bytes are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the program to the registry.
    ToRegistry,
    /// From the registry to the program.
    ToClient,
}

/// A fault of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyFault {
    /// Closes the connection.
    Close,
    /// Closes all connections.
    CloseAll,
    /// Forwards no more bytes until [`Proxy::release`].
    Freeze,
    /// Forwards 512 bytes every 5 ms until [`Proxy::inject_after`] is called again.
    Throttle,
}

/// The bytes that [`ProxyFault::Throttle`] forwards at a time, and the pause before each.
const THROTTLED_BYTES: usize = 512;
const THROTTLE_PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The number of forwarded bytes in each direction.
    forwarded: [u64; 2],
    /// The fault to inject, and the direction and number of bytes after which it is injected.
    pending: Option<(Direction, u64, ProxyFault)>,
    has_injected: bool,
    frozen: bool,
    /// The throttled direction.
    throttled: Option<Direction>,
    closed: bool,
    /// The sockets of each connection: to the program and to the registry.
    connections: Vec<(TcpStream, TcpStream)>,
    /// How often all connections were closed. Older connections forward nothing.
    generation: u64,
    /// The number of threads that forward one direction of a connection.
    threads: usize,
}

impl Proxy {
    /// Starts a proxy for the registry at this address, without a fault.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub fn start(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared { server, state: Mutex::default(), changed: Condvar::new() });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.lock().closed {
                    return;
                }
                accepting.connect(client);
            }
        });
        Proxy { address, shared }
    }

    /// Resets the counters, and injects a fault once, after this many more bytes.
    pub fn inject_after(&self, direction: Direction, after: u64, fault: ProxyFault) {
        let mut state = self.shared.lock();
        state.forwarded = [0; 2];
        state.has_injected = false;
        state.throttled = None;
        state.pending = Some((direction, after, fault));
    }

    /// Returns host and port, as written in references.
    pub fn name(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// Returns the number of bytes that were forwarded since [`Proxy::inject_after`] was called, or since the start.
    pub fn forwarded_bytes(&self, direction: Direction) -> u64 {
        self.shared.lock().forwarded[direction as usize]
    }

    /// Returns whether the fault was injected.
    pub fn has_injected(&self) -> bool {
        self.shared.lock().has_injected
    }

    /// Closes all connections, waits until the registry has closed them too, and forwards new connections.
    pub fn release(&self) {
        let mut state = self.shared.lock();
        state.frozen = false;
        state.close_all();
        self.shared.changed.notify_all();
        while state.threads > 0 {
            state = self.shared.changed.wait(state).expect("no thread panics while it holds the lock");
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.release();
        // Wakes up the thread that accepts connections, which then ends.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn close_all(&mut self) {
        self.generation += 1;
        for (client, server) in self.connections.drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            // The registry still receives the bytes that were written before.
            let _ = server.shutdown(Shutdown::Write);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the lock")
    }

    fn connect(self: &Arc<Shared>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.server) else { return };
        // Nagle's algorithm would delay small responses.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let pair = || Ok::<_, io::Error>((client.try_clone()?, server.try_clone()?));
        let (Ok(sockets), Ok(up), Ok(down)) = (pair(), pair(), pair()) else { return };
        let generation = {
            let mut state = self.lock();
            state.connections.push(sockets);
            state.threads += 2;
            state.generation
        };
        let (upward, downward) = (self.clone(), self.clone());
        std::thread::spawn(move || upward.forward(up.0, up.1, Direction::ToRegistry, generation));
        std::thread::spawn(move || downward.forward(down.1, down.0, Direction::ToClient, generation));
    }

    /// Forwards bytes until the sender closes the connection or a fault ends it.
    fn forward(&self, mut from: TcpStream, mut to: TcpStream, direction: Direction, generation: u64) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let (passes, fault) = self.count(direction, read as u64, generation);
            let written = self.write(&mut to, &buffer[..passes as usize], direction);
            match fault {
                None | Some(ProxyFault::Freeze | ProxyFault::Throttle) => {}
                Some(ProxyFault::CloseAll) => self.lock().close_all(),
                Some(ProxyFault::Close) => break,
            }
            if written.is_err() && direction == Direction::ToRegistry {
                break;
            }
        }
        // The program's side is closed first, so that it does not receive the registry's response to the incomplete request.
        match direction {
            Direction::ToRegistry => {
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Write);
            }
            Direction::ToClient => {
                let _ = to.shutdown(Shutdown::Both);
                let _ = from.shutdown(Shutdown::Write);
                // When the registry closes its side, it has noticed the end.
                while from.read(&mut buffer).is_ok_and(|read| read > 0) {}
            }
        }
        self.lock().threads -= 1;
        self.changed.notify_all();
    }

    fn write(&self, to: &mut TcpStream, bytes: &[u8], direction: Direction) -> io::Result<()> {
        if self.lock().throttled != Some(direction) {
            return to.write_all(bytes);
        }
        bytes.chunks(THROTTLED_BYTES).try_for_each(|bytes| {
            std::thread::sleep(THROTTLE_PAUSE);
            to.write_all(bytes)
        })
    }

    /// Counts received bytes. Returns how many of them to forward, and the fault to inject after them.
    fn count(&self, direction: Direction, count: u64, generation: u64) -> (u64, Option<ProxyFault>) {
        let mut state = self.lock();
        while state.frozen {
            state = self.changed.wait(state).expect("no thread panics while it holds the lock");
        }
        if state.generation > generation {
            return (0, None);
        }
        let forwarded = state.forwarded[direction as usize];
        let (passes, fault) = match state.pending {
            Some((pending, after, fault)) if pending == direction && forwarded + count > after => {
                // Throttled bytes are forwarded too.
                let passes = if fault == ProxyFault::Throttle { count } else { after.saturating_sub(forwarded) };
                (passes, Some(fault))
            }
            _ => (count, None),
        };
        state.forwarded[direction as usize] += passes;
        if fault.is_some() {
            state.pending = None;
            state.has_injected = true;
            state.frozen = fault == Some(ProxyFault::Freeze);
            state.throttled = (fault == Some(ProxyFault::Throttle)).then_some(direction);
            self.changed.notify_all();
        }
        (passes, fault)
    }
}
