//! The command line: what it shows, and what it refuses.

use std::fs;

use assert_cmd::Command;
use roxmltree::Document;

fn viewer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pattern-viewer"));
    command.args(arguments).env_remove("COLORTERM");
    command
}

fn shown(arguments: &[&str]) -> String {
    let output = viewer(arguments).assert().success().get_output().clone();
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn refused(arguments: &[&str]) -> String {
    let output = viewer(arguments).assert().code(2).get_output().clone();
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).expect("UTF-8")
}

/// The words of the table's line of that name, in one line.
fn row<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!("│ {name} ");
    let line = text.lines().find(|line| line.starts_with(&start));
    let line = line.unwrap_or_else(|| panic!("{name}: {text}"));
    let value = line.split('┆').nth(1).expect("a value");
    value.trim_end_matches('│').split_whitespace().collect()
}

#[test]
fn a_tiny_pattern_and_its_table() {
    let arguments =
        "local-stride --local-blocks 1 --vert-stride 2 --heads 2 --block-size 16 --seq-len 64";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let expected = "\
local 1 + stride 2 (block 16, 2 heads, per head)
4 x 4 blocks of 16 tokens, density 63.1 %, all heads together cover 100.0 %
rows: query blocks; columns: key blocks

  head 0               head 1               both heads together
  0                    0                    0
0 █                    █                    █
  ┃█                   ·█                   ▒█
  ┃·█                  ·┃█                  ▒▒█
  ┃·┃█                 ·┃·█                 ▒▒▒█

█ local window   ┃ stride   ░▒▓█ by few to all heads   · not attended
";
    let text = shown(&arguments);
    assert!(text.starts_with(expected), "{text}");
    assert_eq!(row(&text, "length").join(" "), "64 tokens, 4 blocks");
    // A head has 4 diagonal blocks of 136 pairs and 4 or 2 whole ones of 256, dense 2080 pairs.
    assert_eq!(
        row(&text, "density").join(" "),
        "63.1 % of causal token pairs"
    );
    assert_eq!(row(&text, "ideal speed-up")[0], "1.59x");
    assert_eq!(
        row(&text, "work per head").join(" "),
        "6 to 8 block pairs, mean 7.0"
    );
    assert_eq!(row(&text, "empty rows"), ["0"]);
    assert_eq!(
        row(&text, "KV kept").join(" "),
        "32 to 48 of 64 tokens per KV head"
    );
    assert_eq!(row(&text, "KV-efficient")[0], "yes:");
    assert_eq!(row(&text, "coverage")[..2], ["100.0", "%"]);
    assert_eq!(
        row(&text, "metadata")[1..],
        ["bytes", "at", "any", "length"]
    );
}

#[test]
fn without_arguments_eight_heads_and_their_union() {
    let text = shown(&[]);
    for label in ["head 0", "head 7", "all 8 heads together"] {
        assert!(text.contains(label), "{text}");
    }
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
}

#[test]
fn colour_only_where_it_is_wanted() {
    assert!(!shown(&[]).contains('\x1b'));
    assert!(shown(&["--color", "always"]).contains("\x1b[38;5;"));
    let mut command = viewer(&["--color", "always"]);
    let output = command.env("COLORTERM", "truecolor").assert().success();
    let text = String::from_utf8_lossy(&output.get_output().stdout).into_owned();
    assert!(text.contains("\x1b[38;2;") && text.contains('▀'));
}

#[test]
fn every_rule_by_name() {
    for (arguments, heading) in [
        (
            "ranges --strides 1,2,4 --range-blocks 2,8",
            "strides 1 until 2, 2 until 8, 4 beyond (block 64, 8 heads, per head)",
        ),
        (
            "bidirectional-relative --vert-stride 3",
            "bidirectional local 2|2 + relative stride 3 (block 64, 8 heads, same for all heads)",
        ),
        (
            "bidirectional-absolute --local-left 3",
            "bidirectional local 3|2 + stride 8 (block 64, 8 heads, per head)",
        ),
        (
            "sliding-window --left 5 --right 2",
            "window 5|2 (block 64, 8 heads, same for all heads)",
        ),
        (
            "sink-window --sink-blocks 2",
            "sink 2 + window 4 (block 64, 8 heads, same for all heads)",
        ),
        (
            "strided --vert-stride 3 --bidirectional",
            "bidirectional diagonal + stride 3 (block 64, 8 heads, per head)",
        ),
        (
            "dense",
            "dense causal (block 64, 8 heads, same for all heads)",
        ),
        (
            "dense --bidirectional",
            "dense bidirectional (block 64, 8 heads, same for all heads)",
        ),
        (
            "preset phi3_small",
            "local 16 + stride 8 (block 64, 32 query / 8 KV heads, per head, head offset 1)",
        ),
        (
            "preset hhst --heads 4",
            "local 16 + stride 4 (block 64, 4 heads, per head)",
        ),
    ] {
        let arguments: Vec<&str> = arguments.split(' ').chain(["--width", "200"]).collect();
        let text = shown(&arguments);
        assert_eq!(text.lines().next(), Some(heading));
    }
}

#[test]
fn every_head_option() {
    let arguments = "local-stride --num-heads 8 --num-kv-heads 4 --head-step -1 --head-offset 3 \
        --dense-heads 1 --per-kv-head --active-heads 4..8 --block-size 32 --table-blocks 9 --print-config";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let config: serde_json::Value = serde_json::from_str(&shown(&arguments)).expect("JSON");
    let expected = serde_json::json!({
        "block_size": 32,
        "num_heads": 8,
        "num_kv_heads": 4,
        "rule": {"local_stride": {"local_blocks": 3, "vert_stride": 8}},
        "head_step": -1,
        "head_offset": 3,
        "dense_heads": 1,
        "per_kv_head": true,
        "active_heads": {"start": 4, "end": 8},
        "table_blocks": 9,
    });
    assert_eq!(config, expected);
    assert!(shown(&["--homogeneous", "--print-config"]).contains("\"homogeneous\": true"));
}

#[test]
fn files_of_patterns_and_masks() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let config = r#"{"block_size": 16, "num_heads": 2, "num_kv_heads": 1, "rule": {"union": [
        {"sliding_window": {"left": 2, "right": null}},
        {"per_head": [{"strided": {"vert_stride": 4, "causal": true}}, {"dense": {"causal": true}}]}]}}"#;
    fs::write(path("config.json"), config).expect("written");
    let text = shown(&["config", &path("config.json"), "--seq-len", "128"]);
    assert!(text.contains("head 1 (KV 0) dense"), "{text}");

    let printed = shown(&["config", &path("config.json"), "--print-config"]);
    fs::write(path("again.json"), printed).expect("written");
    assert_eq!(
        shown(&["config", &path("again.json"), "--seq-len", "128"]),
        text
    );

    let mask = r#"{"causal": true, "kv_blocks": 3, "rows": [[[0], [], [0, 2]]]}"#;
    fs::write(path("mask.json"), mask).expect("written");
    let text = shown(&["custom", &path("mask.json")]);
    assert!(text.contains("\n0 █\n  ××\n  █·█\n"), "{text}");
    assert_eq!(row(&text, "empty rows"), ["1"]);
    assert!(refused(&["custom", &path("mask.json"), "--seq-len", "256"]).contains("covers 3"));
}

#[test]
fn views_and_pictures() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    assert!(shown(&["--head", "5"]).contains("\n   head 5\n"));
    assert!(shown(&["--head", "5", "--active-heads", "4..8"]).contains("\n   head 5\n"));
    let union = shown(&["--view", "union"]);
    assert!(union.contains("all 8 heads together") && !union.contains("head 5"));

    let text = shown(&["--svg", &path("a.svg"), "--png", &path("a.png")]);
    assert!(
        text.starts_with("wrote ") && row(&text, "length")[0] == "1536",
        "{text}"
    );
    let svg = fs::read_to_string(path("a.svg")).expect("written");
    assert!(Document::parse(&svg).is_ok());
    assert!(
        fs::read(path("a.png"))
            .expect("written")
            .starts_with(b"\x89PNG")
    );
}

#[test]
fn what_means_nothing_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    fs::write(path("no.json"), "{\"block_size\": 16").expect("written");
    fs::write(path("other.json"), "{\"blocks\": 16}").expect("written");
    fs::write(
        path("mask.json"),
        r#"{"causal": true, "kv_blocks": 2, "rows": [[[5]]]}"#,
    )
    .expect("written");
    for (arguments, error) in [
        (
            "local-stride --local-blocks 0",
            "`local_blocks` is 0, but must be at least 1",
        ),
        (
            "local-stride --vert-stride 0",
            "`vert_stride` is 0, but must be at least 1",
        ),
        ("local-stride --vert-stride x", "invalid value 'x'"),
        ("local-stride --block-size 0", "`block_size` is 0"),
        (
            "local-stride --block-size 3000000000",
            "`block_size` is 3000000000",
        ),
        ("dense --num-heads 0", "`num_heads` is 0"),
        (
            "dense --num-heads 6 --num-kv-heads 4",
            "no multiple of `num_kv_heads` = 4",
        ),
        (
            "dense --head-step 2 --homogeneous",
            "homogeneous heads have step 0",
        ),
        (
            "dense --head-offset 9223372036854775807",
            "`head_offset` is 9223372036854775807",
        ),
        ("dense --dense-heads 9", "`dense_heads` is 9"),
        ("dense --active-heads 4..9", "`active_heads` is 4..9"),
        ("dense --active-heads 4", "such as 4..8"),
        ("dense --active-heads 4..b", "\"b\": invalid digit"),
        ("dense --num-kv-heads 4 --active-heads 1..2", "cuts a group"),
        ("dense --table-blocks 0", "`table_blocks` is 0"),
        (
            "ranges --strides 1,2 --range-blocks 2,4",
            "2 strides need 1 range ends",
        ),
        ("ranges --range-blocks 4,4", "`range_blocks[1]` is 4"),
        ("bidirectional-relative --local-left 0", "`local_left` is 0"),
        (
            "bidirectional-absolute --local-right 0",
            "`local_right` is 0",
        ),
        ("sliding-window --left 0", "`left` is 0"),
        ("sliding-window --right 0", "`right` is 0"),
        ("sink-window --sink-blocks 0", "`sink_blocks` is 0"),
        ("strided --vert-stride 0", "`vert_stride` is 0"),
        (
            "preset phi4",
            "no preset is called \"phi4\"; the presets are phi3_small, dkernel, hhst",
        ),
        ("dense --seq-len 0", "invalid value '0'"),
        (
            "dense --seq-len 18446744073709551615",
            "too many to draw, at most 65536 are",
        ),
        ("dense --head 8", "`--head` is 8, but the heads are 0..8"),
        ("dense --head 3 --active-heads 4..8", "the heads are 4..8"),
        ("dense --head 3 --view union", "cannot be used with"),
        ("dense --view all", "invalid value 'all'"),
        ("dense --width 0", "invalid value '0'"),
        (
            "dense --svg /nowhere/a.svg",
            "cannot write `/nowhere/a.svg`",
        ),
        (
            "dense --png /nowhere/a.png --png-scale 0",
            "a scale of 0 cannot be drawn",
        ),
        (
            "custom /nowhere/mask.json",
            "cannot read `/nowhere/mask.json`",
        ),
        (
            &format!("custom {}", path("mask.json")),
            "keeps key block 5; key blocks are 0..2",
        ),
        (&format!("config {}", path("no.json")), "EOF while parsing"),
        (
            &format!("config {}", path("other.json")),
            "unknown field `blocks`",
        ),
        ("lokal-stride", "unrecognized subcommand"),
    ] {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let said = refused(&arguments);
        assert!(
            said.starts_with("error: ") && said.contains(error),
            "{arguments:?}: {said}"
        );
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn the_readme_shows_what_is_printed() {
    let readme = include_str!("../README.md");
    let arguments = "local-stride --vert-stride 4 --num-heads 4 --seq-len 1024";
    let text = shown(&arguments.split(' ').collect::<Vec<_>>());
    assert!(readme.contains(&text), "{text}");

    let folder = tempfile::tempdir().expect("a folder");
    let svg = folder.path().join("a.svg");
    shown(&["--svg", &svg.to_string_lossy()]);
    let picture = include_str!("../../../docs/images/s2-pattern.svg");
    assert_eq!(fs::read_to_string(svg).expect("written"), picture);
}
