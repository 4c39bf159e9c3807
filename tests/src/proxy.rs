use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Stands between a program and a registry, counts what passes, and misbehaves once at a byte that is chosen beforehand.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    line: Arc<Line>,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the program to the registry.
    Up,
    /// From the registry to the program.
    Down,
}

/// What happens when as many bytes have passed as were chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The connection ends.
    Cut,
    /// All connections end.
    CutAll,
    /// Nothing passes any more, until [`Proxy::release`].
    Freeze,
    /// From then on few bytes pass at a time, until [`Proxy::misbehave`] is called again.
    Drip,
}

/// How many bytes pass at a time where they drip, and how long it takes until the next do.
const DROP: usize = 512;
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug)]
struct Line {
    server: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many bytes passed, up and down.
    passed: [u64; 2],
    trap: Option<(Way, u64, Trouble)>,
    happened: bool,
    frozen: bool,
    /// The way on which bytes drip.
    dripping: Option<Way>,
    closed: bool,
    /// Both ends of what is connected: the program's, the registry's.
    connections: Vec<(TcpStream, TcpStream)>,
    /// How often all connections were cut; what is older than the last time carries nothing any more.
    generation: u64,
    /// How many directions of connections have not come to their end.
    open: usize,
}

impl Proxy {
    /// A proxy before the registry at this address, which does as it should.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub fn before(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let line = Arc::new(Line { server, state: Mutex::default(), changed: Condvar::new() });
        let accepting = line.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.lock().closed {
                    return;
                }
                accepting.connect(client);
            }
        });
        Proxy { address, line }
    }

    /// Misbehaves once, when so many bytes have passed from now on.
    pub fn misbehave(&self, way: Way, after: u64, trouble: Trouble) {
        let mut state = self.line.lock();
        state.passed = [0; 2];
        state.happened = false;
        state.dripping = None;
        state.trap = Some((way, after, trouble));
    }

    /// Its name in references.
    pub fn name(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// How many bytes have passed since it was told to misbehave, or at all.
    pub fn passed(&self, way: Way) -> u64 {
        self.line.lock().passed[way as usize]
    }

    /// Whether it has misbehaved.
    pub fn happened(&self) -> bool {
        self.line.lock().happened
    }

    /// Ends all connections, waits until the registry has seen that, and lets bytes pass again on new ones.
    pub fn release(&self) {
        let mut state = self.line.lock();
        state.frozen = false;
        state.cut_all();
        self.line.changed.notify_all();
        while state.open > 0 {
            state = self.line.changed.wait(state).expect("no thread fails while it holds this");
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.line.lock().closed = true;
        self.release();
        // So that whoever waits for connections sees that there will be none.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn cut_all(&mut self) {
        self.generation += 1;
        for (client, server) in self.connections.drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            // What was written before arrives before the end does.
            let _ = server.shutdown(Shutdown::Write);
        }
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread fails while it holds this")
    }

    fn connect(self: &Arc<Line>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.server) else { return };
        // Small answers would wait for each other otherwise.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let pair = || Ok::<_, io::Error>((client.try_clone()?, server.try_clone()?));
        let (Ok(ends), Ok(up), Ok(down)) = (pair(), pair(), pair()) else { return };
        let generation = {
            let mut state = self.lock();
            state.connections.push(ends);
            state.open += 2;
            state.generation
        };
        let (upward, downward) = (self.clone(), self.clone());
        std::thread::spawn(move || upward.carry(up.0, up.1, Way::Up, generation));
        std::thread::spawn(move || downward.carry(down.1, down.0, Way::Down, generation));
    }

    /// Moves bytes until one end has no more, or something happens.
    fn carry(&self, mut from: TcpStream, mut to: TcpStream, way: Way, generation: u64) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let (passes, trouble) = self.pass(way, read as u64, generation);
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
        // The program first, so that it hears nothing of what the registry says to the end.
        match way {
            Way::Up => {
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Write);
            }
            Way::Down => {
                let _ = to.shutdown(Shutdown::Both);
                let _ = from.shutdown(Shutdown::Write);
                // The registry has seen the end when it ends its side too.
                while from.read(&mut buffer).is_ok_and(|read| read > 0) {}
            }
        }
        self.lock().open -= 1;
        self.changed.notify_all();
    }

    fn write(&self, to: &mut TcpStream, bytes: &[u8], way: Way) -> io::Result<()> {
        if self.lock().dripping != Some(way) {
            return to.write_all(bytes);
        }
        bytes.chunks(DROP).try_for_each(|bytes| {
            std::thread::sleep(PAUSE);
            to.write_all(bytes)
        })
    }

    /// How many of the bytes that have come may pass, and what happens then.
    fn pass(&self, way: Way, count: u64, generation: u64) -> (u64, Option<Trouble>) {
        let mut state = self.lock();
        while state.frozen {
            state = self.changed.wait(state).expect("no thread fails while it holds this");
        }
        if state.generation > generation {
            return (0, None);
        }
        let passed = state.passed[way as usize];
        let (passes, trouble) = match state.trap {
            Some((trapped, after, trouble)) if trapped == way && passed + count > after => {
                // What drips all passes in the end.
                let passes = if trouble == Trouble::Drip { count } else { after.saturating_sub(passed) };
                (passes, Some(trouble))
            }
            _ => (count, None),
        };
        state.passed[way as usize] += passes;
        if trouble.is_some() {
            state.trap = None;
            state.happened = true;
            state.frozen = trouble == Some(Trouble::Freeze);
            state.dripping = (trouble == Some(Trouble::Drip)).then_some(way);
            self.changed.notify_all();
        }
        (passes, trouble)
    }
}
