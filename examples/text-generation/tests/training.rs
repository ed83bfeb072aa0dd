//! Parts of the training: gradient clipping and the choice of a checkpoint.

use std::fs;

use burn::{
    module::{Module, Param},
    optim::GradientsParams,
    store::ModuleRecord,
    tensor::{Device, Tensor},
};
use text_generation::{
    config::{Preset, RunConfig},
    data::{Batch, Text},
    model::LanguageModel,
    training::{clip_by_global_norm, newest_complete},
};

#[derive(Module, Debug)]
struct TwoTensors {
    a: Param<Tensor<1>>,
    b: Param<Tensor<2>>,
}

/// Gradients (3, 0) and ((0, 4)): each of norm below 5, together of norm 5.
fn gradients(max_norm: f64) -> (Vec<f32>, Vec<f32>) {
    let device = Device::flex().autodiff();
    let module = TwoTensors {
        a: Param::from_tensor(Tensor::from_floats([1.0, 1.0], &device)),
        b: Param::from_tensor(Tensor::from_floats([[1.0, 1.0]], &device)),
    };
    let loss = (module.a.val() * Tensor::from_floats([3.0, 0.0], &device)).sum()
        + (module.b.val() * Tensor::from_floats([[0.0, 4.0]], &device)).sum();
    let grads = GradientsParams::from_grads(loss.backward(), &module);
    let grads = clip_by_global_norm(&module, grads, max_norm);
    (
        grads
            .get::<1>(module.a.id)
            .unwrap()
            .into_data()
            .try_to_vec()
            .unwrap(),
        grads
            .get::<2>(module.b.id)
            .unwrap()
            .into_data()
            .try_to_vec()
            .unwrap(),
    )
}

/// The loss of a packed batch is the mean over all bytes that are predicted, each document by itself.
#[test]
fn the_loss_of_documents_is_that_of_each_alone() {
    let device = Device::flex();
    let config = RunConfig::preset(Preset::Tiny);
    let model = LanguageModel::new(&config, &device).unwrap();
    let documents = ["fn main() {}", "a", "let x = 1; // one", "struct S;"];
    let text = Text::join(documents.map(|document| document.as_bytes().to_vec()));
    // Two windows of 19 bytes, the second of which begins inside the third document.
    let (starts, context) = ([0, 19], 19);
    let packed = Batch::packed(&text, &starts, context, &device);
    let predicted = packed.predicted();
    let loss = model.loss(packed).loss.into_scalar::<f64>();

    let (mut sum, mut count) = (0.0, 0);
    for start in starts {
        let mut from = start;
        for length in text.parts(start, context) {
            // The last byte is followed by one of another document, unless the window cuts this one.
            let whole = text.begins_document(from + length);
            let bytes = if whole { length - 1 } else { length };
            if bytes > 0 {
                let alone = Batch::new(&text, &[from], bytes, &device);
                sum += model.loss(alone).loss.into_scalar::<f64>() * bytes as f64;
                count += bytes;
            }
            from += length;
        }
    }
    assert_eq!(count, predicted);
    let expected = sum / count as f64;
    assert!((loss - expected).abs() < 1e-5, "{loss} {expected}");
    let windows = Batch::new(&text, &starts, context, &device);
    let windows = model.loss(windows).loss.into_scalar::<f64>();
    assert!((loss - windows).abs() > 1e-3, "{loss} {windows}");
}

#[test]
fn gradients_are_clipped_by_their_global_norm() {
    let close = |values: Vec<f32>, by_hand: [f32; 2]| {
        for (value, by_hand) in values.iter().zip(by_hand) {
            assert!((value - by_hand).abs() < 1e-6, "{values:?} {by_hand}");
        }
    };
    let (a, b) = gradients(1.0);
    close(a, [0.6, 0.0]);
    close(b, [0.0, 0.8]);
    // 4.5 is above the norm of each tensor and below that of both.
    let (a, b) = gradients(4.5);
    close(a, [2.7, 0.0]);
    close(b, [0.0, 3.6]);
}

#[test]
fn small_gradients_are_left_as_they_are() {
    assert_eq!(gradients(5.1), (vec![3.0, 0.0], vec![0.0, 4.0]));
}

#[test]
fn an_incomplete_checkpoint_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    assert_eq!(newest_complete(folder.path()).unwrap(), (None, vec![]));

    let module = TwoTensors {
        a: Param::from_tensor(Tensor::zeros([64], &Device::flex())),
        b: Param::from_tensor(Tensor::zeros([8, 8], &Device::flex())),
    };
    // A record is a record: what is asked of each file is that all of it is there.
    let save = |name: &str| -> ModuleRecord {
        module.clone().into_record().save(file(name)).unwrap();
        module.clone().into_record()
    };
    for interval in [8, 9, 10, 11] {
        for part in ["model", "optim", "scheduler"] {
            save(&format!("{part}-{interval}.bpk"));
        }
    }
    let newest = || newest_complete(folder.path()).unwrap();
    assert_eq!(newest(), (Some(11), vec![]));

    fs::remove_file(file("optim-11.bpk")).unwrap();
    assert_eq!(newest().0, Some(10));

    let half = fs::read(file("model-10.bpk")).unwrap();
    fs::write(file("model-10.bpk"), &half[..half.len() / 2]).unwrap();
    let (interval, skipped) = newest();
    assert_eq!(interval, Some(9));
    assert!(
        skipped[0].contains("11") && skipped[0].contains("optimizer"),
        "{skipped:?}"
    );
    assert!(
        skipped[1].contains("10") && skipped[1].contains("model"),
        "{skipped:?}"
    );

    // Written beside its name and not yet renamed.
    fs::rename(file("scheduler-9.bpk"), file("scheduler-9.bpk.1-0.tmp")).unwrap();
    assert_eq!(newest().0, Some(8));
}
