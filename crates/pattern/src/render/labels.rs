//! Short names of lists of heads and layers.

/// Runs and single numbers that are listed, at most.
const MAX_PARTS: usize = 6;

/// "head 3", "heads 0-3, 8" or "heads 0, 8, ..., 24", with the numbers ascending; irregular lists are
/// cut short and counted.
pub(super) fn named(what: &str, numbers: &[usize]) -> String {
    let count = numbers.len();
    let plural = if count == 1 { "" } else { "s" };
    let parts = parts(numbers);
    match parts.get(..MAX_PARTS) {
        Some(first) if parts.len() > MAX_PARTS => {
            format!("{count} {what}{plural}: {}, ...", first.join(", "))
        }
        _ => format!("{what}{plural} {}", parts.join(", ")),
    }
}

fn parts(numbers: &[usize]) -> Vec<String> {
    let mut parts = Vec::new();
    let mut left = numbers;
    while let [first, rest @ ..] = left {
        let step = rest.first().map_or(0, |second| second - first);
        let run = 1 + left
            .windows(2)
            .take_while(|pair| pair[1] - pair[0] == step)
            .count();
        let last = left[run - 1];
        let taken = match (step, run) {
            (1, 2..) => {
                parts.push(format!("{first}-{last}"));
                run
            }
            (2.., 4..) => {
                parts.push(format!("{first}, {}, ..., {last}", first + step));
                run
            }
            _ => {
                parts.push(first.to_string());
                1
            }
        };
        left = &left[taken..];
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn runs_are_shortened() {
        assert_eq!(named("head", &[3]), "head 3");
        assert_eq!(named("head", &[0, 1]), "heads 0-1");
        assert_eq!(named("head", &[0, 8, 16]), "heads 0, 8, 16");
        assert_eq!(named("head", &[0, 8, 16, 24]), "heads 0, 8, ..., 24");
        assert_eq!(named("layer", &[0, 1, 2, 5, 9, 10]), "layers 0-2, 5, 9-10");
        assert_eq!(
            named("layer", &[0, 2, 4, 6, 7, 8]),
            "layers 0, 2, ..., 6, 7-8"
        );
        let squares: Vec<usize> = (0..20).map(|n| n * n).collect();
        assert_eq!(
            named("head", &squares),
            "20 heads: 0-1, 4, 9, 16, 25, 36, ..."
        );
    }
}
