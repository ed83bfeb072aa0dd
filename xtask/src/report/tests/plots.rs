//! Plots: their curves, panels and colours.

use s2_bench::record::Row;

use super::super::plots::{speedup_by_density, time_by_length};
use super::{OURS, gpu_rows, row, rows};

#[test]
fn plots_have_a_curve_for_each_provider_and_pattern() {
    let svg = time_by_length(&rows("a")).unwrap();
    for text in [
        "<svg",
        "</svg>",
        "forward + backward",
        "Burn dense",
        "S2 dense",
        "S2 block 64, local 4, stride 8",
    ] {
        assert!(svg.contains(text), "{text} in {svg}");
    }
    let svg = speedup_by_density(&rows("a")).unwrap();
    for text in [
        "over Burn&apos;s dense",
        "over our own dense",
        "1 / density",
    ] {
        assert!(
            svg.contains(text) || svg.contains(&text.replace("&apos;", "'")),
            "{text} in {svg}"
        );
    }
    assert!(
        time_by_length(&rows("a")[..1]).is_err(),
        "nothing of this library"
    );
}

#[test]
fn plots_are_of_the_passes_with_the_longest_curves() {
    let titles = |svg: &str| ["forward + backward", "backward"].map(|title| has_line(svg, title));
    let backward = |seqs: &[usize], strides: &[usize]| -> Vec<Row> {
        let points = seqs
            .iter()
            .flat_map(|&seq| strides.iter().map(move |&stride| (seq, stride)));
        let time = |(seq, stride)| row("a", OURS, "backward", seq, Some(stride), seq as f64 / 1e3);
        points.map(time).collect()
    };
    // Many short curves are no long one: dense and two strides, forward and backward, have two points each.
    for (seqs, strides, shown) in [
        (vec![1024, 2048], vec![8], [true, false]),
        (vec![512, 1024, 2048], vec![8], [false, true]),
    ] {
        let mut rows = [rows("a"), backward(&seqs, &strides)].concat();
        // A short one beside it changes nothing.
        rows.extend([1024, 2048].map(|seq| row("a", OURS, "backward", seq, None, 9.0)));
        assert_eq!(titles(&time_by_length(&rows).unwrap()), shown, "{seqs:?}");
    }
    for (strides, shown) in [(vec![4, 8], [true, false]), (vec![4, 8, 16], [false, true])] {
        let mut rows = [rows("a"), backward(&[2048], &strides)].concat();
        rows.push(row("a", OURS, "backward", 2048, None, 9.0));
        assert_eq!(
            titles(&speedup_by_density(&rows).unwrap()),
            shown,
            "{strides:?}"
        );
    }
}

/// Whether a text of a plot is this, all of it.
fn has_line(svg: &str, text: &str) -> bool {
    svg.lines().any(|line| line.trim() == text)
}

#[test]
fn a_curve_has_the_same_colour_in_both_panels() {
    let mut rows = gpu_rows("g");
    for (pass, ms) in [("forward", 3.0), ("forward-backward", 9.0)] {
        let at = |seq| row("g", "sdpa-cudnn", pass, seq, None, ms * seq as f64);
        rows.extend([1024, 2048].map(at));
    }
    let svg = time_by_length(&rows).unwrap();
    // The fourth is dkernel, forward alone, and the fifth sdpa-cudnn in both: a line and its legend in each panel.
    for (colour, lines) in [("#CC79A7", 2), ("#E69F00", 4)] {
        let line = format!("stroke=\"{colour}\" stroke-width=\"2\"");
        assert_eq!(svg.matches(&line).count(), lines, "{colour} in {svg}");
    }
}

/// A pass at one density has no line, and the ideal alone is no panel.
#[test]
fn a_pass_at_one_density_is_not_drawn() {
    let mut rows = rows("a");
    rows.retain(|row| row.pass.to_string() == "forward" || row.vert_stride != Some(4));
    let svg = speedup_by_density(&rows).unwrap();
    assert!(svg.contains("1 / density"), "{svg}");
    assert!(!svg.contains("forward + backward"), "{svg}");
}
