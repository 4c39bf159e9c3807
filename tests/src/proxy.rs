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
pub enum Way {
    /// From the program to the registry.
    Up,
    /// From the registry to the program.
    Down,
}

/// A fault of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Closes the connection.
    Cut,
    /// Closes all connections.
    CutAll,
    /// Forwards no more bytes until [`Proxy::release`].
    Freeze,
    /// Forwards 512 bytes every 5 ms until [`Proxy::misbehave`] is called again.
    Drip,
}

/// The bytes that [`Trouble::Drip`] forwards at a time, and the pause before each.
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
    passed: [u64; 2],
    /// The fault to inject, and the direction and number of bytes after which it is injected.
    pending: Option<(Way, u64, Trouble)>,
    happened: bool,
    frozen: bool,
    /// The throttled direction.
    throttled: Option<Way>,
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
    pub fn before(server: SocketAddr) -> Proxy {
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
    pub fn misbehave(&self, way: Way, after: u64, trouble: Trouble) {
        let mut state = self.shared.lock();
        state.passed = [0; 2];
        state.happened = false;
        state.throttled = None;
        state.pending = Some((way, after, trouble));
    }

    /// Returns host and port, as written in references.
    pub fn name(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// Returns the number of bytes that were forwarded since [`Proxy::misbehave`] was called, or since the start.
    pub fn passed(&self, way: Way) -> u64 {
        self.shared.lock().passed[way as usize]
    }

    /// Returns whether the fault was injected.
    pub fn happened(&self) -> bool {
        self.shared.lock().happened
    }

    /// Closes all connections, waits until the registry has closed them too, and forwards new connections.
    pub fn release(&self) {
        let mut state = self.shared.lock();
        state.frozen = false;
        state.cut_all();
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
    fn cut_all(&mut self) {
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
        std::thread::spawn(move || upward.forward(up.0, up.1, Way::Up, generation));
        std::thread::spawn(move || downward.forward(down.1, down.0, Way::Down, generation));
    }

    /// Forwards bytes until the sender closes the connection or a fault ends it.
    fn forward(&self, mut from: TcpStream, mut to: TcpStream, way: Way, generation: u64) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let (passes, trouble) = self.count(way, read as u64, generation);
            let written = self.write(&mut to, &buffer[..passes as usize], way);
            match trouble {
                None | Some(Trouble::Freeze | Trouble::Drip) => {}
                Some(Trouble::CutAll) => self.lock().cut_all(),
                Some(Trouble::Cut) => break,
            }
            if written.is_err() && way == Way::Up {
                break;
            }
        }
        // The program's side is closed first, so that it does not receive the registry's response to the incomplete request.
        match way {
            Way::Up => {
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Write);
            }
            Way::Down => {
                let _ = to.shutdown(Shutdown::Both);
                let _ = from.shutdown(Shutdown::Write);
                // When the registry closes its side, it has noticed the end.
                while from.read(&mut buffer).is_ok_and(|read| read > 0) {}
            }
        }
        self.lock().threads -= 1;
        self.changed.notify_all();
    }

    fn write(&self, to: &mut TcpStream, bytes: &[u8], way: Way) -> io::Result<()> {
        if self.lock().throttled != Some(way) {
            return to.write_all(bytes);
        }
        bytes.chunks(THROTTLED_BYTES).try_for_each(|bytes| {
            std::thread::sleep(THROTTLE_PAUSE);
            to.write_all(bytes)
        })
    }

    /// Counts received bytes. Returns how many of them to forward, and the fault to inject after them.
    fn count(&self, way: Way, count: u64, generation: u64) -> (u64, Option<Trouble>) {
        let mut state = self.lock();
        while state.frozen {
            state = self.changed.wait(state).expect("no thread panics while it holds the lock");
        }
        if state.generation > generation {
            return (0, None);
        }
        let passed = state.passed[way as usize];
        let (passes, trouble) = match state.pending {
            Some((pending, after, trouble)) if pending == way && passed + count > after => {
                // Throttled bytes are forwarded too.
                let passes = if trouble == Trouble::Drip { count } else { after.saturating_sub(passed) };
                (passes, Some(trouble))
            }
            _ => (count, None),
        };
        state.passed[way as usize] += passes;
        if trouble.is_some() {
            state.pending = None;
            state.happened = true;
            state.frozen = trouble == Some(Trouble::Freeze);
            state.throttled = (trouble == Some(Trouble::Drip)).then_some(way);
            self.changed.notify_all();
        }
        (passes, trouble)
    }
}
