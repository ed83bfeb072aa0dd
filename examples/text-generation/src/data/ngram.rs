//! The baselines a model has to beat: how well byte counts alone predict the text.

/// Strength of the unigram prior in a bigram row, in bytes (Dirichlet smoothing, MacKay and Peto
/// 1995). Of 1, 10, 100 and 1000 the best on the default corpus, in the baseline's favour.
const PRIOR: f64 = 100.0;

/// Byte counts and byte-pair counts of a text.
pub struct NGrams {
    total: f64,
    unigram: Vec<f64>,
    bigram: Vec<f64>,
    /// Pairs that start with each byte.
    starts: Vec<f64>,
}

/// Cross-entropies of the baselines, in nats per byte.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Baselines {
    /// Each byte by its frequency.
    pub unigram: f64,
    /// Each byte by its frequency after the byte before it.
    pub bigram: f64,
}

impl NGrams {
    /// Counts the bytes and pairs of `text`.
    pub fn fit(text: &[u8]) -> Self {
        let (mut unigram, mut starts) = (vec![0.0; 256], vec![0.0; 256]);
        let mut bigram = vec![0.0; 256 * 256];
        for &byte in text {
            unigram[byte as usize] += 1.0;
        }
        for pair in text.windows(2) {
            starts[pair[0] as usize] += 1.0;
            bigram[pair[0] as usize * 256 + pair[1] as usize] += 1.0;
        }
        Self {
            total: text.len() as f64,
            unigram,
            bigram,
            starts,
        }
    }

    /// Probability of `byte`: one is added to every count.
    pub fn unigram(&self, byte: u8) -> f64 {
        (self.unigram[byte as usize] + 1.0) / (self.total + 256.0)
    }

    /// Probability of `byte` after `previous`, smoothed towards the unigram.
    pub fn bigram(&self, previous: u8, byte: u8) -> f64 {
        let pair = self.bigram[previous as usize * 256 + byte as usize];
        (pair + PRIOR * self.unigram(byte)) / (self.starts[previous as usize] + PRIOR)
    }

    /// Cross-entropies over exactly the bytes that a model is asked for: in each window of
    /// `context + 1` bytes of `text` that begins at one of `starts`, all but the first and those whose place is not
    /// `asked` for.
    pub fn cross_entropy(
        &self,
        text: &[u8],
        starts: &[usize],
        context: usize,
        asked: impl Fn(usize) -> bool,
    ) -> Baselines {
        let (mut unigram, mut bigram, mut bytes) = (0.0, 0.0, 0.0);
        let places = starts.iter().flat_map(|start| start + 1..=start + context);
        for at in places.filter(|at| asked(*at)) {
            unigram -= self.unigram(text[at]).ln();
            bigram -= self.bigram(text[at - 1], text[at]).ln();
            bytes += 1.0;
        }
        Baselines {
            unigram: unigram / bytes,
            bigram: bigram / bytes,
        }
    }
}
