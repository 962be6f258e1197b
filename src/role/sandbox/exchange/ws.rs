//! One WebSocket: frames are read through tungstenite, which knows the protocol; they are written
//! from the connection's outbox, where the publisher puts them already encoded.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;

use super::auth::is_ahead;
use super::hub::Hub;
use super::outbox::{Opcode, Outbox};

/// The longest command accepted: 500,000 tickers of 30 characters and then some.
const COMMAND_BYTES_MAX: usize = 32 << 20;
/// How long a client may take to see that we closed.
const LINGER: Duration = Duration::from_secs(1);
/// Commands are small and rare.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// The reading half as tungstenite wants it: what it writes (pongs, close frames) goes to the
/// outbox, in whole frames, because every write is taken at once.
struct Inbound {
    read: OwnedReadHalf,
    outbox: Arc<Outbox>,
    hub: Arc<Hub>,
    key: usize,
}

impl Inbound {
    fn is_mute(&self) -> bool {
        self.hub.accounts.get(self.key).is_some_and(|account| is_ahead(account.gate().mute_until))
    }
}

impl AsyncRead for Inbound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl AsyncWrite for Inbound {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.is_mute() {
            self.outbox.push_encoded(buf);
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Serves a connection whose handshake is done, until either side ends it. `early` is what the
/// client sent behind its handshake.
pub(super) async fn serve(hub: Arc<Hub>, socket: TcpStream, early: Vec<u8>, key: usize) {
    let (read, write) = socket.into_split();
    let outbox = Arc::new(Outbox::default());
    let cut = hub.stop.child_token();
    let (id, ghost) = hub.with(|venue| {
        let id = venue.connect(key, Arc::clone(&outbox), cut.clone());
        (id, venue.connection(id).map(|connection| connection.ghost.clone()).unwrap_or_default())
    });
    let ends = Ends { cut: cut.clone(), ghost: ghost.clone(), read: CancellationToken::new() };
    let read_ended = ends.read.clone();
    let writer = write_frames(Arc::clone(&hub), write, Arc::clone(&outbox), ends, key);
    let writer = hub.tasks.spawn(writer);

    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(COMMAND_BYTES_MAX))
        .max_frame_size(Some(COMMAND_BYTES_MAX));
    let inbound = Inbound { read, outbox: Arc::clone(&outbox), hub: Arc::clone(&hub), key };
    let mut socket =
        WebSocketStream::from_partially_read(inbound, early, Role::Server, Some(config)).await;
    let mut heartbeat = tokio::time::interval(hub.ping_interval);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat.tick().await;
    let mut vanished = false;
    loop {
        tokio::select! {
            () = cut.cancelled() => break,
            () = ghost.cancelled() => {
                vanished = true;
                break;
            }
            _ = heartbeat.tick() => {
                let mute = hub.accounts.get(key).is_some_and(|a| is_ahead(a.gate().mute_until));
                if !mute {
                    hub.with(|venue| venue.send(id, Opcode::Ping, &[b"heartbeat"]));
                }
            }
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => hub.with(|venue| venue.command(id, &text)),
                // Not a command: answered as one that cannot be processed.
                Some(Ok(Message::Binary(_))) => hub.with(|venue| venue.command(id, "")),
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::debug!(key, %error, "a client's connection ended");
                    break;
                }
                None => break,
            },
        }
    }
    hub.with(|venue| venue.disconnect(id));
    if vanished {
        // Whatever the client says is heard by nobody, until it gives up.
        let listen = async { while socket.next().await.is_some_and(|heard| heard.is_ok()) {} };
        tokio::select! {
            () = cut.cancelled() => {}
            () = listen => {}
        }
        cut.cancel();
    }
    read_ended.cancel();
    // A close frame that is still queued goes out before the socket does.
    outbox.close();
    if writer.await.is_err() {
        tracing::warn!(key, "the writer of a connection panicked");
    }
}

/// What ends the writer of a connection.
struct Ends {
    cut: CancellationToken,
    /// From then on nothing is written, and the socket stays open until it is cut.
    ghost: CancellationToken,
    /// The reader has heard the last of the client.
    read: CancellationToken,
}

/// Writes what the outbox holds, chunk by chunk, until it is closed or the connection is cut.
async fn write_frames(
    hub: Arc<Hub>,
    mut write: OwnedWriteHalf,
    outbox: Arc<Outbox>,
    ends: Ends,
    key: usize,
) {
    let Ends { cut, ghost, read } = ends;
    let work = async {
        let mut chunk = Vec::new();
        while let Some(next) = outbox.next(chunk).await {
            thaw(&hub, key).await;
            write.write_all(&next).await?;
            chunk = next;
        }
        write.shutdown().await
    };
    tokio::select! {
        biased;
        () = cut.cancelled() => {}
        () = ghost.cancelled() => cut.cancelled().await,
        ended = work => match ended {
            // A socket that is closed while something unread waits in it is reset, and the client
            // would not see the close frame.
            Ok(()) => tokio::select! {
                () = cut.cancelled() => {}
                () = read.cancelled() => {}
                () = tokio::time::sleep(LINGER) => {}
            },
            Err(error) => tracing::debug!(key, %error, "write to a client"),
        }
    }
    // The reader may be waiting for a client that will never speak again.
    cut.cancel();
}

/// Waits while the key's connections are frozen.
async fn thaw(hub: &Hub, key: usize) {
    loop {
        let until = hub.accounts.get(key).and_then(|account| account.gate().frozen_until);
        match until {
            Some(until) if Instant::now() < until => {
                tokio::time::sleep_until(until.into()).await;
            }
            _ => return,
        }
    }
}
