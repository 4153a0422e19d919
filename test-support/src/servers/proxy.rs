//! A proxy between a server and its clients. It can break their connections.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::process::PATIENCE;

/// A proxy between a server and its clients. It counts round trips, and breaks connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    connections: Mutex<HashMap<u64, Connection>>,
    refuses: AtomicBool,
    is_over: AtomicBool,
    round_trips: AtomicU64,
    /// The address for new connections, if it is not the first server's.
    moved_to: Mutex<Option<SocketAddr>>,
    accepted: AtomicU64,
}

/// The two halves of a connection.
struct Connection {
    client: TcpStream,
    server: TcpStream,
    is_mute: Arc<AtomicBool>,
}

impl Proxy {
    /// A proxy in front of the server at this address.
    pub fn to(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server: SocketAddr = address.parse().unwrap();
        let shared = Arc::new(Shared::default());
        Self {
            address: listener.local_addr().unwrap(),
            shared: Arc::clone(&shared),
            acceptor: Some(thread::spawn(move || shared.accept(&listener, server))),
        }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Closes all connections. New ones still work.
    pub fn cut(&self) {
        for (_, connection) in self.shared.connections.lock().unwrap().drain() {
            connection.close();
        }
    }

    /// Drops what the server sends on the existing connections. A network that is about to break
    /// does the same.
    pub fn mute(&self) {
        for connection in self.shared.connections.lock().unwrap().values() {
            connection.is_mute.store(true, Ordering::SeqCst);
        }
    }

    /// Sets whether the proxy closes new connections at once.
    pub fn refuse(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::SeqCst);
    }

    /// How many times a client began to send, over all connections. A client begins at the start,
    /// and after each time that the server has sent something.
    pub fn round_trips(&self) -> u64 {
        self.shared.round_trips.load(Ordering::SeqCst)
    }

    /// Leads new connections to another server. The address of a managed primary does this after a
    /// failover.
    pub fn lead_to(&self, address: &str) {
        *self.shared.moved_to.lock().unwrap() = Some(address.parse().unwrap());
    }

    /// The number of all connections so far.
    pub fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // This wakes the thread that accepts connections.
        let _ = TcpStream::connect(self.address);
        let _ = self.acceptor.take().unwrap().join();
        self.cut();
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener, server: SocketAddr) {
        for id in 0.. {
            let accepted = listener.accept();
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            if self.refuses.load(Ordering::SeqCst) {
                continue;
            }
            self.accepted.fetch_add(1, Ordering::SeqCst);
            let server = self.moved_to.lock().unwrap().unwrap_or(server);
            // If the server cannot be reached, this closes the client's connection.
            if let Ok((client, _)) = accepted
                && let Ok(server) = TcpStream::connect_timeout(&server, PATIENCE)
            {
                let is_mute = Arc::default();
                let connection = Connection {
                    client,
                    server,
                    is_mute,
                };
                self.connect(id, connection);
            }
        }
    }

    /// Passes on what both sides send, until both have ended. Each side has a thread.
    fn connect(self: &Arc<Self>, id: u64, connection: Connection) {
        let (to_server, to_client) = (connection.clone(), connection.clone());
        self.connections.lock().unwrap().insert(id, connection);
        let shared = Arc::clone(self);
        thread::spawn(move || {
            let client_sends = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    to_server.pass_on(&to_server.client, &to_server.server, || {
                        if !client_sends.swap(true, Ordering::SeqCst) {
                            shared.round_trips.fetch_add(1, Ordering::SeqCst);
                        }
                        true
                    });
                });
                to_client.pass_on(&to_client.server, &to_client.client, || {
                    client_sends.store(false, Ordering::SeqCst);
                    !to_client.is_mute.load(Ordering::SeqCst)
                });
            });
            shared.connections.lock().unwrap().remove(&id);
        });
    }
}

impl Connection {
    /// Passes on what one side sends. Before each part, `passes` says whether to pass it on.
    fn pass_on(&self, mut from: &TcpStream, mut to: &TcpStream, passes: impl Fn() -> bool) {
        let _ = to.set_nodelay(true);
        let mut buffer = [0; 16 * 1024];
        loop {
            match from.read(&mut buffer) {
                // This side has ended. The other side may continue.
                Ok(0) => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(length) => {
                    if passes() && to.write_all(&buffer[..length]).is_err() {
                        return self.close();
                    }
                }
                Err(_) => return self.close(),
            }
        }
    }

    fn close(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    fn clone(&self) -> Self {
        Self {
            client: self.client.try_clone().unwrap(),
            server: self.server.try_clone().unwrap(),
            is_mute: Arc::clone(&self.is_mute),
        }
    }
}
