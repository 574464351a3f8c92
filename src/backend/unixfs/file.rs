use super::Options;
use super::node::{self, Kind, Message, Node};

/// Computes the CID of a file from its content, which is passed in pieces.
///
/// The layout is Kubo's balanced tree: all chunks at one depth, nodes filled from the left. Memory
/// holds one chunk and, for each level, the links of the node being filled.
#[derive(Debug)]
pub struct FileHasher {
    options: Options,
    chunk: Vec<u8>,
    levels: Vec<Vec<Node>>,
}

impl FileHasher {
    /// Returns a hasher for a new file.
    pub fn new(options: Options) -> FileHasher {
        FileHasher { options, chunk: Vec::new(), levels: Vec::new() }
    }

    /// Adds the next bytes of content.
    pub fn update(&mut self, mut data: &[u8]) {
        let chunk_size = self.options.chunk_size;
        while !data.is_empty() {
            if self.chunk.is_empty() && data.len() >= chunk_size {
                let (whole, rest) = data.split_at(chunk_size);
                let leaf = self.leaf(whole);
                self.push(0, leaf);
                data = rest;
                continue;
            }
            let (part, rest) = data.split_at(data.len().min(chunk_size - self.chunk.len()));
            self.chunk.extend_from_slice(part);
            data = rest;
            if self.chunk.len() == chunk_size {
                self.flush_chunk();
            }
        }
    }

    /// Returns the root node of the file.
    pub fn finish(mut self) -> Node {
        if !self.chunk.is_empty() || self.levels.is_empty() {
            self.flush_chunk();
        }
        let mut level = 0;
        loop {
            let nodes = std::mem::take(&mut self.levels[level]);
            if let ([root], true) = (&nodes[..], level + 1 == self.levels.len()) {
                return *root;
            }
            let parent = self.parent(&nodes);
            self.push(level + 1, parent);
            level += 1;
        }
    }

    fn flush_chunk(&mut self) {
        let mut chunk = std::mem::take(&mut self.chunk);
        let leaf = self.leaf(&chunk);
        self.push(0, leaf);
        chunk.clear();
        self.chunk = chunk;
    }

    fn push(&mut self, level: usize, node: Node) {
        if level == self.levels.len() {
            self.levels.push(Vec::new());
        }
        // A full node is closed only when another child follows, because it may be the root.
        if self.levels[level].len() == self.options.max_links {
            let full = std::mem::take(&mut self.levels[level]);
            let parent = self.parent(&full);
            self.push(level + 1, parent);
        }
        self.levels[level].push(node);
    }

    fn leaf(&self, chunk: &[u8]) -> Node {
        if self.options.raw_leaves {
            return node::raw(chunk);
        }
        let mut message = Message::new(Kind::File, chunk.len());
        if !chunk.is_empty() {
            message.data(chunk);
        }
        message.file_size(chunk.len() as u64);
        node::dag_pb(self.options.cid_version, message, Vec::new(), chunk.len() as u64)
    }

    fn parent(&self, children: &[Node]) -> Node {
        let size = children.iter().map(|child| child.size).sum();
        let mut message = Message::new(Kind::File, children.len() * 5);
        message.file_size(size);
        for child in children {
            message.block_size(child.size);
        }
        let links = children.iter().map(|child| node::link(String::new(), child)).collect();
        node::dag_pb(self.options.cid_version, message, links, size)
    }
}
