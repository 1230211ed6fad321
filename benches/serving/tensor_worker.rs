//! A process that stands where a worker stands: it has a tensor and hands it over on its standard
//! input, which is one end of a socketpair, in the worker's way or as plain bytes. So what is
//! measured is the way between two processes, with the daemon's own code on both ends and nothing
//! else of daemon or worker.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitCode, Stdio};

use rkllmd::ipc::{
    Event, FrameReader, RawSlot, SlotEvent, WireTensor, encode, open_tensor, write_tensor,
};
use rkllmd::library_calls::CallState;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use zerocopy::IntoBytes;

/// The argument that makes this program such a process.
pub const ARGUMENT: &str = "tensor-worker";

const AS_MEMORY_FILE: u8 = b'm';
const AS_BYTES: u8 = b'b';

/// Each value tells its place.
pub fn tensor([rows, columns]: [usize; 2]) -> Vec<f32> {
    (0..rows * columns).map(|place| place as f32).collect()
}

/// The process itself: answers until the other end is closed.
pub fn work(shape: impl Iterator<Item = String>) -> ExitCode {
    let shape: Vec<usize> = shape.filter_map(|number| number.parse().ok()).collect();
    let [rows, columns] = shape[..] else {
        eprintln!("usage: {ARGUMENT} ROWS COLUMNS");
        return ExitCode::FAILURE;
    };
    let stdin = rustix::stdio::stdin().try_clone_to_owned();
    let mut socket = UnixStream::from(stdin.expect("a descriptor"));
    let values = tensor([rows, columns]);
    let mut request = [0];
    while socket.read_exact(&mut request).is_ok() {
        match request[0] {
            AS_MEMORY_FILE => send_as_worker(&mut socket, &values, [rows, columns]),
            AS_BYTES => socket.write_all(values.as_bytes()).expect("a reader"),
            other => panic!("an unknown request: {other}"),
        }
    }
    ExitCode::SUCCESS
}

/// A sealed memory file beside the frame of its event, as the worker's callback sends it.
fn send_as_worker(socket: &mut UnixStream, values: &[f32], [rows, columns]: [usize; 2]) {
    let file = write_tensor(values).expect("a memory file");
    let tensor = WireTensor {
        num_tokens: rows as u64,
        rows: rows as u64,
        columns: columns as u64,
        data: None,
    };
    let slot = RawSlot {
        hidden_states: Some(tensor),
        ..RawSlot::default()
    };
    let event = Event::Slot {
        slot: 0,
        event: SlotEvent::RawResult {
            run: 1,
            state: CallState::Normal,
            results: vec![slot],
        },
    };
    let mut frame = Vec::new();
    encode(&event, &mut frame).expect("a small frame");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = [file.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
    let parts = [IoSlice::new(&frame)];
    let sent = rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL);
    assert_eq!(sent.expect("a reader"), frame.len());
}

/// The process as the daemon's side sees it.
pub struct TensorWorker {
    child: Child,
    socket: UnixStream,
    values: usize,
}

impl TensorWorker {
    pub fn start([rows, columns]: [usize; 2]) -> Self {
        let (socket, other) = UnixStream::pair().expect("a socketpair");
        let program = std::env::current_exe().expect("this program has a path");
        let child = Command::new(program)
            .args([ARGUMENT, &rows.to_string(), &columns.to_string()])
            .stdin(Stdio::from(OwnedFd::from(other)))
            .spawn()
            .expect("this program starts");
        Self {
            child,
            socket,
            values: rows * columns,
        }
    }

    /// The tensor by way of a memory file: frame, descriptor, checks and copy.
    pub fn by_memory_file(&mut self) -> Vec<f32> {
        self.ask(AS_MEMORY_FILE);
        let mut frames = FrameReader::default();
        let mut file = None;
        loop {
            let (bytes, passed) = self.receive();
            frames.buffer().extend_from_slice(&bytes);
            file = passed.or(file);
            let event = frames.next_message().expect("a message of the protocol");
            if let Some(Event::Slot {
                event: SlotEvent::RawResult { results, .. },
                ..
            }) = event
            {
                let tensor = results[0].hidden_states.as_ref().expect("a tensor");
                let values = (tensor.rows * tensor.columns) as usize;
                let file = file.take().expect("the tensor's file");
                let tensor = open_tensor(file, values, None).expect("what was announced");
                return tensor.to_vec().expect("all of it");
            }
        }
    }

    /// The same values written into the socket and read from it.
    pub fn by_socket(&mut self) -> Vec<f32> {
        self.ask(AS_BYTES);
        let mut values = vec![0_f32; self.values];
        let bytes = values.as_mut_bytes();
        self.socket.read_exact(bytes).expect("the whole tensor");
        values
    }

    fn ask(&mut self, what: u8) {
        self.socket.write_all(&[what]).expect("the process lives");
    }

    fn receive(&self) -> (Vec<u8>, Option<OwnedFd>) {
        let mut bytes = vec![0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(&self.socket, &mut parts, &mut control, flags);
        let count = received.expect("the process lives").bytes;
        assert_ne!(count, 0, "the process has ended");
        bytes.truncate(count);
        let file = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        (bytes, file)
    }
}

impl Drop for TensorWorker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
