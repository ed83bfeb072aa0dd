//! The command line.

use burn_s2_attention::DenseLayers;
use clap::{CommandFactory, Parser};
use text_generation::{
    cli::{Cli, Command, configure},
    config::{Attention, Dtype, Preset, RunConfig},
    device::DeviceName,
};

fn parse(args: &str) -> Result<Command, clap::Error> {
    let args = std::iter::once("text-generation").chain(args.split_whitespace());
    Cli::try_parse_from(args).map(Cli::command)
}

fn config(args: &str) -> RunConfig {
    match parse(args).unwrap() {
        Command::Train(args) => configure(args.preset, args.model, args.training),
        other => panic!("{other:?}"),
    }
}

#[test]
fn clap_accepts_the_definition() {
    <Cli as CommandFactory>::command().debug_assert();
}

#[test]
fn training_is_the_default() {
    assert_eq!(config(""), RunConfig::preset(Preset::Cpu));
    assert_eq!(config("train"), config(""));
    assert_eq!(config("--steps 20"), config("train --steps 20"));
}

#[test]
fn options_change_the_preset() {
    let config = config(
        "--preset tiny --context 64 --block-size 8 --local-blocks 2 --vert-stride 3 --heads 8 --layers 6 \
         --dense-layers every:2 --dtype bf16 --seed 5 --attention dense --corpus some/where",
    );
    let tiny = RunConfig::preset(Preset::Tiny);
    assert_eq!(config.model.d_model, tiny.model.d_model);
    assert_eq!((config.model.context, config.model.block_size), (64, 8));
    assert_eq!((config.model.heads, config.model.kv_heads), (8, 8));
    assert_eq!(config.model.dense_layers, DenseLayers::Every(2));
    assert_eq!(
        (config.model.dtype, config.model.attention),
        (Dtype::Bf16, Attention::Dense)
    );
    assert_eq!(
        (config.training.seed, config.training.steps),
        (5, tiny.training.steps)
    );
    assert_eq!(config.training.corpus, Some("some/where".into()));
}

#[test]
fn documents_are_asked_for() {
    assert!(!config("").training.packed);
    assert!(config("--packed --preset tiny").training.packed);
    // Runs from before there were documents.
    let mut saved = serde_json::to_value(config("")).unwrap();
    saved["training"].as_object_mut().unwrap().remove("packed");
    let read: RunConfig = serde_json::from_value(saved).unwrap();
    assert_eq!(read, config(""));
}

#[test]
fn dense_layers_are_read() {
    let layers = |text: &str| config(&format!("--dense-layers {text}")).model.dense_layers;
    assert_eq!(layers("none"), DenseLayers::None);
    assert_eq!(layers("first:2"), DenseLayers::First(2));
    assert_eq!(layers("0,3"), DenseLayers::Listed(vec![0, 3]));
    assert!(parse("--dense-layers last:1").is_err());
}

#[test]
fn dense_attention_makes_every_layer_dense() {
    let patterns = |args: &str| {
        let model = config(args).model;
        model.schedule().patterns(model.layers).unwrap()
    };
    assert!(
        patterns("--attention dense")
            .iter()
            .all(|pattern| pattern.is_dense())
    );
    let hybrid = patterns("--dense-layers first:1");
    assert!(hybrid[0].is_dense() && !hybrid[1].is_dense());
}

#[test]
fn a_resumed_run_has_its_own_options() {
    assert!(parse("train --resume --run some --device flex --minutes 2").is_ok());
    for option in [
        "--steps 10",
        "--context 64",
        "--preset tiny",
        "--corpus x",
        "--packed",
    ] {
        let error = parse(&format!("train --resume {option}")).unwrap_err();
        assert_eq!(
            error.kind(),
            clap::error::ErrorKind::ArgumentConflict,
            "{option}"
        );
    }
}

#[test]
fn a_short_run_warms_up_in_proportion() {
    assert_eq!(config("--steps 20").training.warmup, 2);
    assert_eq!(config("--steps 20 --warmup 7").training.warmup, 7);
    assert_eq!(
        config("--steps 1000000").training.warmup,
        config("").training.warmup
    );
}

#[test]
fn unknown_devices_are_refused() {
    assert!(parse("--device cuda:1").is_ok());
    assert!(
        parse("--device cuda:x")
            .unwrap_err()
            .to_string()
            .contains("cuda:1")
    );
    assert!(
        parse("--device abacus")
            .unwrap_err()
            .to_string()
            .contains("flex")
    );
}

#[test]
fn generate_needs_a_prompt() {
    assert!(parse("generate").is_err());
    assert!(matches!(
        parse("generate --prompt fn"),
        Ok(Command::Generate(_))
    ));
    assert!(matches!(
        parse("patterns --vert-stride 8"),
        Ok(Command::Patterns(_))
    ));
}

#[test]
fn what_means_nothing_is_refused() {
    for (args, option) in [
        ("--steps 1", "--steps 1"),
        ("--interval 0", "--interval"),
        ("--batch 0", "--batch"),
        ("--warmup 700 --steps 600", "--warmup 700"),
        ("--learning-rate 0", "--learning-rate 0"),
        ("--context 1", "--context 1"),
    ] {
        let error = config(args).check().unwrap_err().to_string();
        assert!(error.contains(option), "{args}: {error}");
    }
}

#[test]
fn numbers_that_mean_nothing_are_refused() {
    let refused = |change: &dyn Fn(&mut RunConfig), flag: &str| {
        let mut config = RunConfig::preset(Preset::Cpu);
        change(&mut config);
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains(flag), "{error}");
    };
    for decay in [f32::NAN, f32::INFINITY, -0.1] {
        refused(
            &|config| config.training.weight_decay = decay,
            "--weight-decay",
        );
    }
    for norm in [f32::NAN, f32::INFINITY, 0.0, -1.0] {
        refused(
            &|config| config.training.max_grad_norm = norm,
            "--max-grad-norm",
        );
    }
    refused(&|config| config.training.patience = Some(0), "--patience");
    refused(&|config| config.training.interval = 0, "--interval");
    assert!("flex:7".parse::<DeviceName>().is_err());
}
