//! A request body whose pieces come from the thread that reads the file.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;

/// The number of pieces that are read ahead.
const READ_AHEAD: usize = 4;

/// A body of known length. If the sender is dropped before its end, the request is aborted.
struct FileBody {
    pieces: mpsc::Receiver<Bytes>,
    bytes_left: u64,
}

/// The sender of the pieces of a body.
pub(super) type PieceSender = mpsc::Sender<Bytes>;

/// Returns a body of `length` bytes, and the sender of its pieces.
pub(super) fn file_body(length: u64) -> (PieceSender, ByteStream) {
    let (sender, pieces) = mpsc::channel(READ_AHEAD);
    let body = FileBody { pieces, bytes_left: length };
    (sender, ByteStream::new(SdkBody::from_body_1_x(body)))
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.bytes_left == 0 {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.pieces.poll_recv(context)) {
            Some(piece) => {
                self.bytes_left = self.bytes_left.saturating_sub(piece.len() as u64);
                Some(Ok(Frame::data(piece)))
            }
            None => Some(Err(std::io::Error::other("the request was aborted"))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.bytes_left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes_left)
    }
}
