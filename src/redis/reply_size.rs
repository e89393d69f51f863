//! A bound on each reply. The client library has none: it gathers whatever arrives until a reply is whole, and takes any number of
//! elements at its word.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The largest reply that is read, bytes: as large as the largest dump of functions that agents pass on.
pub(super) const LARGEST_REPLY: u64 = 16 << 20;
/// The most elements of one reply, those of its elements included. Each takes some 60 bytes of ours and may take 3 on the way.
const MOST_ELEMENTS: u64 = 128 << 10;
/// The longest number in front of a string or an array, bytes: `-9223372036854775808`.
const LONGEST_NUMBER: usize = 20;

/// How far the reply that is being read is. It follows the form of replies and keeps nothing of them.
#[derive(Debug, Default)]
struct ReplySize {
    at: ParserState,
    bytes: u64,
    elements: u64,
    /// Elements that are still to come; 0: the next byte begins a reply.
    open: u64,
}

#[derive(Debug, Default)]
enum ParserState {
    /// An element begins.
    #[default]
    Begin,
    /// In a line that is a whole element. `true`: its last byte was a carriage return.
    Line(bool),
    /// In the number that follows this byte.
    Number(u8, Vec<u8>),
    /// In a string: bytes of it that are to come, its end of line included.
    Text(u64),
}

impl ReplySize {
    /// Takes in what arrived.
    fn note(&mut self, mut arrived: &[u8]) -> Result<(), &'static str> {
        while let Some((first, rest)) = arrived.split_first() {
            let taken = match &mut self.at {
                ParserState::Begin => {
                    self.begin(*first)?;
                    1
                }
                ParserState::Line(is_return) => {
                    let is_end = *is_return && *first == b'\n';
                    // A line may be long: all but its end is taken at once.
                    let until = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
                    let taken = if is_end || *first == b'\r' { 1 } else { 1 + until };
                    *is_return = *first == b'\r';
                    if is_end {
                        self.end();
                    }
                    taken
                }
                ParserState::Number(kind, digits) => {
                    if *first == b'\n' {
                        let (kind, number) = (*kind, number(digits)?);
                        self.announced(kind, number)?;
                    } else if digits.len() > LONGEST_NUMBER {
                        return Err("the server announces a length that is no number");
                    } else {
                        digits.push(*first);
                    }
                    1
                }
                ParserState::Text(left) => {
                    let taken = arrived.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    if *left == 0 {
                        self.end();
                    }
                    taken
                }
            };
            self.bytes += taken as u64;
            if self.bytes > LARGEST_REPLY {
                return Err("the server sends a reply of more than 16 MiB");
            }
            if self.open == 0 {
                *self = Self::default();
            }
            arrived = arrived.split_at(taken).1;
        }
        Ok(())
    }

    fn begin(&mut self, kind: u8) -> Result<(), &'static str> {
        if self.open == 0 {
            self.open = 1;
        }
        self.elements += 1;
        self.at = match kind {
            b'$' | b'!' | b'=' | b'*' | b'~' | b'>' | b'%' | b'|' => ParserState::Number(kind, Vec::new()),
            _ => ParserState::Line(false),
        };
        if self.elements > MOST_ELEMENTS { Err(TOO_MANY) } else { Ok(()) }
    }

    /// Takes in the number in front of a string or of elements. A negative one stands for nothing, where the form has that.
    fn announced(&mut self, kind: u8, number: i64) -> Result<(), &'static str> {
        let number = match u64::try_from(number) {
            Ok(number) => number,
            Err(_) if matches!(kind, b'$' | b'*' | b'~' | b'>') => {
                self.end();
                return Ok(());
            }
            Err(_) => return Err("the server announces a length below 0"),
        };
        let elements = match kind {
            b'$' | b'!' | b'=' => {
                if number > LARGEST_REPLY {
                    return Err("the server announces a reply of more than 16 MiB");
                }
                self.at = ParserState::Text(number + 2);
                return Ok(());
            }
            b'*' | b'~' | b'>' => number,
            // What an attribute is of follows it.
            b'|' => number.saturating_mul(2).saturating_add(1),
            _ => number.saturating_mul(2),
        };
        if elements > MOST_ELEMENTS {
            return Err(TOO_MANY);
        }
        self.end();
        self.open += elements;
        Ok(())
    }

    /// An element is whole, apart from those that it announced.
    fn end(&mut self) {
        (self.at, self.open) = (ParserState::Begin, self.open.saturating_sub(1));
    }
}

/// What a server without a connection left says before any command, and ends the connection. The client library takes it for the answer
/// to its login, and keeps no word of it.
const FULL: &[u8] = b"-ERR max number of clients";

const TOO_MANY: &str = "the server sends a reply of more than 131,072 elements";

/// As the client library reads it.
fn number(digits: &[u8]) -> Result<i64, &'static str> {
    let text = std::str::from_utf8(digits).ok().and_then(|text| text.trim().parse().ok());
    text.ok_or("the server announces a length that is no number")
}

/// A connection on which a reply beyond the bounds is an error, which ends it.
#[derive(Debug)]
pub(super) struct BoundedStream<S> {
    inner: S,
    reply: ReplySize,
    began: bool,
    is_full: Arc<AtomicBool>,
}

impl<S> BoundedStream<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, reply: ReplySize::default(), began: false, is_full: Arc::default() }
    }

    /// Whether the first that arrives is that the server has no connection left.
    pub(super) fn is_full(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_full)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BoundedStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(context, into))?;
        let arrived = into.filled().get(before..).unwrap_or_default();
        if !std::mem::replace(&mut this.began, true) && arrived.starts_with(FULL) {
            this.is_full.store(true, Ordering::Relaxed);
        }
        Poll::Ready(this.reply.note(arrived).map_err(|problem| io::Error::new(io::ErrorKind::InvalidData, problem)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BoundedStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the bytes in pieces of that many.
    fn read(bytes: &[u8], pieces: usize) -> Result<ReplySize, &'static str> {
        let mut size = ReplySize::default();
        bytes.chunks(pieces).try_for_each(|piece| size.note(piece))?;
        Ok(size)
    }

    #[test]
    fn every_form_of_reply_ends_where_it_ends_however_it_arrives() {
        let forms: [&[u8]; 14] = [
            b"+OK\r\n",
            b"-ERR a\rb\nc\r\n",
            b":-1\r\n",
            b"$-1\r\n",
            b"$0\r\n\r\n",
            b"$4\r\n\r\n\r\n\r\n",
            b"*-1\r\n",
            b"*0\r\n",
            b"*2\r\n*2\r\n$1\r\na\r\n+b\r\n*0\r\n",
            b"%1\r\n+a\r\n~1\r\n:1\r\n",
            b"|1\r\n+a\r\n+b\r\n+the reply\r\n",
            b">2\r\n+message\r\n_\r\n",
            b"=5\r\ntxt:a\r\n",
            b"!3\r\nERR\r\n",
        ];
        for form in forms {
            for pieces in 1..=form.len() {
                let text = String::from_utf8_lossy(form);
                let size = read(form, pieces).unwrap();
                assert!(
                    matches!(size.at, ParserState::Begin) && size.open == 0 && size.bytes == 0,
                    "{text:?} {size:?}"
                );
                let unfinished = read(&form[..form.len() - 1], pieces).unwrap();
                assert_ne!(unfinished.open, 0, "{text:?} without its last byte");
            }
        }
        let all = forms.concat();
        for pieces in 1..all.len() {
            assert_eq!(read(&all, pieces).unwrap().open, 0);
        }
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_arrived() {
        for announced in ["$16777217", "*131073", "%65537", "$99999999999999999999999", "$9223372036854775807", "!-1"] {
            assert!(read(format!("{announced}\r\n").as_bytes(), 7).is_err(), "{announced}");
        }
        let nested = b"*1000\r\n".repeat(1_000_000);
        assert_eq!(read(&nested, 8_192).unwrap_err(), TOO_MANY);
        let line = [b"+".as_slice(), &vec![b'a'; 17 << 20]].concat();
        assert!(read(&line, 8_192).is_err(), "a line without an end");
        let strings = [b"*20\r\n".as_slice(), &[b"$1000000\r\n".as_slice(), &vec![0; 1_000_002]].concat().repeat(20)];
        assert!(read(&strings.concat(), 8_192).is_err(), "strings that are small each");
        let replies = [b"$1000000\r\n".as_slice(), &vec![0; 1_000_002]].concat().repeat(20);
        assert!(read(&replies, 8_192).is_ok(), "replies that are small each");
    }
}
