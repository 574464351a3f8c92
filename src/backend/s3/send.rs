//! What is sent: pieces of a file, from the thread that reads them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;

/// Pieces that are read ahead.
const AHEAD: usize = 4;

/// A body of known length whose pieces come from a thread. One that is given up breaks the call off.
struct Body {
    pieces: mpsc::Receiver<Bytes>,
    left: u64,
}

/// Where its pieces go.
pub(super) type Pieces = mpsc::Sender<Bytes>;

/// A body of that many bytes, and where they go.
pub(super) fn body(length: u64) -> (Pieces, ByteStream) {
    let (sender, pieces) = mpsc::channel(AHEAD);
    (sender, ByteStream::new(SdkBody::from_body_1_x(Body { pieces, left: length })))
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.pieces.poll_recv(context)) {
            Some(piece) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                Some(Ok(Frame::data(piece)))
            }
            None => Some(Err(std::io::Error::other("given up"))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
