//! Whether gradients keep dS between their passes, and how much of it.

use super::error::CubeError;
use crate::AttentionShape;

/// Whether dS is kept, as `S2_KEEP` in the environment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Where it pays: narrow heads compute it as fast as they read it.
    Wide,
    Never,
    Always,
    /// Of all heads, at most so many bytes at a time.
    Within(usize),
}

impl Keep {
    const VARIABLE: &str = "S2_KEEP";

    /// # Errors
    /// [`CubeError::Variable`] for what says nothing.
    pub(super) fn of_environment() -> Result<Self, CubeError> {
        match std::env::var_os(Self::VARIABLE) {
            None => Ok(Self::Wide),
            Some(value) => Self::parse(&value.to_string_lossy()),
        }
    }

    fn parse(value: &str) -> Result<Self, CubeError> {
        let mebibytes = |value: &str| {
            let digits = value.strip_suffix("MiB")?;
            let all = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<usize>().ok().filter(|_| all)
        };
        match value {
            "0" => Ok(Self::Never),
            "1" => Ok(Self::Always),
            _ => mebibytes(value)
                .and_then(|count| count.checked_mul(1 << 20))
                .map(Self::Within)
                .ok_or_else(|| CubeError::Variable {
                    name: Self::VARIABLE,
                    seen: value.to_owned(),
                    accepted: "0, 1, or the most that is kept at a time, as in 512MiB",
                }),
        }
    }

    /// Most bytes of dS that are kept at a time, where it is kept: nine quarters of those of what the gradients read and write, unless it
    /// says otherwise. Twice these just miss a whole number of dense causal heads, whose tiles on the diagonal are whole.
    pub(super) fn budget(self, shape: &AttentionShape, element: usize) -> Option<usize> {
        let tokens = shape.num_heads * shape.seq_q + shape.num_kv_heads * shape.seq_kv;
        // Queries, results, keys and values, and the gradient of each.
        let operands = 2 * shape.batch * tokens * (shape.head_dim + shape.value_dim) * element;
        match self {
            Self::Wide => (shape.head_dim > 64).then_some(9 * operands / 4),
            Self::Never => None,
            Self::Always => Some(9 * operands / 4),
            Self::Within(bytes) => Some(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_environment_says_is_taken_or_refused() {
        assert_eq!(Keep::parse("0"), Ok(Keep::Never));
        assert_eq!(Keep::parse("1"), Ok(Keep::Always));
        assert_eq!(Keep::parse("3MiB"), Ok(Keep::Within(3 << 20)));
        for value in [
            "",
            "2",
            "yes",
            "MiB",
            "-1MiB",
            "+1MiB",
            "3 MiB",
            "99999999999999999999MiB",
        ] {
            let why = Keep::parse(value).unwrap_err().to_string();
            let expected = format!("S2_KEEP is \"{value}\"; accepted: 0, 1, or");
            assert!(why.starts_with(&expected), "{why}");
        }
    }

    #[test]
    fn budgets_follow_the_bytes_of_a_call() {
        let shape = |head_dim| AttentionShape {
            batch: 1,
            num_heads: 4,
            num_kv_heads: 2,
            seq_q: 100,
            seq_kv: 50,
            head_dim,
            value_dim: 64,
        };
        // Rows of all query and key/value heads.
        let rows = 4 * 100 + 2 * 50;
        let most = |head_dim: usize| Some(2 * rows * (head_dim + 64) * 2 * 9 / 4);
        for (keep, narrow, wide) in [
            (Keep::Wide, None, most(128)),
            (Keep::Never, None, None),
            (Keep::Always, most(64), most(128)),
            (Keep::Within(5), Some(5), Some(5)),
        ] {
            assert_eq!(keep.budget(&shape(64), 2), narrow, "{keep:?}");
            assert_eq!(keep.budget(&shape(128), 2), wide, "{keep:?}");
        }
    }
}
