//! An HTTP server that returns prepared responses, in place of the services for signing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

/// Returns the prepared responses in order and then repeats the last one. An empty response closes the connection.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Service {
    pub(crate) fn answering(answers: Vec<Vec<u8>>) -> Service {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let service = Service { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let asked = service.asked.clone();
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
                let mut asked = asked.lock().unwrap();
                asked.push((head, String::from_utf8_lossy(&body).into_owned()));
                let answer = answers.get(asked.len() - 1).or(answers.last()).unwrap();
                let _ = client.write_all(answer);
            }
        });
        service
    }

    /// Returns head and body of each request received so far.
    pub(crate) fn asked(&self) -> Vec<(String, String)> {
        self.asked.lock().unwrap().clone()
    }
}

/// Returns a response with this status, such as `200 OK`.
pub(crate) fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}
