//! The response to `add`.

use serde_json::Value;

use super::rpc::{LineDecoder, RpcError, RpcResult};
use crate::backend::unixfs::Cid;

/// The response to `add`, parsed as it arrives.
#[derive(Debug, Default)]
pub(super) struct AddResponse {
    lines: LineDecoder,
    /// The CID in the last line: the root comes last.
    last_cid: Option<String>,
    error: Option<RpcError>,
}

impl AddResponse {
    /// Parses data; an error is kept for [`AddResponse::push`].
    pub(super) fn record(&mut self, data: &[u8]) {
        let AddResponse { lines, last_cid, error } = self;
        lines.push(data, &mut |line| match line {
            Ok(line) => {
                if let Some(hash) = line.get("Hash").and_then(Value::as_str) {
                    *last_cid = Some(hash.to_owned());
                }
            }
            Err(bad) => {
                error.get_or_insert(bad);
            }
        });
    }

    pub(super) fn push(&mut self, data: &[u8]) -> RpcResult<()> {
        self.record(data);
        self.error.take().map_or(Ok(()), Err)
    }

    /// Returns the root's CID.
    pub(super) fn finish(&mut self) -> RpcResult<Cid> {
        self.push(&[])?;
        self.lines.finish()?;
        let last = self.last_cid.take().ok_or_else(|| {
            RpcError::Unexpected("the response ended without the CID of the content".into())
        })?;
        Cid::try_from(last.as_str())
            .map_err(|_| RpcError::Unexpected(format!("`{last}` is not a valid CID")))
    }
}
