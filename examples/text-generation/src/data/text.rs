//! A text: bytes, and where its documents begin.

use std::{ops::Deref, sync::Arc};

/// Documents one after the other, read as the bytes of all of them.
#[derive(Clone, Debug)]
pub struct Text {
    bytes: Arc<[u8]>,
    /// First bytes of the documents, in order, none of them empty.
    starts: Arc<[usize]>,
}

impl Text {
    /// The documents that are not empty, in order.
    pub fn join(documents: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for document in documents
            .into_iter()
            .filter(|document| !document.is_empty())
        {
            starts.push(bytes.len());
            bytes.extend(document);
        }
        Self {
            bytes: bytes.into(),
            starts: starts.into(),
        }
    }

    /// The first `at` bytes and the rest, which begins a document.
    pub fn split_at(&self, at: usize) -> [Self; 2] {
        let part = |bytes: &[u8], first: usize| {
            let end = first + bytes.len();
            let inside = |start: &&usize| **start > first && **start < end;
            let starts = self.starts.iter().filter(inside).map(|start| start - first);
            let first = (!bytes.is_empty()).then_some(0);
            Self {
                bytes: bytes.into(),
                starts: first.into_iter().chain(starts).collect(),
            }
        };
        let (head, tail) = self.bytes.split_at(at);
        [part(head, 0), part(tail, at)]
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.starts.len()
    }

    /// Whether a document begins with the byte at `at`.
    pub fn begins_document(&self, at: usize) -> bool {
        self.starts.binary_search(&at).is_ok()
    }

    /// Lengths of the parts of documents that `count` bytes from `start` on hold.
    pub fn parts(&self, start: usize, count: usize) -> Vec<usize> {
        let end = start + count;
        let next = self.starts.partition_point(|first| *first <= start);
        let inside = self.starts[next..].iter().copied();
        let ends = inside.take_while(|first| *first < end).chain([end]);
        let lengths = ends.scan(start, |from, to| {
            let length = to - *from;
            *from = to;
            Some(length)
        });
        lengths.collect()
    }
}

/// One document.
impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        Self::join([bytes])
    }
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}
