//! A door's connections: how many there may be, and what one more is told.
//!
//! Bounds    a door has so many seats, and no more than the process may open files for. Whoever
//!           comes beyond is told so in the door's own words, and let go; when [`TOLD_MAX`] are
//!           being told, the next are let go unheard
//! Counts    connections that are seated, refused, and cut because the client was too slow, exactly
//! Errors    a connection that cannot be accepted (out of file descriptors, mostly): the door waits
//!           a moment, and goes on

pub mod exchange;
pub mod patience;

use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounter, IntCounterVec, IntGauge};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

/// Connections that may be told at once that all seats are taken.
pub const TOLD_MAX: usize = 256;

/// A client that is turned away has so long to listen.
const TELLING_TIME_MAX: Duration = Duration::from_secs(2);

/// Of the files the process may open, the share that a door's connections may take. The log, sources
/// and sinks need some, too.
const FILES_SHARE: f64 = 0.75;

/// What a door counts of its connections.
#[derive(Clone)]
pub struct Tally {
    pub seated: IntGauge,
    pub refused: IntCounter,
    door: &'static str,
    cut: IntCounterVec,
}

impl Tally {
    /// `slow`: what a client of this door can be too slow with. Told as 0 from now on.
    pub fn new(door: &'static str, slow: &[&str], seated: IntGauge, refused: IntCounter, cut: IntCounterVec) -> Self {
        for reason in slow {
            cut.with_label_values(&[door, reason]);
        }
        Self { seated, refused, door, cut }
    }

    pub fn cut(&self, reason: &str) {
        self.cut.with_label_values(&[self.door, reason]).inc();
    }
}

/// The seats of one door.
pub struct Seats {
    free: Arc<Semaphore>,
    told: Arc<Semaphore>,
    tally: Tally,
}

impl Seats {
    pub fn new(count: usize, tally: Tally) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), told: Arc::new(Semaphore::new(TOLD_MAX)), tally }
    }

    fn take(&self) -> Option<Seat> {
        let permit = self.free.clone().try_acquire_owned().ok()?;
        self.tally.seated.inc();
        Some(Seat { tally: self.tally.clone(), _permit: permit })
    }

    fn refuse(&self, socket: TcpStream, words: Arc<[u8]>) {
        self.tally.refused.inc();
        if let Ok(permit) = self.told.clone().try_acquire_owned() {
            tokio::spawn(async move {
                // A client that went away need not be told.
                let _ = timeout(TELLING_TIME_MAX, tell(socket, &words)).await;
                drop(permit);
            });
        }
    }
}

/// One connection's, given back when dropped.
pub struct Seat {
    pub tally: Tally,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.tally.seated.dec();
    }
}

/// Accepts connections for ever. `full`: what one more than there are seats is told.
pub async fn accept<F>(listener: TcpListener, seats: Seats, full: Vec<u8>, attend: impl Fn(TcpStream, Seat) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let full: Arc<[u8]> = full.into();
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!("a connection was not accepted: {error}");
                // Others may close theirs meanwhile.
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match seats.take() {
            Some(seat) => drop(tokio::spawn(attend(socket, seat))),
            None => seats.refuse(socket, full.clone()),
        }
    }
}

/// What the client says first is read, and what it says later, or its system may discard the answer.
async fn tell(mut socket: TcpStream, words: &[u8]) -> std::io::Result<()> {
    let mut said = [0; 1024];
    if socket.read(&mut said).await? == 0 {
        return Ok(());
    }
    socket.write_all(words).await?;
    part(socket).await
}

/// Ends a connection so that its last words are heard.
pub async fn part(mut socket: TcpStream) -> std::io::Result<()> {
    socket.shutdown().await?;
    let mut said = [0; 1024];
    let hear_out = async {
        while socket.read(&mut said).await? != 0 {}
        Ok(())
    };
    timeout(TELLING_TIME_MAX, hear_out).await.unwrap_or(Ok(()))
}

/// Connections a door may have: as many as are wanted, or else `default`, as far as files go.
pub fn seats_affordable(option: &str, wanted: Option<usize>, default: usize) -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let Some(most) = files_max(&limits).map(share) else { return wanted.unwrap_or(default) };
    if let Some(wanted) = wanted.filter(|wanted| most < *wanted) {
        tracing::warn!("{option} {wanted} is more than the process may open files for: {most} connections are taken; raise ulimit -n");
    }
    wanted.unwrap_or(default).min(most)
}

fn share(files: u64) -> usize {
    ((files as f64 * FILES_SHARE) as usize).max(1)
}

/// The soft limit in Linux's table of a process's limits; None where there is none.
fn files_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use prometheus::Opts;

    use super::*;

    pub(crate) fn tally(slow: &[&str]) -> Tally {
        let cut = IntCounterVec::new(Opts::new("cut", "cut"), &["door", "reason"]).unwrap();
        Tally::new("test", slow, IntGauge::new("seated", "seated").unwrap(), IntCounter::new("refused", "refused").unwrap(), cut)
    }

    pub(crate) fn cuts(tally: &Tally, reason: &str) -> u64 {
        tally.cut.with_label_values(&["test", reason]).get()
    }

    /// Longer than any of the bounds under test: who waits for it in vain has failed.
    pub(crate) const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn one_more_than_there_are_seats_is_told_and_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let tally = tally(&[]);
        let echo = |mut socket: TcpStream, seat: Seat| async move {
            let mut said = [0; 1];
            while socket.read(&mut said).await.is_ok_and(|count| count != 0) {
                socket.write_all(&said).await.unwrap();
            }
            drop(seat);
        };
        tokio::spawn(accept(listener, Seats::new(3, tally.clone()), b"no seat".to_vec(), echo));
        let mut seated = Vec::new();
        for _ in 0..3 {
            let mut socket = TcpStream::connect(to).await.unwrap();
            assert_eq!(heard(&mut socket, 1).await, b"?");
            seated.push(socket);
        }
        // These say a lot before they listen.
        for _ in 0..5 {
            let mut socket = TcpStream::connect(to).await.unwrap();
            socket.write_all(&[b'x'; 100_000]).await.unwrap();
            assert_eq!(heard(&mut socket, 7).await, b"no seat");
        }
        assert_eq!((tally.seated.get(), tally.refused.get()), (3, 5));
        // A seat that was given back is another's.
        seated.clear();
        while tally.seated.get() != 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(heard(&mut TcpStream::connect(to).await.unwrap(), 1).await, b"?");
        assert_eq!(tally.refused.get(), 5);
    }

    /// So many bytes of the answer to a question.
    async fn heard(socket: &mut TcpStream, count: usize) -> Vec<u8> {
        socket.write_all(b"?").await.unwrap();
        let mut answer = vec![0; count];
        timeout(SOON, socket.read_exact(&mut answer)).await.expect("an answer").unwrap();
        answer
    }

    #[test]
    fn files_bound_connections() {
        let table = "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max processes             31000                31000                processes \n\
                     Max open files            1024                 524288               files     \n";
        assert_eq!(files_max(table).map(share), Some(768));
        assert_eq!(files_max(&table.replace("1024 ", "unlimited ")), None);
        assert_eq!(files_max(""), None);
        assert_eq!(share(1), 1);
    }
}
