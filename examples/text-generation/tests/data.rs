//! The corpus, the data order and the baselines.

use std::fs;

use burn::{data::dataloader::DataLoader, tensor::Device};
use text_generation::data::{
    Batch, Corpus, CorpusError, DataOrder, NGrams, Text, WindowLoader, even_windows,
};

#[test]
fn a_pass_reads_every_window_once() {
    let (bytes, context) = (1000, 16);
    let order = DataOrder::new(7, bytes, context);
    for pass in 0..20 {
        let mut starts = order.pass(pass);
        assert_eq!(starts.len(), order.windows());
        assert!(!starts.is_sorted(), "pass {pass} is not shuffled");
        starts.sort();
        assert!(starts[0] < context);
        assert!(starts.windows(2).all(|pair| pair[1] == pair[0] + context));
        assert!(
            starts.last().unwrap() + context < bytes,
            "the last target is in the text"
        );
    }
}

#[test]
fn the_order_depends_on_seed_and_pass_alone() {
    let order = |seed| DataOrder::new(seed, 5000, 8);
    assert_eq!(order(1).pass(3), order(1).pass(3));
    assert_ne!(order(1).pass(3), order(2).pass(3));
    assert_ne!(order(1).pass(3), order(1).pass(4));
}

#[test]
fn any_interval_continues_the_one_before() {
    let order = DataOrder::new(3, 500, 8);
    let passes: Vec<usize> = (0..5).flat_map(|pass| order.pass(pass)).collect();
    let count = 3 * order.windows() + 5;
    assert_eq!(order.take(0, count), passes[..count]);
    for first in [
        0,
        1,
        order.windows() - 1,
        order.windows(),
        2 * order.windows() + 3,
    ] {
        assert_eq!(
            order.take(first, 40),
            passes[first..first + 40],
            "from {first}"
        );
    }
}

#[test]
fn a_resumed_loader_delivers_what_an_unbroken_one_does() {
    let device = Device::flex();
    let text: Vec<u8> = (0..2000).map(|i| (i * i % 251) as u8).collect();
    let text = Text::from(text);
    let order = DataOrder::new(5, text.len(), 10);
    let loader =
        |interval| WindowLoader::training(text.clone(), order, 3, 12, 68, interval, &device);
    let read = |loader: &WindowLoader| -> Vec<Vec<i32>> {
        let batches: Vec<Batch> = loader.iter().map(Result::unwrap).collect();
        let values = |batch: Batch| {
            batch
                .inputs
                .into_data()
                .convert::<i32>()
                .try_to_vec()
                .unwrap()
        };
        batches.into_iter().map(values).collect()
    };
    let unbroken = loader(0);
    let intervals: Vec<_> = (0..6).map(|_| read(&unbroken)).collect();
    let resumed = loader(4);
    assert_eq!(read(&resumed), intervals[4]);
    assert_eq!(read(&resumed), intervals[5]);
    assert_ne!(intervals[3], intervals[4]);
    // 68 windows are 5 intervals of 4 batches of 3, and two batches and two windows.
    assert!(intervals[..5].iter().all(|batches| batches.len() == 4));
    let last: Vec<usize> = intervals[5].iter().map(Vec::len).collect();
    assert_eq!(last, [30, 30, 20]);
}

#[test]
fn a_target_is_the_byte_that_follows() {
    let batch = Batch::new(b"abcdefgh", &[0, 3], 4, &Device::flex());
    let bytes = |tensor: burn::tensor::Tensor<2, burn::tensor::Int>| -> Vec<u8> {
        tensor.into_data().convert::<u8>().try_to_vec().unwrap()
    };
    assert_eq!(bytes(batch.inputs), b"abcddefg");
    assert_eq!(bytes(batch.targets), b"bcdeefgh");
}

/// Documents `ab`, `cdefg`, `h` and `ij` in windows of 4: `abcd` and `efgh`.
#[test]
fn documents_are_not_predicted_from_each_other() {
    let documents = ["ab", "", "cdefg", "h", "ij"];
    let text = Text::join(documents.map(|document| document.as_bytes().to_vec()));
    assert_eq!((text.documents(), &*text), (4, &b"abcdefghij"[..]));
    let batch = Batch::packed(&text, &[0, 4], 4, &Device::flex());
    assert_eq!(batch.predicted(), 5);
    let documents = batch.documents.unwrap();
    let lengths: Vec<usize> = documents
        .parts
        .spans()
        .iter()
        .map(|span| span.q_len)
        .collect();
    assert_eq!(lengths, [2, 2, 3, 1]);
    // From `b`, `g` and `h` nothing.
    let predicted = documents.predicted.into_data().convert::<i64>();
    assert_eq!(predicted.try_to_vec::<i64>().unwrap(), [0, 2, 3, 4, 5]);

    // A window that ends with a document.
    let batch = Batch::packed(&text, &[2], 5, &Device::flex());
    assert_eq!((batch.predicted(), text.parts(2, 5)), (4, vec![5]));
    let singles = Text::join([vec![1], vec![2], vec![3]]);
    assert_eq!(
        Batch::packed(&singles, &[0], 2, &Device::flex()).predicted(),
        2
    );

    let [head, tail] = text.split_at(5);
    assert_eq!((&*head, head.documents()), (&b"abcde"[..], 2));
    assert_eq!((&*tail, tail.documents()), (&b"fghij"[..], 3));
    assert!(tail.begins_document(0) && tail.begins_document(2) && tail.begins_document(3));
}

#[test]
fn validation_windows_are_spread_and_whole_batches() {
    assert_eq!(even_windows(101, 10, 5, 1), [0, 20, 40, 60, 80]);
    assert_eq!(
        even_windows(100, 10, 100, 4),
        (0..8).map(|w| w * 9 / 8 * 10).collect::<Vec<_>>()
    );
}

/// `abab` then `c`: five bytes, pairs ab, ba, ab, bc.
#[test]
fn n_gram_numbers_by_hand() {
    let prior = 100.0;
    let ngrams = NGrams::fit(b"ababc");
    let close =
        |value: f64, by_hand: f64| assert!((value - by_hand).abs() < 1e-12, "{value} {by_hand}");
    close(ngrams.unigram(b'a'), 3.0 / 261.0);
    close(ngrams.unigram(b'z'), 1.0 / 261.0);
    close(
        ngrams.bigram(b'a', b'b'),
        (2.0 + prior * 3.0 / 261.0) / (2.0 + prior),
    );
    close(
        ngrams.bigram(b'b', b'c'),
        (1.0 + prior * 2.0 / 261.0) / (2.0 + prior),
    );
    // No pair starts with c: the unigram is all there is.
    close(ngrams.bigram(b'c', b'a'), 3.0 / 261.0);
    let total: f64 = (0..=255).map(|byte| ngrams.bigram(b'a', byte)).sum();
    close(total, 1.0);

    // One window of two targets: b after a, a after b.
    let entropy = ngrams.cross_entropy(b"aba", &[0], 2, |_| true);
    close(entropy.unigram, -(3.0f64 / 261.0).ln());
    let pairs = [ngrams.bigram(b'a', b'b'), ngrams.bigram(b'b', b'a')];
    close(entropy.bigram, -(pairs[0].ln() + pairs[1].ln()) / 2.0);
    let second = ngrams.cross_entropy(b"aba", &[0], 2, |at| at == 2);
    close(second.bigram, -pairs[1].ln());
}

#[test]
fn a_corpus_is_split_by_position_or_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("one.txt");
    fs::write(&file, "0123456789".repeat(10)).unwrap();
    let one = Corpus::open(&file).unwrap();
    assert_eq!((one.train.len(), one.valid.len()), (90, 10));
    assert!(one.split.contains("position"));

    // A folder with one file is that file; binary and hidden files are left out.
    fs::write(folder.path().join("binary"), [0xff, 0xfe, 0x00]).unwrap();
    fs::create_dir(folder.path().join(".git")).unwrap();
    fs::write(folder.path().join(".git/config"), "hidden").unwrap();
    assert_eq!(Corpus::open(folder.path()).unwrap().hash, one.hash);

    fs::remove_file(file).unwrap();
    for name in 'a'..='t' {
        fs::create_dir_all(folder.path().join(name.to_string())).unwrap();
        fs::write(folder.path().join(format!("{name}/text")), name.to_string()).unwrap();
    }
    let many = Corpus::open(folder.path()).unwrap();
    assert_eq!(&*many.train, b"abcdefghiklmnopqrs");
    assert_eq!(&*many.valid, b"jt");
    assert!(many.split.contains("file"));
    assert_ne!(many.hash, one.hash);
}

#[test]
fn a_corpus_that_cannot_be_used_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Corpus::open(&folder.path().join("nothing")).unwrap_err();
    assert!(matches!(missing, CorpusError::Missing { .. }), "{missing}");

    let empty = folder.path().join("empty.txt");
    fs::write(&empty, "").unwrap();
    assert!(matches!(
        Corpus::open(&empty),
        Err(CorpusError::Empty { .. })
    ));
    let no_text = Corpus::open(folder.path()).unwrap_err();
    assert!(
        matches!(no_text, CorpusError::Empty { skipped: 1, .. }),
        "{no_text}"
    );

    let short = folder.path().join("short.txt");
    fs::write(&short, "word ".repeat(100)).unwrap();
    let corpus = Corpus::open(&short).unwrap();
    corpus.check_size(8, 4).unwrap();
    let error = corpus.check_size(16, 4).unwrap_err();
    assert!(matches!(
        error,
        CorpusError::TooSmall {
            split: "validation",
            bytes: 50,
            needed: 80,
            ..
        }
    ));
    assert!(error.to_string().contains("--context"), "{error}");
}
