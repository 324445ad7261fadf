//! Formulas fitted to measurements: a sum of terms, each with a coefficient that is not negative.

/// Coefficients of the terms, in their order, which minimise the sum of squared relative errors. A
/// term whose coefficient would be negative is left out: more of something does not cost less.
///
/// `samples`: for each measurement the values of all terms, and what was measured, above zero.
pub(crate) fn coefficients(samples: &[(Vec<f64>, f64)]) -> Vec<f64> {
    let terms = samples.first().map_or(0, |(values, _)| values.len());
    let mut used: Vec<usize> = (0..terms).collect();
    loop {
        let found = solve(samples, &used);
        let lowest = found.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1));
        match lowest {
            Some((at, &value)) if value < 0.0 => {
                used.remove(at);
            }
            _ => {
                let mut all = vec![0.0; terms];
                for (term, value) in used.iter().zip(found) {
                    all[*term] = value;
                }
                return all;
            }
        }
    }
}

/// What the formula says.
pub(crate) fn value(coefficients: &[f64], terms: &[f64]) -> f64 {
    coefficients.iter().zip(terms).map(|(a, b)| a * b).sum()
}

/// Least squares by the normal equations, whose columns are scaled so that terms of very different
/// sizes lose no digits. A term that the others determine gets 0.
fn solve(samples: &[(Vec<f64>, f64)], used: &[usize]) -> Vec<f64> {
    let weighted = |term: usize| samples.iter().map(move |(terms, y)| terms[term] / y);
    let scale: Vec<f64> =
        used.iter().map(|&term| weighted(term).map(|x| x * x).sum::<f64>().sqrt()).collect();
    let size = used.len();
    let mut matrix = vec![vec![0.0; size + 1]; size];
    for (row, &a) in used.iter().enumerate() {
        for (column, &b) in used.iter().enumerate() {
            let product: f64 = weighted(a).zip(weighted(b)).map(|(x, y)| x * y).sum();
            matrix[row][column] = product / (scale[row] * scale[column]);
        }
        matrix[row][size] = weighted(a).sum::<f64>() / scale[row];
    }
    eliminate(&mut matrix).iter().zip(scale).map(|(x, scale)| x / scale).collect()
}

fn eliminate(matrix: &mut [Vec<f64>]) -> Vec<f64> {
    const NEGLIGIBLE: f64 = 1e-12;
    let size = matrix.len();
    for column in 0..size {
        let pivot = (column..size)
            .max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()));
        matrix.swap(column, pivot.unwrap_or(column));
        if matrix[column][column].abs() < NEGLIGIBLE {
            continue;
        }
        let line = matrix[column].clone();
        for (number, other) in matrix.iter_mut().enumerate() {
            if number != column {
                let factor = other[column] / line[column];
                other.iter_mut().zip(&line).for_each(|(x, y)| *x -= factor * y);
            }
        }
    }
    let solved = matrix.iter().enumerate().map(|(n, line)| match line[n].abs() {
        pivot if pivot < NEGLIGIBLE => 0.0,
        _ => line[size] / line[n],
    });
    solved.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_formula_is_found_and_a_term_that_is_not_in_it_gets_nothing() {
        let sizes = [(100.0, 1.0), (200.0, 1.0), (400.0, 8.0), (800.0, 2.0), (100.0, 16.0)];
        let sample = |(n, g): (f64, f64)| {
            let terms = vec![1.0, n, n * g, n * n];
            let measured = 5.0 + 0.25 * n + 1e-3 * n * g;
            (terms, measured)
        };
        let samples: Vec<_> = sizes.map(sample).into();
        let found = coefficients(&samples);
        for (found, expected) in found.iter().zip([5.0, 0.25, 1e-3, 0.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
        for (terms, measured) in &samples {
            assert!((value(&found, terms) / measured - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn a_term_that_would_be_negative_is_left_out() {
        let samples: Vec<_> =
            [1.0, 2.0, 4.0, 8.0].map(|n: f64| (vec![n, n * n], 10.0 * n - n * n)).into();
        let found = coefficients(&samples);
        assert_eq!(found[1], 0.0);
        assert!(found[0] > 0.0);
    }
}
