//! Writing with a model that was trained.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use text_generation::{
    cli::SamplingArgs,
    config::{Preset, RunConfig},
    generate::{config, generate},
    model::LanguageModel,
};

use burn::tensor::Device;
use burn_s2_attention::cache::KvCacheConfig;

fn text_generation(folder: &Path, options: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_text-generation"))
        .current_dir(folder)
        .args(options.split_whitespace())
        .args(["--device", "flex"])
        .output()
        .unwrap()
}

/// A folder with a run of a small model.
fn trained() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let lines: String = (0..400).map(|i| format!("line {i}: {}\n", i % 7)).collect();
    fs::write(folder.path().join("corpus.txt"), lines).unwrap();
    let output = text_generation(
        folder.path(),
        "train --run small --corpus corpus.txt --context 64 --d-model 16 --layers 2 --heads 2 --block-size 4 \
         --local-blocks 2 --vert-stride 2 --batch 2 --steps 20 --interval 10 --warmup 2 --valid-bytes 128 --sample-bytes 8",
    );
    assert!(output.status.success(), "{output:?}");
    let screen = String::from_utf8(output.stdout).unwrap();
    assert!(screen.contains("tokens/s; cache"), "{screen}");
    folder
}

#[test]
fn a_trained_model_writes_and_says_how_fast() {
    let folder = trained();
    let run = |options: &str| {
        let output = text_generation(folder.path(), &format!("generate --prompt line {options}"));
        assert!(output.status.success(), "{output:?}");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let (text, said) = run("--bytes 50");
    assert!(
        text.starts_with("line") && text.len() > "line\n".len(),
        "{text:?}"
    );
    for words in [
        "4 bytes of prompt in ",
        ", 50 written: ",
        " tokens/s; cache ",
        " of a full one",
    ] {
        assert!(said.contains(words), "{said}");
    }
    assert!(!said.contains("warning"), "{said}");
    // The same again, unless another seed is asked for.
    assert_eq!(run("--bytes 50").0, text);
    assert_eq!(run("--bytes 50 --prefill-chunk 1").0, text);
    assert_ne!(run("--bytes 50 --seed 1").0, text);
    assert_ne!(run("--bytes 50 --top-p 0.2").0, text);
    let (_, said) = run("--bytes 90");
    assert!(
        said.contains("warning: 94 bytes") && said.contains("trained on 64"),
        "{said}"
    );

    let refused = |options: &str| {
        let output = text_generation(folder.path(), options);
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for (options, word) in [
        ("--temperature -1", "temperature is -1"),
        ("--top-k 0", "top_k is 0"),
        ("--top-p 1.5", "top_p is 1.5"),
        ("--prefill-chunk 0", "prefill_chunk is 0"),
        ("--run none", "none"),
    ] {
        // `=`, so that a number below 0 is no option.
        let options = options.replacen(' ', "=", 1);
        let said = refused(&format!("generate --prompt line {options}"));
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn what_is_written_is_what_is_said() {
    let model = LanguageModel::new(&RunConfig::preset(Preset::Tiny), &Device::flex()).unwrap();
    let sampling = SamplingArgs {
        // An untrained model gives any bytes: also some that are no text.
        temperature: 1.0,
        top_k: 256,
        ..SamplingArgs::default()
    };
    let write = |bytes: usize| {
        let mut out = Vec::new();
        let config = config(&sampling, bytes).unwrap();
        let written = generate(&model, "fn main", &config, &mut out).unwrap();
        assert_eq!((written.prompt_bytes, written.bytes), (7, bytes));
        (String::from_utf8(out).unwrap(), written)
    };
    // Wherever it ends: also within a character, which more bytes would have completed.
    for bytes in (1..40).chain([300]) {
        let (shown, written) = write(bytes);
        assert_eq!(shown, written.text, "{bytes} bytes");
    }
    let (_, written) = write(300);
    // The last byte is written and not read.
    let cache = model.transformer().kv_cache(&KvCacheConfig::new(306));
    let expected = [cache.predicted_bytes(306), cache.full_bytes(306)];
    assert_eq!([written.cache.bytes, written.cache.full_bytes], expected);
    assert!(written.cache.bytes < written.cache.full_bytes);
    let config = config(&sampling, 1).unwrap();
    let error = generate(&model, "", &config, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("--prompt is empty"));
}
