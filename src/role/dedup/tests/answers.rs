//! Production commits and the answer never comes: whoever asked cannot know, and must find out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::rig::{Delta, Rig, append_deltas, delta};
use crate::pg::{Target, TlsMode};

/// How the driver commits, as the simple query that it is on the wire.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";
/// The end of what the server says when it has.
const COMMITTED: &[u8] = b"COMMIT\0";

/// Lets everything through to a server, but every `nth` answer to a commit: there the connection ends.
struct Thief {
    socket: String,
    nth: u32,
    commits: AtomicU32,
    stolen: AtomicU32,
}

impl Thief {
    async fn start(target: &Target, nth: u32) -> (Arc<Self>, Target) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let thief = Arc::new(Self {
            socket: format!("{}/.s.PGSQL.{}", target.host, target.port),
            nth,
            commits: AtomicU32::new(0),
            stolen: AtomicU32::new(0),
        });
        let serving = Arc::clone(&thief);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&serving).carry(client));
            }
        });
        let host = "127.0.0.1".to_owned();
        (thief, Target { host, port, tls: TlsMode::Disable, ..target.clone() })
    }

    /// Ends with the connection; a broken one is what the test is about.
    async fn carry(self: Arc<Self>, mut client: TcpStream) {
        let Ok(mut server) = UnixStream::connect(&self.socket).await else { return };
        let (mut asked, mut answered) = ([0; 16 << 10], [0; 16 << 10]);
        // What was asked and answered so far, as far as a marker may still be incomplete in it.
        let (mut asked_tail, mut answered_tail) = (Vec::new(), Vec::new());
        let mut steals = false;
        loop {
            tokio::select! {
                read = client.read(&mut asked) => {
                    let Ok(count @ 1..) = read else { return };
                    if found(&mut asked_tail, &asked[..count], COMMIT) {
                        let number = self.commits.fetch_add(1, Ordering::Relaxed) + 1;
                        steals = number.is_multiple_of(self.nth);
                        answered_tail.clear();
                    }
                    if server.write_all(&asked[..count]).await.is_err() {
                        return;
                    }
                }
                read = server.read(&mut answered) => {
                    let Ok(count @ 1..) = read else { return };
                    if steals && found(&mut answered_tail, &answered[..count], COMMITTED) {
                        self.stolen.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                    if !steals && client.write_all(&answered[..count]).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

fn found(tail: &mut Vec<u8>, more: &[u8], marker: &[u8]) -> bool {
    tail.extend_from_slice(more);
    let is_there = tail.windows(marker.len()).any(|window| window == marker);
    let keep = if is_there { 0 } else { marker.len() - 1 };
    tail.drain(..tail.len().saturating_sub(keep));
    is_there
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_neither_lost_nor_repeated() {
    let rig = Rig::start(2).await;
    // More than the commits by which a session finds its cursors, or none would ever get to the rows.
    let (thief, through) = Thief::start(&rig.production, 7).await;
    let mut config = rig.config("deduplicator-1");
    config.production = through;
    let running = Rig::run_with(config);
    let all: Vec<Delta> = (0..2000).map(delta).collect();
    let mut appended = 0;
    // Goes on until enough answers were lost: which sessions of the role commit when is theirs.
    while appended < all.len() || thief.stolen.load(Ordering::Relaxed) < 10 {
        for target in &rig.gatherers {
            let series = all.iter().cycle().skip(appended % all.len()).take(50);
            let fresh = i64::try_from(appended / all.len()).unwrap() * 1_000_000;
            let part: Vec<Delta> = series
                .map(|delta| Delta { exchange_ts: delta.exchange_ts + fresh, ..delta.clone() })
                .collect();
            append_deltas(target, &part).await;
        }
        appended += 50;
        rig.caught_up("orderbook_deltas").await;
    }
    running.stop().await.unwrap();
    let deltas = rig.deltas().await;
    assert_eq!(deltas.len(), appended, "each once");
    let stolen = thief.stolen.load(Ordering::Relaxed);
    assert!(stolen >= 10, "{stolen} answers of {:?} lost", thief.commits);
}
