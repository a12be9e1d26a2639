//! How the server's seats are divided among the levels by what each could use. Pure.
//!
//! Behaviour: upstream's max-min fairness in proportion to targets (KEP-1040): every level gets the same share of its
//! target, but never less than its lower bound nor more than its upper one.

/// One level's part of the question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    pub lower: f64,
    pub upper: f64,
    pub target: f64,
}

/// Below this a target is taken for this, so that shares are finite.
const LEAST_TARGET: f64 = 0.001;
/// So many halvings find the share to a part in a million million.
const STEPS: usize = 60;

/// What each claim gets, and the share of its target that an unbounded one got. The sum is `seats`, as far as the bounds
/// allow.
pub fn divide(seats: f64, claims: &[Claim]) -> (Vec<f64>, f64) {
    let given = |share: f64| {
        claims.iter().map(move |claim| (claim.target.max(LEAST_TARGET) * share).clamp(claim.lower, claim.upper))
    };
    // What is given grows with the share: from all lower bounds at zero to all upper ones at some finite share.
    let ratios = claims.iter().map(|claim| claim.upper / claim.target.max(LEAST_TARGET));
    let (mut low, mut high) = (0.0, ratios.fold(0.0, f64::max));
    for _ in 0..STEPS {
        let middle = (low + high) / 2.0;
        if given(middle).sum::<f64>() < seats { low = middle } else { high = middle }
    }
    (given(high).collect(), high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seats: f64, claims: &[(f64, f64, f64)], expected: &[f64]) {
        let claims: Vec<Claim> = claims
            .iter()
            .map(|(lower, upper, target)| Claim { lower: *lower, upper: *upper, target: *target })
            .collect();
        let (given, _) = divide(seats, &claims);
        assert!(given.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{given:?} is not {expected:?}");
    }

    #[test]
    fn seats_follow_demand_within_bounds() {
        check(100.0, &[(0.0, 100.0, 10.0), (0.0, 100.0, 30.0)], &[25.0, 75.0]);
        check(100.0, &[(40.0, 100.0, 40.0), (0.0, 100.0, 400.0)], &[40.0, 60.0]);
        check(100.0, &[(0.0, 20.0, 10.0), (0.0, 200.0, 10.0)], &[20.0, 80.0]);
        check(100.0, &[(50.0, 100.0, 50.0), (50.0, 100.0, 500.0)], &[50.0, 50.0]);
        check(100.0, &[(0.0, 30.0, 0.0), (0.0, 30.0, 1.0)], &[30.0, 30.0]);
        check(0.0, &[(0.0, 30.0, 1.0)], &[0.0]);
    }
}
