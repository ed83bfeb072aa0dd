//! Calls on a cache: their sizes, and what is refused.

use s2_attention_kernels::ProblemError;
use s2_attention_kernels::cache::{CacheError, CacheProblem, CacheShape};
use s2_attention_pattern::{Pattern, PatternConfig, Rule};

const SHAPE: CacheShape = CacheShape {
    items: 3,
    rows: 20,
    num_heads: 4,
    num_kv_heads: 2,
    head_dim: 16,
    value_dim: 8,
    pages: 100,
    capacity: 12,
    decode_tokens: 1,
    max_tokens: 1000,
};

fn pattern() -> Pattern {
    let config = PatternConfig::local_stride(2, 4, 32, 4).with_num_kv_heads(2);
    config.build().unwrap()
}

fn refused(shape: CacheShape) -> (CacheError, String) {
    let error = CacheProblem::new(shape, &pattern(), None).unwrap_err();
    let message = error.to_string();
    (error, message)
}

#[test]
fn sizes() {
    let problem = CacheProblem::new(SHAPE, &pattern(), None).unwrap();
    assert_eq!(problem.shape(), &SHAPE);
    assert_eq!(problem.pattern(), &pattern());
    assert_eq!(problem.scale(), 0.25);
    assert_eq!(problem.f32_scale(), Ok(0.25));
    let (keys, values) = (problem.key_pool(), problem.value_pool());
    assert_eq!((keys.pages, keys.block_size, keys.width), (100, 32, 16));
    assert_eq!((values.len(), values.page_len()), (100 * 32 * 8, 32 * 8));
    let layout = problem.layout();
    assert_eq!(layout.len(), 3 * (3 + 2 * (1 + 2 * 12)));
    let problem = CacheProblem::new(SHAPE, &pattern(), Some(-2.0)).unwrap();
    assert_eq!(problem.scale(), -2.0);
}

#[test]
fn empty_axes() {
    type Axis = (&'static str, fn(&mut CacheShape) -> &mut usize);
    let axes: [Axis; 9] = [
        ("items", |shape| &mut shape.items),
        ("rows", |shape| &mut shape.rows),
        ("num_heads", |shape| &mut shape.num_heads),
        ("num_kv_heads", |shape| &mut shape.num_kv_heads),
        ("head_dim", |shape| &mut shape.head_dim),
        ("value_dim", |shape| &mut shape.value_dim),
        ("pages", |shape| &mut shape.pages),
        ("capacity", |shape| &mut shape.capacity),
        ("decode_tokens", |shape| &mut shape.decode_tokens),
    ];
    for (axis, field) in axes {
        let mut shape = SHAPE;
        *field(&mut shape) = 0;
        let (error, message) = refused(shape);
        assert_eq!(error, CacheError::EmptyAxis { axis });
        assert!(message.starts_with(&format!("{axis} is 0")), "{message}");
    }
}

#[test]
fn heads_and_scales() {
    let (error, message) = refused(CacheShape {
        num_heads: 8,
        ..SHAPE
    });
    let (seen, accepted) = (8, 4);
    assert_eq!(error, ProblemError::QueryHeads { seen, accepted }.into());
    assert!(message.contains("q has 8 heads"), "{message}");
    let (error, _) = refused(CacheShape {
        num_kv_heads: 4,
        ..SHAPE
    });
    let (seen, accepted) = (4, 2);
    assert_eq!(error, ProblemError::KeyValueHeads { seen, accepted }.into());
    for seen in [f64::INFINITY, f64::MAX] {
        let error = CacheProblem::new(SHAPE, &pattern(), Some(seen)).unwrap_err();
        assert_eq!(error, ProblemError::Scale { seen }.into());
    }
    // Finite in f64 only.
    let problem = CacheProblem::new(SHAPE, &pattern(), Some(1e300)).unwrap();
    assert_eq!(
        problem.f32_scale(),
        Err(ProblemError::Scale { seen: 1e300 })
    );
}

#[test]
fn patterns_that_look_ahead() {
    let rule = Rule::Dense { causal: false };
    let pattern = PatternConfig::new(rule, 32, 4).with_num_kv_heads(2);
    let error = CacheProblem::new(SHAPE, &pattern.build().unwrap(), None).unwrap_err();
    assert_eq!(error, CacheError::NotCausal { head: 0 });
}

#[test]
fn sizes_that_cannot_be_counted() {
    let accepted = i32::MAX as usize;
    let seen = 1 << 31;
    let (error, message) = refused(CacheShape {
        rows: seen,
        ..SHAPE
    });
    assert_eq!(error, CacheError::Rows { seen, accepted });
    assert!(message.contains("2147483648"), "{message}");
    let (error, _) = refused(CacheShape {
        pages: seen,
        ..SHAPE
    });
    assert_eq!(error, CacheError::PageLimit { seen, accepted });
    for max_tokens in [0, seen] {
        let (error, _) = refused(CacheShape {
            max_tokens,
            ..SHAPE
        });
        let seen = max_tokens;
        assert_eq!(error, CacheError::MaxTokens { seen, accepted });
    }
    let (error, _) = refused(CacheShape {
        capacity: usize::MAX,
        ..SHAPE
    });
    let seen = usize::MAX;
    assert_eq!(error, CacheError::Words { seen, accepted });
    let (error, _) = refused(CacheShape {
        items: 1 << 26,
        ..SHAPE
    });
    let seen = (1 << 26) * (3 + 2 * 25);
    assert_eq!(error, CacheError::Words { seen, accepted });
}
