//! What a pace of tokens costs a machine before anything is done for them: threads that only wake for each
//! token, as a library's do for its slots, and threads that wake for each step and write an event to each
//! client's socket. What a token costs the workers and the daemon is read against these.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::daemon_support::PATIENCE;

/// About what a token's event takes, with what stands around it in an HTTP answer.
const EVENT_BYTES: usize = 220;

/// So many groups of so many streams. The streams of a group share its steps, which those of no two groups do.
#[derive(Clone, Copy)]
pub struct Pace {
    pub groups: usize,
    pub streams: usize,
    pub step: Duration,
    pub steps: u32,
}

/// In microseconds of CPU time for a token.
#[derive(Clone, Copy)]
pub struct BareCost {
    pub wake: f64,
    pub write: f64,
}

impl BareCost {
    pub fn mean(self, other: Self) -> Self {
        Self {
            wake: f64::midpoint(self.wake, other.wake),
            write: f64::midpoint(self.write, other.write),
        }
    }
}

impl Pace {
    pub fn bare_cost(self) -> BareCost {
        let tokens = (self.groups * self.streams) as f64 * f64::from(self.steps);
        BareCost {
            wake: self.wakes_s() * 1e6 / tokens,
            write: self.writes_s() * 1e6 / tokens,
        }
    }

    /// Of a thread for each stream.
    fn wakes_s(self) -> f64 {
        let began = Instant::now();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.groups * self.streams)
                .map(|number| {
                    let group = number % self.groups;
                    scope.spawn(move || self.at_each_step(began, group, || {}))
                })
                .collect();
            let seconds = threads.into_iter().map(|it| it.join().expect("it ends"));
            seconds.sum::<f64>()
        })
    }

    /// Of a thread for each group.
    fn writes_s(self) -> f64 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let bytes = EVENT_BYTES * self.steps as usize;
        thread::scope(|scope| {
            let mut served = Vec::new();
            for _ in 0..self.groups {
                let mut group = Vec::new();
                for _ in 0..self.streams {
                    let client = TcpStream::connect(address).expect("it listens");
                    scope.spawn(move || assert_eq!(count(client), bytes));
                    let (socket, _) = listener.accept().expect("a client");
                    socket.set_nodelay(true).expect("no delay");
                    group.push(socket);
                }
                served.push(group);
            }
            let began = Instant::now();
            let threads: Vec<_> = served
                .into_iter()
                .enumerate()
                .map(|(group, mut sockets)| {
                    let write = move || {
                        for socket in &mut sockets {
                            let written = socket.write_all(&[b'x'; EVENT_BYTES]);
                            written.expect("the client reads");
                        }
                    };
                    scope.spawn(move || self.at_each_step(began, group, write))
                })
                .collect();
            let seconds = threads.into_iter().map(|it| it.join().expect("it ends"));
            seconds.sum::<f64>()
        })
    }

    /// Wakes at each of the group's steps. Returns what that took of the calling thread's CPU time.
    fn at_each_step(self, began: Instant, group: usize, mut act: impl FnMut()) -> f64 {
        let phase = self.step * group as u32 / self.groups as u32;
        let before = thread_s();
        for number in 1..=self.steps {
            let due = began + phase + self.step * number;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            act();
        }
        thread_s() - before
    }
}

/// Reads to the end. Returns the bytes.
fn count(mut client: TcpStream) -> usize {
    client.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let mut buffer = [0; 4096];
    let mut bytes = 0;
    loop {
        match client.read(&mut buffer).expect("the rest") {
            0 => return bytes,
            more => bytes += more,
        }
    }
}

/// CPU time of the calling thread.
fn thread_s() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
