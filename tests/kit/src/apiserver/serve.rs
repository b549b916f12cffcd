//! Connections and bodies, on the server's thread. Must not decide what is answered.

use super::faults::{self, Fault};
use super::request::Request;
use super::route::{self, Answer, Reply};
use super::watches::Part;
use super::wire::{Limit, Metered, SharedLimit, Stream};
use super::{Dialect, Shared};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// An order to a connection besides answering.
pub enum Command {
    /// Send these bytes as they are, then close.
    Raw(Vec<u8>),
    /// Close.
    Close,
    /// Reset.
    Reset,
}

/// Serves one connection, over TLS where the server has it.
pub async fn connect(shared: Arc<Shared>, socket: TcpStream) {
    let acceptor = shared.lock().acceptor.clone();
    match acceptor {
        None => converse(shared, socket).await,
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(socket).await {
                converse(shared, stream).await;
            }
        }
    }
}

async fn converse<S: Stream>(shared: Arc<Shared>, stream: S) {
    let (commands, mut orders) = unbounded_channel();
    let limit = SharedLimit::default();
    let id = shared.update(|state| {
        state.next_connection += 1;
        let id = (!state.away).then_some(state.next_connection)?;
        state.connections.insert(id, commands.clone());
        Some(id)
    });
    let Some(id) = id else { return };
    let link = Link {
        shared: shared.clone(),
        id,
        limit: limit.clone(),
        commands: commands.clone(),
    };
    let service = service_fn(|request| {
        let link = link.clone();
        async move { Ok::<_, Infallible>(link.handle(request).await) }
    });
    let io = TokioIo::new(Metered {
        inner: stream,
        limit,
        commands,
    });
    let mut builder = http1::Builder::new();
    let mut connection = builder
        .title_case_headers(true)
        .serve_connection(io, service);
    let order = tokio::select! {
        _ = Pin::new(&mut connection) => None,
        order = orders.recv() => order,
    };
    let mut stream = connection.into_parts().io.into_inner().inner;
    match order {
        Some(Command::Raw(bytes)) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Some(Command::Reset) => {
            let _ = stream.socket().set_zero_linger();
        }
        Some(Command::Close) | None => {}
    }
    shared.update(|state| {
        state.connections.remove(&id);
        state.store.watches.retain(|watch| watch.connection != id);
    });
}

/// One connection, as its answers see it.
#[derive(Clone)]
struct Link {
    shared: Arc<Shared>,
    id: u64,
    limit: SharedLimit,
    commands: UnboundedSender<Command>,
}

impl Link {
    async fn handle(&self, request: hyper::Request<Incoming>) -> Response<Content> {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            return pending().await; // The client is gone.
        };
        let text = |name: &str| {
            let value = head.headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_string()
        };
        let mut request = Request {
            number: 0,
            connection: self.id,
            at: Instant::now(),
            method: head.method.to_string(),
            target: head.uri.to_string(),
            accept: text("accept"),
            content_type: text("content-type"),
            user_agent: text("user-agent"),
            token: text("authorization")
                .strip_prefix("Bearer ")
                .map(str::to_string),
            body: body.to_bytes().to_vec(),
            status: 0,
        };
        let _flight = Flight::begin(&self.shared);
        let fault = self.shared.update(|state| {
            request.number = state.requests.len() + 1;
            state.requests.push(request.clone());
            faults::strike(&mut state.script, &request)
        });
        match fault {
            Some(Fault::Freeze) => pending().await,
            Some(Fault::Raw(bytes)) => {
                let _ = self.commands.send(Command::Raw(bytes));
                pending().await
            }
            Some(Fault::Answer {
                status,
                headers,
                body,
            }) => self.scripted(&request, status, headers, body),
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                self.answer(&request, false)
            }
            Some(Fault::After { body_bytes, then }) => {
                let limit = Limit {
                    body_bytes,
                    then,
                    in_body: false,
                };
                *self.limit.lock().expect("nobody panics with it") = Some(limit);
                self.answer(&request, false)
            }
            Some(Fault::EndAtOnce) => self.answer(&request, true),
            None => self.answer(&request, false),
        }
    }

    fn answer(&self, request: &Request, end_at_once: bool) -> Response<Content> {
        let Answer {
            status,
            content_type,
            body,
        } = self.shared.update(|state| {
            let mut answer = route::answer(state, request);
            if let Reply::Stream {
                parts,
                watch: Some(id),
                ..
            } = &mut answer.body
                && end_at_once
            {
                while parts.try_recv().is_ok() {}
                state.store.end_silently(*id);
            }
            state.answered(request.number, answer.status);
            answer
        });
        let mut headers = vec![("content-type", content_type)];
        if status == 403 || content_type.starts_with("text/plain") {
            headers.push(("x-content-type-options", "nosniff"));
        }
        let content = match body {
            Reply::Whole(bytes) => Content::Whole(Some(bytes.into())),
            Reply::Stream { parts, watch, time } => {
                if let Some(id) = watch {
                    tokio::spawn(keep(self.shared.clone(), id, time));
                }
                let guard = watch.map(|id| Guard {
                    shared: self.shared.clone(),
                    id,
                });
                Content::Stream { parts, guard }
            }
        };
        self.respond(request, status, &headers, content)
    }

    fn scripted(
        &self,
        request: &Request,
        status: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    ) -> Response<Content> {
        self.shared
            .update(|state| state.answered(request.number, status));
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        self.respond(request, status, &headers, Content::Whole(Some(body.into())))
    }

    fn respond(
        &self,
        request: &Request,
        status: u16,
        headers: &[(&str, &str)],
        content: Content,
    ) -> Response<Content> {
        let old = self.shared.lock().dialect == Dialect::V1_20;
        // A 401 comes before flow control, which knew no watches once.
        let flow = status != 401 && !(old && request.is_watch());
        respond(status, headers, !old, flow, content)
    }
}

/// Returns the headers in the real server's order: with those of auditing and of flow control, or
/// without.
fn respond(
    status: u16,
    headers: &[(&str, &str)],
    audit: bool,
    flow: bool,
    content: Content,
) -> Response<Content> {
    let mut map = HeaderMap::new();
    let mut add = |name: &str, value: &str| {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
        map.append(
            name,
            HeaderValue::from_str(value).expect("a header's value"),
        );
    };
    if audit {
        add("audit-id", &super::write::new_uid());
    }
    add("cache-control", "no-cache, private");
    for (name, value) in headers {
        add(name, value);
    }
    if flow {
        add(
            "x-kubernetes-pf-flowschema-uid",
            "4750cbcf-e922-4ce5-8d18-1cd7f7d5c343",
        );
        add(
            "x-kubernetes-pf-prioritylevel-uid",
            "60d31104-044e-4227-8dac-451e42d5190e",
        );
    }
    let mut response = Response::new(content);
    *response.status_mut() = status.try_into().expect("an HTTP status");
    *response.headers_mut() = map;
    response
}

/// Bookmarks for a watch, and its end, until its client is gone.
async fn keep(shared: Arc<Shared>, id: u64, time: Duration) {
    let interval = shared.lock().bookmark_interval;
    let mut end = pin!(tokio::time::sleep(time));
    loop {
        tokio::select! {
            () = &mut end => break,
            () = tokio::time::sleep(interval) => {}
        }
        let mut state = shared.lock();
        if !state.store.watches.iter().any(|watch| watch.id == id) {
            return;
        }
        state.store.bookmark(Some(id));
    }
    shared.lock().store.end_watch(id);
}

/// A request counts as in flight until this goes.
struct Flight(Arc<Shared>);

impl Flight {
    fn begin(shared: &Arc<Shared>) -> Flight {
        let mut state = shared.lock();
        state.in_flight += 1;
        state.most_in_flight = state.most_in_flight.max(state.in_flight);
        Flight(shared.clone())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
    }
}

/// The watch counts as open until this goes.
struct Guard {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared
            .update(|state| state.store.forget_watch(self.id));
    }
}

/// A response's body.
enum Content {
    Whole(Option<Bytes>),
    Stream {
        parts: UnboundedReceiver<Part>,
        guard: Option<Guard>,
    },
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Content::Stream { parts, guard } => match parts.poll_recv(context) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Some(Part::Line(line))) => {
                    Poll::Ready(Some(Ok(Frame::data(line.into()))))
                }
                Poll::Ready(Some(Part::End) | None) => {
                    *guard = None;
                    Poll::Ready(None)
                }
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Content::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Stream { .. } => SizeHint::default(),
        }
    }
}
