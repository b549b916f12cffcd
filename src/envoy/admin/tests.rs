//! Exchanges with servers that answer in every way, well and badly.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::thread;

use rustix::event::PollFd;

use super::*;
use crate::envoy::connect::IdleConnection;
use crate::poll;

fn signals() -> Signals {
    Signals::install(false, None).unwrap()
}

/// Serves one connection, after its request has been read to its end.
fn serve(answer: impl FnOnce(&mut TcpStream, String) + Send + 'static) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/prefix", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            let mut byte = [0; 1];
            stream.read_exact(&mut byte).unwrap();
            request.push(char::from(byte[0]));
        }
        answer(&mut stream, request);
    });
    Address::new(&address).unwrap()
}

/// Goes through an exchange as the loop does.
fn finish(mut exchange: Exchange) -> Result<Vec<u8>, AdminError> {
    loop {
        let mut fds = [PollFd::new(&exchange, exchange.interest())];
        poll::wait(&mut fds, Some(exchange.deadline())).unwrap();
        if let Some(result) = exchange.on_ready(Instant::now()) {
            return result;
        }
    }
}

fn get(address: &mut Address) -> Result<String, AdminError> {
    let exchange = Exchange::get(address, "/stats?a=b", 1000, &signals(), Instant::now())?;
    finish(exchange).map(|body| String::from_utf8(body).unwrap())
}

/// Returns what becomes of an answer that arrives in pieces of each size.
fn answered(answer: &'static str) -> Result<String, AdminError> {
    let mut results = Vec::new();
    for size in [1, 7, answer.len()] {
        let mut address = serve(move |stream, _| {
            stream.set_nodelay(true).unwrap();
            for piece in answer.as_bytes().chunks(size) {
                // Who has heard enough closes the connection.
                let _ = stream.write_all(piece);
            }
        });
        results.push(get(&mut address));
    }
    let first = results.remove(0);
    assert!(
        results.iter().all(|result| *result == first),
        "{first:?}, {results:?}"
    );
    first
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

#[test]
fn a_request_names_its_host_and_ends_its_connection() {
    let (tell, told) = mpsc::channel();
    let mut address = serve(move |stream, request| {
        tell.send(request).unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
    });
    let url = address.url("");
    assert_eq!(get(&mut address).as_deref(), Ok("hi"));
    let host = url.split('/').nth(2).unwrap();
    let request = told.recv().unwrap();
    assert!(
        request.starts_with("GET /prefix/stats?a=b HTTP/1.1\r\n"),
        "{request}"
    );
    for header in [&format!("host: {host}\r\n"), "connection: close\r\n"] {
        assert!(request.contains(header), "{request}");
    }
}

#[test]
fn an_answer_is_taken_in_each_form_and_in_pieces_of_any_size() {
    for (answer, want) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello and more",
            "hello",
        ),
        ("HTTP/1.1 200 OK\r\n\r\nhello", "hello"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", ""),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
            "x",
        ),
    ] {
        assert_eq!(answered(answer).as_deref(), Ok(want), "{answer}");
    }
    for (chunks, want) in [
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        (
            "2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\ntrailer: 1\r\n\r\n",
            "hello",
        ),
        ("0\r\n\r\n", ""),
    ] {
        let answer = Box::leak(format!("{CHUNKED}{chunks}").into_boxed_str());
        assert_eq!(answered(answer).as_deref(), Ok(want), "{chunks}");
    }
}

#[test]
fn any_other_answer_is_an_error_that_says_which() {
    for (answer, want) in [
        (
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n",
            AdminError::Status(401),
        ),
        (
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 9\r\n\r\nforbidden",
            AdminError::Status(403),
        ),
        (
            "HTTP/1.1 404 Not Found\r\n\r\nwhat?",
            AdminError::Status(404),
        ),
        (
            "HTTP/1.1 426 Upgrade Required\r\n\r\n",
            AdminError::Status(426),
        ),
        (
            "HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n",
            AdminError::Status(302),
        ),
        ("HTTP/1.1 503 Unavailable\r\n\r\n", AdminError::Status(503)),
    ] {
        assert_eq!(answered(answer), Err(want), "{answer}");
    }
    for answer in [
        "SSH-2.0-OpenSSH_9.9\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let error = answered(answer);
        assert!(
            matches!(error, Err(AdminError::Malformed(_))),
            "{answer}: {error:?}"
        );
    }
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let error = answered(answer);
        assert!(
            matches!(error, Err(AdminError::Away(_))),
            "{answer}: {error:?}"
        );
    }
}

#[test]
fn an_answer_without_an_end_is_not_kept() {
    for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nx: "] {
        let (tell, told) = mpsc::channel();
        let mut address = serve(move |stream, _| {
            stream.write_all(head.as_bytes()).unwrap();
            let mut sent = 0;
            while sent < 100 << 20 && stream.write_all(&[b'x'; 1 << 16]).is_ok() {
                sent += 1 << 16;
            }
            tell.send(sent).unwrap();
        });
        assert_eq!(get(&mut address), Err(AdminError::TooLong));
        let sent = told.recv().unwrap();
        assert!(sent < 100 << 20, "{sent}");
    }
}

#[test]
fn who_does_not_answer_is_waited_for_without_holding_anybody_up() {
    let (tell, told) = mpsc::channel::<()>();
    let mut address = serve(move |_, _| {
        let _ = told.recv();
    });
    let began = Instant::now();
    let mut exchange = Exchange::get(&mut address, "/", 10, &signals(), began).unwrap();
    while exchange.interest() == PollFlags::OUT {
        assert_eq!(exchange.on_ready(began), None);
    }
    // Nothing is there to be read, and the answer's time is not over.
    assert_eq!(exchange.deadline(), began + ANSWERS_WITHIN);
    assert_eq!(exchange.on_ready(began + ANSWERS_WITHIN / 2), None);
    let late = exchange.on_ready(began + ANSWERS_WITHIN);
    assert_eq!(late, Some(Err(AdminError::NoAnswer(ANSWERS_WITHIN))));
    drop(tell);
}

#[test]
fn who_is_not_there_is_away_and_a_second_address_is_tried() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut nobody = Address::new(&format!("http://127.0.0.1:{port}")).unwrap();
    let error = get(&mut nobody);
    assert!(matches!(error, Err(AdminError::Away(_))), "{error:?}");
    let mut nobody = Address::new("unix:/nowhere/admin").unwrap();
    let error = get(&mut nobody);
    assert!(matches!(error, Err(AdminError::Away(_))), "{error:?}");

    // Only the second address of localhost has a server.
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return;
    };
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nv6")
            .unwrap();
    });
    let mut address = Address::new(&format!("http://localhost:{port}")).unwrap();
    assert_eq!(get(&mut address).as_deref(), Ok("v6"));
}

#[test]
fn a_connection_that_is_not_made_in_time_is_given_up() {
    // A queue of one, which is full, so that no further connection is made.
    let socket = net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None).unwrap();
    net::bind(&socket, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    net::listen(&socket, 0).unwrap();
    let listener = TcpListener::from(socket);
    let address = format!("http://{}", listener.local_addr().unwrap());
    let mut held = Vec::new();
    let now = Instant::now();
    let mut stuck = loop {
        let mut address = Address::new(&address).unwrap();
        let mut exchange = Exchange::get(&mut address, "/", 10, &signals(), now).unwrap();
        let mut fds = [PollFd::new(&exchange, PollFlags::OUT)];
        poll::wait(&mut fds, Some(Instant::now() + Duration::from_millis(100))).unwrap();
        if fds[0].revents().is_empty() {
            break exchange;
        }
        assert_eq!(exchange.on_ready(now), None);
        held.push(exchange);
    };
    assert_eq!(stuck.on_ready(now), None);
    let late = stuck.on_ready(now + CONNECTS_WITHIN);
    assert!(matches!(late, Some(Err(AdminError::Away(_)))), "{late:?}");
}

#[test]
fn a_path_is_asked_as_an_address_is_and_an_idle_connection_tells_its_end() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("admin");
    let listener = UnixListener::bind(&path).unwrap();
    let mut address = Address::new(&format!("unix:{}", path.display())).unwrap();
    let idle = IdleConnection::start(&mut address, &signals(), Instant::now()).unwrap();
    let (server_end, _) = listener.accept().unwrap();
    assert!(!idle.has_ended());
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1000];
        let length = stream.read(&mut request).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nby path").unwrap();
        tell.send(String::from_utf8_lossy(&request[..length]).into_owned())
            .unwrap();
    });
    assert_eq!(get(&mut address).as_deref(), Ok("by path"));
    let request = told.recv().unwrap();
    assert!(request.contains("\r\nhost: localhost\r\n"), "{request}");

    assert!(!poll::is_readable(&idle) && !idle.has_ended());
    drop(server_end);
    assert!(poll::is_readable(&idle) && idle.has_ended());
}
