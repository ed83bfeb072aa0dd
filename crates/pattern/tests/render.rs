//! Pictures show exactly what a pattern attends.

use resvg::tiny_skia::{Color, Pixmap};
use roxmltree::{Document, Node};
use s2_attention_pattern::render::{
    MAX_PANELS, MAX_PICTURE_BLOCKS, Picture, RenderError, TextColor, View, layers_svg,
};
use s2_attention_pattern::{
    BlockMask, DenseLayers, LayerSchedule, Pattern, PatternConfig, PatternError, Rule,
};

/// Two heads whose columns differ.
fn tiny() -> Pattern {
    let config = PatternConfig::local_stride(2, 2, 16, 2);
    config.build().expect("valid")
}

fn with_empty_rows() -> Pattern {
    let kept = [true, false, false, false, false, false, true, false, true];
    let mask = BlockMask::new([1, 3, 3], &kept, true).expect("valid");
    let config = PatternConfig::new(Rule::Custom(mask), 16, 1);
    config.build().expect("valid")
}

fn text(pattern: &Pattern, blocks: usize, view: View, width: usize) -> String {
    let picture = Picture::new(pattern, blocks, view).expect("valid");
    picture.to_text(width, TextColor::None)
}

#[test]
fn text_of_a_tiny_pattern() {
    let expected = "\
local 2 + stride 2 (block 16, 2 heads, per head)
6 x 6 blocks of 16 tokens, density 72.5 %, all heads together cover 100.0 %
rows: query blocks; columns: key blocks

  head 0               head 1               both heads together
  0                    0                    0
0 █                    █                    █
  ██                   ██                   ██
  ┃██                  ·██                  ▒██
  ┃·██                 ·┃██                 ▒▒██
4 ┃·┃██                ·┃·██                ▒▒▒██
  ┃·┃·██               ·┃·┃██               ▒▒▒▒██

█ local window   ┃ stride   ░▒▓█ by few to all heads   · not attended
";
    assert_eq!(text(&tiny(), 6, View::Heads, 80), expected);
}

#[test]
fn text_shows_empty_rows_and_fits_the_width() {
    let shown = text(&with_empty_rows(), 3, View::Head(0), 30);
    assert!(shown.contains("\n0 █\n  ××\n  █·█\n"), "{shown}");
    assert!(shown.contains("× row that attends nothing"), "{shown}");

    let long = Pattern::local_stride(4, 4, 16, 4).expect("valid");
    for width in [1, 7, 20, 60, 300] {
        let shown = text(&long, 200, View::Heads, width);
        let limit = width.max(40);
        assert!(
            shown.lines().all(|line| line.chars().count() <= limit),
            "{width}:\n{shown}"
        );
    }
    assert!(text(&long, 200, View::Heads, 60).contains("a cell is 4 x 4 blocks"));
}

#[test]
fn colored_text_has_two_rows_in_a_line() {
    let picture = Picture::new(&tiny(), 6, View::Head(1)).expect("valid");
    for (color, code) in [
        (TextColor::Ansi256, "\x1b[38;5;"),
        (TextColor::TrueColor, "\x1b[38;2;"),
    ] {
        let shown = picture.to_text(80, color);
        assert!(shown.contains(code) && shown.contains('▀'), "{shown}");
        let rows = shown
            .lines()
            .filter(|line| line.contains(['▀', '▄']))
            .count();
        assert_eq!(rows, 3, "{shown}");
    }
}

/// The areas of the paths of a class, in cells; one for each panel that has the class.
fn areas(svg: &str, class: &str) -> Vec<usize> {
    let document = Document::parse(svg).expect("well-formed");
    let has_class = |node: &Node| node.attribute("class") == Some(class);
    let paths = document
        .descendants()
        .filter(|node| node.has_tag_name("path"));
    let area = |node: Node| {
        let data = node.attribute("d").expect("a path has data");
        let rectangles = data.split('M').skip(1);
        rectangles.map(rectangle_area).sum()
    };
    paths.filter(has_class).map(area).collect()
}

/// The area of `x,y hW vH h-W z`, which must be such a rectangle.
fn rectangle_area(data: &str) -> usize {
    let parts: Vec<&str> = data.split_whitespace().collect();
    let [_, right, down, left, "z"] = parts[..] else {
        panic!("{data}")
    };
    let width = right.strip_prefix('h').expect("right");
    assert_eq!(left.strip_prefix("h-"), Some(width));
    let height = down.strip_prefix('v').expect("down");
    width.parse::<usize>().expect("width") * height.parse::<usize>().expect("height")
}

#[test]
fn svg_covers_exactly_the_kept_blocks() {
    let config = PatternConfig::local_stride(3, 4, 64, 4).with_dense_heads(1);
    let pattern = config.build().expect("valid");
    let blocks = 24;
    let svg = Picture::new(&pattern, blocks, View::Heads)
        .expect("valid")
        .to_svg();

    let (local, stride) = (areas(&svg, "local"), areas(&svg, "stride"));
    assert_eq!((local.len(), stride.len()), (3, 3));
    for head in 0..3 {
        let kept = (0..blocks).flat_map(|i| (0..=i).map(move |j| (i, j)));
        let kept: Vec<_> = kept.filter(|&(i, j)| pattern.attends(head, i, j)).collect();
        let near = kept.iter().filter(|(i, j)| i - j < 3).count();
        assert_eq!([local[head], stride[head]], [near, kept.len() - near]);
    }
    assert_eq!(areas(&svg, "dense"), [24 * 25 / 2]);
    // Each block of the union is in one shade: by one head and the dense one, or by all.
    assert_eq!(areas(&svg, "union").iter().sum::<usize>(), 24 * 25 / 2);
    assert_eq!(areas(&svg, "dropped"), [24 * 25 / 2]);
    assert!(svg.len() < 16_000, "{} bytes", svg.len());
}

#[test]
fn svg_of_rows_that_attend_nothing_and_of_sinks() {
    let svg = Picture::new(&with_empty_rows(), 3, View::Heads)
        .expect("valid")
        .to_svg();
    assert_eq!(areas(&svg, "mask"), [3]);
    assert_eq!(areas(&svg, "empty-row"), [2]);

    let sink = Rule::SinkWindow {
        sink_blocks: 2,
        left: 3,
        right: None,
    };
    let pattern = PatternConfig::new(sink, 16, 2).build().expect("valid");
    let svg = Picture::new(&pattern, 10, View::Heads)
        .expect("valid")
        .to_svg();
    assert_eq!(areas(&svg, "sink"), [10 + 9]);
    assert_eq!(areas(&svg, "local"), [1 + 2 + 6 * 3]);
}

#[test]
fn long_sequences_are_drawn_in_coarse_cells() {
    let pattern = Pattern::local_stride(16, 8, 64, 8).expect("valid");
    let svg = Picture::new(&pattern, MAX_PICTURE_BLOCKS, View::Head(0))
        .expect("valid")
        .to_svg();
    // 128 cells of 512 blocks: every cell of the triangle has something of a stride or a window.
    let drawn = areas(&svg, "local")
        .into_iter()
        .chain(areas(&svg, "stride"));
    assert_eq!(drawn.sum::<usize>(), 128 * 129 / 2);
    assert!(svg.contains("a cell is 512 x 512 blocks"));
    assert!(svg.len() < 32_000, "{} bytes", svg.len());
}

#[test]
fn many_heads_are_left_out_with_a_word() {
    let pattern = Pattern::local_stride(1, 40, 64, 40).expect("valid");
    let svg = Picture::new(&pattern, 40, View::Heads)
        .expect("valid")
        .to_svg();
    assert_eq!(areas(&svg, "local").len(), MAX_PANELS);
    assert!(svg.contains("8 more heads are not drawn"));
}

#[test]
fn layers_are_merged() {
    let sparse = PatternConfig::local_stride(2, 4, 16, 4);
    let layers = LayerSchedule::new(sparse).with_dense_layers(DenseLayers::Listed(vec![0, 1, 5]));
    let layers = layers.patterns(6).expect("valid");
    let svg = layers_svg(&layers, 12).expect("valid");
    let document = Document::parse(&svg).expect("well-formed");
    let headings = document
        .descendants()
        .filter(|node| node.attribute("class") == Some("heading"));
    let headings: Vec<&str> = headings
        .filter_map(|node| node.text())
        .map(str::trim)
        .collect();
    assert_eq!(
        headings,
        [
            "layers 0-1, 5: dense causal (block 16, 4 heads, same for all heads)",
            "layers 2-4: local 2 + stride 4 (block 16, 4 heads, per head)",
        ]
    );
    assert_eq!(areas(&svg, "dense"), [12 * 13 / 2]);
    assert_eq!(areas(&svg, "stride").len(), 4);
}

/// The hexadecimal colour of a class in the light style sheet.
fn color_of(svg: &str, class: &str) -> Color {
    let rule = svg
        .split_once(&format!(".{class}{{fill:#"))
        .expect("styled")
        .1;
    let channel = |at: usize| u8::from_str_radix(&rule[at..at + 2], 16).expect("a colour");
    Color::from_rgba8(channel(0), channel(2), channel(4), 255)
}

#[test]
fn png_pixels_are_those_of_the_cells() {
    let picture = Picture::new(&tiny(), 6, View::Head(0)).expect("valid");
    let svg = picture.to_svg();
    let scale = 2.0;
    let pixmap = Pixmap::decode_png(&picture.to_png(scale).expect("drawn")).expect("a PNG");

    // The panel's place: the groups around the square of masked cells.
    let document = Document::parse(&svg).expect("well-formed");
    let square = document
        .descendants()
        .find(|node| node.attribute("class") == Some("masked"));
    let (mut corner, mut cell) = ([0.0, 0.0], 1.0);
    for group in square.expect("a panel").ancestors() {
        let transform = group.attribute("transform").unwrap_or("");
        let numbers = transform
            .split(['(', ' ', ')'])
            .filter_map(|part| part.parse::<f32>().ok());
        let numbers: Vec<f32> = numbers.collect();
        match (transform.split('(').next(), &numbers[..]) {
            (Some("translate"), [x, y]) => corner = [corner[0] + x, corner[1] + y],
            (Some("scale"), [factor]) => cell = *factor,
            _ => {}
        }
    }
    let pixel = |i: usize, j: usize| {
        let at =
            |corner: f32, index: usize| (scale * (corner + cell * (index as f32 + 0.5))) as u32;
        let pixel = pixmap
            .pixel(at(corner[0], j), at(corner[1], i))
            .expect("inside");
        let color = pixel.demultiply();
        Color::from_rgba8(color.red(), color.green(), color.blue(), color.alpha())
    };
    // Local, stride, dropped, after the query.
    assert_eq!(pixel(5, 5), color_of(&svg, "local"));
    assert_eq!(pixel(5, 4), color_of(&svg, "local"));
    assert_eq!(pixel(5, 2), color_of(&svg, "stride"));
    assert_eq!(pixel(5, 3), color_of(&svg, "dropped"));
    assert_eq!(pixel(1, 3), color_of(&svg, "masked"));
    // The labels are drawn: the title is dark on the card.
    let ink = pixmap
        .pixels()
        .iter()
        .filter(|pixel| pixel.red() < 64 && pixel.blue() < 80);
    assert!(ink.count() > 1000);
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let refused =
        |pattern: &Pattern, blocks, view| Picture::new(pattern, blocks, view).expect_err("refused");
    assert_eq!(
        refused(&tiny(), 0, View::Heads).to_string(),
        "`blocks` is 0, but must be at least 1"
    );
    assert_eq!(
        refused(&tiny(), MAX_PICTURE_BLOCKS + 1, View::Heads),
        RenderError::TooManyBlocks { blocks: 65537 }
    );
    assert_eq!(
        refused(&tiny(), 4, View::Head(2)),
        RenderError::NoSuchHead {
            head: 2,
            num_heads: 2
        }
    );
    assert!(matches!(
        refused(&with_empty_rows(), 4, View::Union),
        RenderError::Pattern(PatternError::BeyondTable { blocks: 4, .. })
    ));
    assert_eq!(
        Picture::of_layers(&[], 4).expect_err("refused"),
        RenderError::NoLayers
    );
    let picture = Picture::new(&tiny(), 4, View::Heads).expect("valid");
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-9, 1e9] {
        let error = picture.to_png(scale).expect_err("refused");
        assert!(matches!(error, RenderError::Png { .. }), "{error}");
    }
}
