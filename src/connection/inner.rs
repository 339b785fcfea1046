use std::boxed::Box;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};

use super::halves::{Half, LineReader, LineWriter};
#[cfg(feature = "server")]
use super::home::Home;
use super::input::Input;
use super::output::Output;
use super::{Error, Peer};
use crate::codec::LineCodec;

/// What a connection points to.
pub(crate) struct Inner<Io> {
    pub(super) io: Io,
    pub(super) input: Input,
    pub(super) output: Output,
    pub(super) peer: Peer,
    /// Where a connection that is dropped goes.
    pub(super) home: Option<Home<Io>>,
    /// Where borrowed halves put both sides back. They are taken from there before anything else is done.
    pub(super) lent: Option<Arc<Mutex<Lent>>>,
}

/// Both sides of a connection, as the borrowed halves left them, and whether the stream failed.
#[derive(Default)]
pub(super) struct Lent {
    input: Option<(Input, bool)>,
    output: Option<(Output, bool)>,
}

/// Both halves of a connection that has a home, as they are dropped.
struct Reunion<Io> {
    reader: Option<(ReadHalf<Io>, Input, bool)>,
    writer: Option<(WriteHalf<Io>, Output, bool)>,
    peer: Peer,
    home: Option<Home<Io>>,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Reunion<Io> {
    /// Once both are there, the connection goes home.
    fn meet(&mut self) {
        if self.reader.is_none() || self.writer.is_none() {
            return;
        }
        if let (Some((reader, input, input_gone)), Some((writer, output, output_gone)), Some(home)) =
            (self.reader.take(), self.writer.take(), self.home.take())
        {
            let io = ReadHalf::unsplit(reader, writer);
            let mut inner = Box::new(Inner::new(io, input, output, self.peer));
            inner.input.is_gone = input_gone | output_gone;
            _ = home.send(inner).map_err(|mut inner| inner.report());
        }
    }
}

impl<Io> Inner<Io> {
    pub(super) fn new(io: Io, input: Input, output: Output, peer: Peer) -> Self {
        Self { io, input, output, peer, home: None, lent: None }
    }
}

/// Without a server there is none.
#[cfg(not(feature = "server"))]
type Home<Io> = tokio::sync::oneshot::Sender<Box<Inner<Io>>>;

impl<Io: AsyncRead + AsyncWrite + Unpin> Inner<Io> {
    /// One step of reading or writing. An error of the stream or a deadline ends the connection for good.
    #[inline]
    pub(super) fn poll_in<T>(
        &mut self,
        step: impl FnOnce(&mut Input, &mut Output, &mut Io) -> Poll<Result<T, Error>>,
    ) -> Poll<Result<T, Error>> {
        if self.input.is_gone {
            return Poll::Ready(Err(Error::Io(io::ErrorKind::NotConnected.into())));
        }
        let polled = step(&mut self.input, &mut self.output, &mut self.io);
        if let Poll::Ready(Err(Error::Io(_) | Error::Timeout(_))) = polled {
            self.input.is_gone = true;
        }
        polled
    }

    /// Both sides as halves that bring them back.
    pub(super) fn lend(&mut self) -> (LineReader<ReadHalf<&mut Io>>, LineWriter<WriteHalf<&mut Io>>) {
        let Inner { io, input, output, lent, .. } = self;
        let is_gone = input.is_gone;
        let (walk, encoder) = LineCodec::new().into_sides();
        let input = core::mem::replace(input, Input::new(walk));
        let output = core::mem::replace(output, Output::new(encoder));
        let to_input = Arc::clone(lent.insert(Arc::default()));
        let to_output = Arc::clone(&to_input);
        let (reader, writer) = tokio::io::split(io);
        let reader = Half::new(reader, input, is_gone).at_end(move |_, input, is_gone| {
            to_input.lock().unwrap_or_else(PoisonError::into_inner).input = Some((input, is_gone));
        });
        let writer = Half::new(writer, output, is_gone).at_end(move |_, output, is_gone| {
            to_output.lock().unwrap_or_else(PoisonError::into_inner).output = Some((output, is_gone));
        });
        (LineReader(reader), LineWriter(writer))
    }

    /// Both sides as halves of their own, which go home once both are dropped.
    pub(super) fn part(self) -> (LineReader<ReadHalf<Io>>, LineWriter<WriteHalf<Io>>)
    where
        Io: Send + 'static,
    {
        let Inner { io, input, output, peer, home, .. } = self;
        let is_gone = input.is_gone;
        let (reader, writer) = tokio::io::split(io);
        let (mut reader, mut writer) =
            (Half::new(reader, input, is_gone), Half::new(writer, output, is_gone));
        if let Some(home) = home {
            let reunion =
                Arc::new(Mutex::new(Reunion { reader: None, writer: None, peer, home: Some(home) }));
            let to_writer = Arc::clone(&reunion);
            reader = reader.at_end(move |io, input, is_gone| {
                let mut reunion = reunion.lock().unwrap_or_else(PoisonError::into_inner);
                reunion.reader = Some((io, input, is_gone));
                reunion.meet();
            });
            writer = writer.at_end(move |io, output, is_gone| {
                let mut reunion = to_writer.lock().unwrap_or_else(PoisonError::into_inner);
                reunion.writer = Some((io, output, is_gone));
                reunion.meet();
            });
        }
        (LineReader(reader), LineWriter(writer))
    }
}

impl<Io> Inner<Io> {
    /// Both sides, wherever they are.
    pub(super) fn with_sides<T>(&self, f: impl FnOnce(&Input, &Output) -> T) -> T {
        let Inner { input, output, lent, .. } = self;
        match lent {
            None => f(input, output),
            Some(lent) => {
                let lent = lent.lock().unwrap_or_else(PoisonError::into_inner);
                let input = lent.input.as_ref().map_or(input, |(input, _)| input);
                let output = lent.output.as_ref().map_or(output, |(output, _)| output);
                f(input, output)
            }
        }
    }

    /// Counts what went through it where all of the server's are counted.
    pub(crate) fn report(&mut self) {
        self.input.report();
        self.output.report();
    }

    /// Takes both sides back from the halves that had borrowed them.
    #[cold]
    pub(super) fn take_back(&mut self) {
        let Some(lent) = self.lent.take() else { return };
        let mut lent = lent.lock().unwrap_or_else(PoisonError::into_inner);
        match (lent.input.take(), lent.output.take()) {
            (Some((input, input_gone)), Some((output, output_gone))) => {
                (self.input, self.output) = (input, output);
                self.input.is_gone = input_gone | output_gone;
            }
            // A half was leaked, with what it had read or not sent.
            _ => self.input.is_gone = true,
        }
    }
}
