//! A backend's share, divided among the clusters that stand for it in one route. Owns: the
//! arithmetic, and what it does where whole numbers do not divide. Must not: know names or texts.

/// The largest sum that Envoy accepts for the weights of a route.
const SUM_MAX: u64 = u32::MAX as u64;

/// A weighted cluster, to be weighed.
#[derive(Clone, Copy)]
pub(super) struct Member {
    /// The index of the backend that it stands for, if any.
    pub(super) backend: Option<usize>,
    /// The ConfigMap's weight, in which those of one backend divide its share.
    pub(super) own: u32,
}

/// Returns the weight of each of a route's clusters if the backends weigh `shares`; an error with
/// the sum where that is 0, or more than Envoy takes.
///
/// 1. A cluster that stands alone for its backend gets its share.
/// 2. Of several each gets its part, as the ConfigMap divides them: equal parts where all are 0.
/// 3. Where a part is not a whole number, all weights are multiplied until each is, and reduced by
///    what they have in common.
/// 4. Where that is more than Envoy takes, the sum is as large as it may be, each backend has
///    exactly its share of it, and parts are rounded by the largest remainder.
pub(super) fn divide(members: &[Member], shares: &[u64]) -> Result<Vec<u32>, u64> {
    // For each backend: the sum of what its clusters weigh now, and how many they are.
    let mut groups = vec![(0_u128, 0_u128); shares.len()];
    for Member { backend, own } in members {
        if let Some((sum, count)) = backend.and_then(|i| groups.get_mut(i)) {
            *sum += u128::from(*own);
            *count += 1;
        }
    }
    let present = shares
        .iter()
        .zip(&groups)
        .filter(|(_, (_, count))| *count > 0);
    let total = present.fold(0_u64, |sum, (share, _)| sum.saturating_add(*share));
    if total == 0 || total > SUM_MAX {
        return Err(total);
    }
    if groups.iter().all(|(_, count)| *count < 2) {
        // Nearly every route.
        let share = |member: &Member| member.backend.map_or(0, |i| shares[i] as u32);
        return Ok(members.iter().map(share).collect());
    }
    // Each cluster's part of its backend's share: by how much, of how much.
    let parts: Vec<(u128, u128, u128)> = members
        .iter()
        .map(|member| match member.backend.map(|i| (i, groups[i])) {
            None => (0, 0, 1),
            Some((i, (_, 1))) => (shares[i].into(), 1, 1),
            Some((i, (0, count))) => (shares[i].into(), 1, count),
            Some((i, (sum, _))) => (shares[i].into(), member.own.into(), sum),
        })
        .collect();
    let weights = exact(&parts).unwrap_or_else(|| rounded(members, &parts, total));
    Ok(weights
        .into_iter()
        .map(|weight| u32::try_from(weight).unwrap_or(u32::MAX))
        .collect())
}

/// Does steps 1 to 3. Returns `None` where the weights would be too large.
fn exact(parts: &[(u128, u128, u128)]) -> Option<Vec<u128>> {
    let mut factor = 1_u128;
    for (share, by, of) in parts {
        let of = of / gcd(share * by, *of);
        factor = (factor / gcd(factor, of)).checked_mul(of)?;
    }
    let mut weights = Vec::with_capacity(parts.len());
    for (share, by, of) in parts {
        let common = gcd(share * by, *of);
        weights.push((share * by / common).checked_mul(factor / (of / common))?);
    }
    if factor > 1 {
        reduce(&mut weights);
    }
    let sum = weights
        .iter()
        .try_fold(0_u128, |sum, weight| sum.checked_add(*weight))?;
    (sum <= SUM_MAX.into()).then_some(weights)
}

/// Does step 4. Its result divides the shares exactly the next time.
fn rounded(members: &[Member], parts: &[(u128, u128, u128)], total: u64) -> Vec<u128> {
    let factor = u128::from(SUM_MAX / total);
    let part =
        |(share, by, of): &(u128, u128, u128)| (share * factor * by / of, share * factor * by % of);
    let (mut weights, mut remainders): (Vec<u128>, Vec<u128>) = parts.iter().map(part).unzip();
    for (at, Member { backend, .. }) in members.iter().enumerate() {
        let is_ours = |other: &usize| backend.is_some() && members[*other].backend == *backend;
        // What is left of its share goes to the largest remainders, of equal ones to the first.
        let given: u128 = (0..members.len())
            .filter(is_ours)
            .map(|other| weights[other])
            .sum();
        let left = (parts[at].0 * factor).saturating_sub(given);
        for _ in 0..left {
            let ours = (0..members.len()).rev().filter(is_ours);
            if let Some(largest) = ours.max_by_key(|other| remainders[*other]) {
                weights[largest] += 1;
                remainders[largest] = 0;
            }
        }
    }
    if weights.iter().all(|weight| weight.is_multiple_of(factor)) {
        weights.iter_mut().for_each(|weight| *weight /= factor);
    } else {
        reduce(&mut weights);
    }
    weights
}

/// Divides all by their greatest common divisor.
fn reduce(weights: &mut [u128]) {
    let common = weights
        .iter()
        .fold(0, |common, weight| gcd(common, *weight));
    weights
        .iter_mut()
        .for_each(|weight| *weight /= common.max(1));
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(clusters: &[(usize, u32)]) -> Vec<Member> {
        let member = |(backend, own): &(usize, u32)| Member {
            backend: Some(*backend).filter(|i| *i < 9),
            own: *own,
        };
        clusters.iter().map(member).collect()
    }

    /// Divides, and divides the result once more. 9 stands for no backend.
    #[track_caller]
    fn check(clusters: &[(usize, u32)], shares: &[u64], want: Result<&[u32], u64>) {
        let found = divide(&members(clusters), shares);
        assert_eq!(found.as_deref().map_err(|sum| *sum), want);
        if let Ok(weights) = found {
            let again = clusters
                .iter()
                .zip(&weights)
                .map(|((i, _), own)| (*i, *own));
            let again = divide(&members(&again.collect::<Vec<_>>()), shares);
            assert_eq!(again.as_ref(), Ok(&weights), "once more");
        }
    }

    #[test]
    fn a_share_is_divided_as_the_configmap_divides_it() {
        check(&[(0, 1), (1, 0)], &[75, 25], Ok(&[75, 25]));
        check(&[(0, 90), (0, 10), (1, 0)], &[90, 10], Ok(&[81, 9, 10]));
        check(&[(0, 90), (1, 0), (0, 10)], &[100, 0], Ok(&[90, 0, 10]));
        check(&[(0, 1), (0, 1), (1, 5)], &[50, 50], Ok(&[25, 25, 50]));
        check(&[(0, 0), (0, 7), (1, 5)], &[50, 50], Ok(&[0, 50, 50]));
        check(&[(0, 1), (9, 80), (0, 1)], &[50, 50], Ok(&[25, 0, 25]));
    }

    #[test]
    fn a_weight_with_a_fraction_is_scaled_and_reduced() {
        check(&[(0, 50), (0, 50), (1, 0)], &[75, 25], Ok(&[3, 3, 2]));
        check(&[(0, 1), (0, 2), (1, 0)], &[90, 10], Ok(&[30, 60, 10]));
        check(&[(0, 1), (0, 2), (1, 0)], &[1, 1], Ok(&[1, 2, 3]));
        check(
            &[(0, 1), (0, 2), (1, 3), (1, 4)],
            &[50, 50],
            Ok(&[7, 14, 9, 12]),
        );
        check(&[(0, 1), (0, 1), (0, 1)], &[100], Ok(&[1, 1, 1]));
    }

    #[test]
    fn a_share_is_divided_equally_where_all_weights_are_0() {
        check(&[(0, 0), (0, 0), (1, 9)], &[90, 10], Ok(&[45, 45, 10]));
        check(
            &[(0, 0), (0, 0), (0, 0), (1, 9)],
            &[50, 50],
            Ok(&[1, 1, 1, 3]),
        );
        check(&[(0, 0), (0, 0), (1, 9)], &[0, 10], Ok(&[0, 0, 10]));
    }

    #[test]
    fn what_would_be_too_large_is_rounded_by_the_largest_remainder() {
        let max = u32::MAX;
        // 3 * max / 2 for each of two would be exact.
        check(&[(0, 1), (0, 1)], &[max.into()], Ok(&[1, 1]));
        check(
            &[(0, 1), (0, 2), (1, 1)],
            &[u64::from(max) - 2, 1],
            Ok(&[1_431_655_764, 2_863_311_529, 1]),
        );
        // Of 2147483647 for each backend, by which the split is multiplied.
        check(
            &[(0, 2_147_483_648), (0, 2_147_483_647), (1, 1)],
            &[1, 1],
            Ok(&[1_073_741_824, 1_073_741_823, 2_147_483_647]),
        );
        // Many divisors that have nothing in common.
        let primes = [
            65_521, 65_519, 65_497, 65_479, 65_449, 65_447, 65_437, 65_423, 65_419,
        ];
        let clusters: Vec<(usize, u32)> = primes
            .iter()
            .enumerate()
            .flat_map(|(i, prime)| [(i.min(8), 1), (i.min(8), prime - 1)])
            .collect();
        let weights = divide(&members(&clusters), &[1; 9]).unwrap();
        let sums: Vec<u32> = weights.chunks(2).map(|pair| pair[0] + pair[1]).collect();
        assert!(sums.iter().all(|sum| *sum == max / 9), "{sums:?}");
        let again: Vec<_> = clusters
            .iter()
            .zip(&weights)
            .map(|((i, _), own)| (*i, *own))
            .collect();
        assert_eq!(divide(&members(&again), &[1; 9]), Ok(weights));
    }

    #[test]
    fn shares_that_are_0_together_or_too_large_are_not_divided() {
        let max = u64::from(u32::MAX);
        check(&[(0, 1), (1, 1)], &[0, 0, 5], Err(0));
        check(&[(0, 1), (0, 1), (1, 1)], &[max, 1], Err(max + 1));
        check(&[(0, 1), (1, 1)], &[u64::MAX, 1], Err(u64::MAX));
        check(&[(9, 1)], &[1], Err(0));
    }
}
