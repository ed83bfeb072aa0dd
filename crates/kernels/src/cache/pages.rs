//! Pages of a pool, counted by the sequences that hold them.

/// Pages fit in the 32-bit words of a table, with a sign.
pub(super) const MAX_PAGES: usize = i32::MAX as usize;

/// The pages of a pool. A page is free when no sequence holds it.
#[derive(Debug, Clone)]
pub(super) struct Pages {
    /// How many sequences hold each page.
    holders: Vec<u32>,
    /// Pages that were used before and are free, the latest last.
    free: Vec<u32>,
    limit: usize,
}

impl Pages {
    /// At most `limit` pages.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            holders: Vec::new(),
            free: Vec::new(),
            limit,
        }
    }

    /// Pages that are held.
    pub(super) fn used(&self) -> usize {
        self.holders.len() - self.free.len()
    }

    /// Pages that can be taken.
    pub(super) fn available(&self) -> usize {
        self.limit - self.used()
    }

    /// The most pages there may be.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// One more than the largest page that was ever held.
    pub(super) fn count(&self) -> usize {
        self.holders.len()
    }

    /// How many sequences hold a page.
    pub(super) fn holders(&self, page: u32) -> u32 {
        self.holders[page as usize]
    }

    /// A free page, held from now on. There must be an [`available`](Self::available) one.
    pub(super) fn take(&mut self) -> u32 {
        // Used ones first, so that a pool grows only where it must.
        if let Some(page) = self.free.pop() {
            self.holders[page as usize] = 1;
            return page;
        }
        assert!(self.holders.len() < self.limit, "the pool is full");
        self.holders.push(1);
        self.holders.len() as u32 - 1
    }

    /// One more sequence holds a page.
    pub(super) fn hold(&mut self, page: u32) {
        self.holders[page as usize] += 1;
    }

    /// One sequence less holds a page.
    pub(super) fn release(&mut self, page: u32) {
        let holders = &mut self.holders[page as usize];
        *holders -= 1;
        if *holders == 0 {
            self.free.push(page);
        }
    }
}
