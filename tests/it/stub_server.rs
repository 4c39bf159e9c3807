//! An HTTP server that returns prepared responses, in place of the services for signing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

/// Returns the prepared responses in order and then repeats the last one. An empty response closes the connection.
pub(crate) struct StubServer {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<(String, String)>>>,
}

impl StubServer {
    pub(crate) fn start(responses: Vec<Vec<u8>>) -> StubServer {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let server = StubServer { address: listener.local_addr().unwrap(), requests: Arc::default() };
        let requests = server.requests.clone();
        // The thread runs until the process ends.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                let mut reader = BufReader::new(client.try_clone().unwrap());
                let (mut head, mut length) = (String::new(), 0);
                while reader.read_line(&mut head).unwrap() > 2 {
                    let line = head.lines().last().unwrap().to_lowercase();
                    length = line.strip_prefix("content-length: ").map_or(length, |value| value.parse().unwrap());
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let mut requests = requests.lock().unwrap();
                requests.push((head, String::from_utf8_lossy(&body).into_owned()));
                let response = responses.get(requests.len() - 1).or(responses.last()).unwrap();
                let _ = client.write_all(response);
            }
        });
        server
    }

    /// Returns head and body of each request received so far.
    pub(crate) fn requests(&self) -> Vec<(String, String)> {
        self.requests.lock().unwrap().clone()
    }
}

/// Returns a response with this status, such as `200 OK`.
pub(crate) fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}
