//! A name server on port 53 of a network of the test's own: it knows one address, for any name.

use super::namespace::Namespace;
use super::stopwatch;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The reply to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The name has this address, and no IPv6 address.
    Address(Ipv4Addr),
    /// The same, after this time.
    Late(Ipv4Addr, Duration),
    /// The name does not exist.
    Unknown,
    /// There is never a reply.
    Silence,
}

/// The server, at 127.0.0.1.
pub struct NameServer {
    state: Arc<Mutex<(Reply, usize)>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The question of a query begins here, after the header.
const QUESTION: usize = 12;
/// The type of question that is answered: for IPv4 addresses.
const TYPE_A: [u8; 2] = [0, 1];

impl NameServer {
    /// Starts it in this network.
    #[track_caller]
    pub fn start(network: &Namespace, reply: Reply) -> NameServer {
        let socket = network.bind((Ipv4Addr::LOCALHOST, 53).into());
        let state = Arc::new(Mutex::new((reply, 0)));
        let stop = Arc::new(AtomicBool::new(false));
        let (served, stopped) = (state.clone(), stop.clone());
        let thread = stopwatch::spawn(move || serve(&socket, &served, &stopped));
        NameServer {
            state,
            stop,
            thread: Some(thread),
        }
    }

    /// Sets the reply from now on.
    pub fn set(&self, reply: Reply) {
        self.state.lock().expect("no panic").0 = reply;
    }

    /// Counts the questions for an address.
    pub fn count(&self) -> usize {
        self.state.lock().expect("no panic").1
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, state: &Mutex<(Reply, usize)>, stop: &AtomicBool) {
    let often = Some(Duration::from_millis(20));
    socket
        .set_read_timeout(often)
        .expect("a time-out can be set");
    let mut query = [0; 512];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut query) else {
            continue;
        };
        let query = &query[..length];
        let of_ipv4 = query.get(length - 4..length - 2) == Some(&TYPE_A);
        let reply = {
            let mut state = state.lock().expect("no panic");
            state.1 += usize::from(of_ipv4);
            state.0
        };
        if let (Reply::Late(_, after), true) = (reply, of_ipv4) {
            thread::sleep(after);
        }
        if let Some(answer) = answer(query, of_ipv4, reply) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// Returns a message by RFC 1035, section 4.1: the header, the question, and at most one answer.
fn answer(query: &[u8], of_ipv4: bool, reply: Reply) -> Option<Vec<u8>> {
    let (code, address) = match reply {
        Reply::Address(address) | Reply::Late(address, _) => (0, Some(address).filter(|_| of_ipv4)),
        Reply::Unknown => (3, None),
        Reply::Silence => return None,
    };
    let mut answer = query[..2].to_vec();
    let answers = u8::from(address.is_some());
    answer.extend([0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0]);
    answer.extend(&query[QUESTION..]);
    if let Some(address) = address {
        // The name is the question's; class IN, to be kept for a minute.
        answer.extend([0xc0, QUESTION as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
