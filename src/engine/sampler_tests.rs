//! The sampler against a naive reference, and its distribution against softmax.

use proptest::prelude::*;

use super::*;

fn mask(n_vocab: usize) -> Mask {
    Mask { n_vocab, ..Mask::default() }
}

fn draw_many(params: &SamplingParams, logits: &[f32], n: usize) -> Vec<TokenId> {
    let mut sampler = Sampler::new(params.clone(), &[]);
    (0..n).map(|_| sampler.sample(&mut logits.to_vec(), &mask(logits.len())).unwrap()).collect()
}

/// The kept ids by the words of the module's docs: sort everything, cut three times.
fn naive_kept(params: &SamplingParams, logits: &[f32]) -> Vec<TokenId> {
    let mut all: Vec<(TokenId, f64)> =
        logits.iter().enumerate().map(|(i, &l)| (i as TokenId, f64::from(l))).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if params.top_k > 0 {
        all.truncate(params.top_k as usize);
    }
    let best = all[0].1;
    let weights: Vec<f64> = all.iter().map(|(_, l)| (l - best).exp()).collect();
    let mass = f64::from(params.top_p) * weights.iter().sum::<f64>();
    let mut sum = 0.0;
    let n_top_p = weights.iter().position(|w| {
        sum += w;
        sum >= mass
    });
    let n_top_p = if params.top_p < 1.0 { n_top_p.map_or(all.len(), |n| n + 1) } else { all.len() };
    let n_min_p = weights.iter().filter(|&&w| w >= f64::from(params.min_p)).count();
    all[..n_top_p.min(n_min_p)].iter().map(|&(id, _)| id).collect()
}

fn kept(params: &SamplingParams, logits: &[f32]) -> Vec<TokenId> {
    let mut out = Vec::new();
    select_candidates(params, logits, likeliest(logits).unwrap(), &mut out);
    out.iter().map(|c| c.id).collect()
}

fn any_logits() -> impl Strategy<Value = Vec<f32>> {
    // Quarters, so that equal logits happen.
    prop::collection::vec((-40_i8..40).prop_map(|x| f32::from(x) / 4.0), 1..400)
}

proptest! {
    #[test]
    fn filters_keep_what_the_naive_ones_keep(
        logits in any_logits(), top_k in 0_u32..200, top_p in 0.0_f32..=1.0, min_p in 0.0_f32..0.5,
    ) {
        for params in [
            SamplingParams { top_k, ..SamplingParams::neutral() },
            SamplingParams { top_p, ..SamplingParams::neutral() },
            SamplingParams { min_p, ..SamplingParams::neutral() },
            SamplingParams { top_k, top_p, min_p, ..SamplingParams::neutral() },
        ] {
            let mut ours = kept(&params, &logits);
            let mut theirs = naive_kept(&params, &logits);
            ours.sort_unstable();
            theirs.sort_unstable();
            // Masses are summed in different orders, so that a candidate on the very edge may fall either way.
            if ours.len().abs_diff(theirs.len()) == 1 && params.top_p < 1.0 {
                prop_assert!(on_the_edge(&params, &logits), "{ours:?} {theirs:?}");
            } else {
                prop_assert_eq!(ours, theirs);
            }
        }
    }

    #[test]
    fn greedy_ignores_the_seed_and_equals_top_k_1(logits in any_logits(), a in any::<u64>(), b in any::<u64>()) {
        let with_seed = |params: SamplingParams, seed| {
            draw_many(&SamplingParams { seed: Some(seed), ..params }, &logits, 3)
        };
        let greedy = with_seed(SamplingParams::greedy(), a);
        prop_assert_eq!(&greedy, &with_seed(SamplingParams::greedy(), b));
        prop_assert_eq!(&greedy, &with_seed(SamplingParams { top_k: 1, ..SamplingParams::neutral() }, b));
        let first_best = logits.iter().position(|&l| logits.iter().all(|&m| m <= l)).unwrap();
        prop_assert_eq!(greedy[0] as usize, first_best);
    }

    #[test]
    fn banned_and_padded_ids_never_come(logits in any_logits(), seed in any::<u64>()) {
        prop_assume!(logits.len() > 3);
        let params = SamplingParams { seed: Some(seed), temperature: 2.0, ..SamplingParams::neutral() };
        let mask = Mask { n_vocab: logits.len() - 1, banned: vec![0, 2], end_of_generation: vec![] };
        let mut sampler = Sampler::new(params, &[]);
        for _ in 0..50 {
            let id = sampler.sample(&mut logits.clone(), &mask).unwrap() as usize;
            prop_assert!(id != 0 && id != 2 && id != logits.len() - 1);
        }
    }
}

/// Whether some prefix has the mass of `top_p` within the rounding of a sum.
fn on_the_edge(params: &SamplingParams, logits: &[f32]) -> bool {
    let all = SamplingParams { top_p: 1.0, min_p: 0.0, ..params.clone() };
    let weights: Vec<f64> =
        naive_kept(&all, logits).iter().map(|&i| f64::from(logits[i as usize]).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut sum = 0.0;
    weights.iter().any(|w| {
        sum += w / total;
        (sum - f64::from(params.top_p)).abs() < 1e-9
    })
}

#[test]
fn draws_follow_softmax() {
    let logits = [2.0_f32, 1.0, 0.0, -1.0, 1.0, -3.0];
    let n_draws = 200_000;
    for temperature in [0.5_f32, 1.0, 2.0] {
        let params = SamplingParams { temperature, seed: Some(11), ..SamplingParams::neutral() };
        let mut n_seen = [0_u32; 6];
        for id in draw_many(&params, &logits, n_draws) {
            n_seen[id as usize] += 1;
        }
        let weights = logits.map(|l| f64::from(l / temperature).exp());
        let total: f64 = weights.iter().sum();
        let chi_square: f64 = std::iter::zip(n_seen, weights)
            .map(|(seen, w)| {
                let expected = w / total * n_draws as f64;
                (f64::from(seen) - expected).powi(2) / expected
            })
            .sum();
        // 5 degrees of freedom: a fair sampler is above 20.5 once in a thousand seeds; this one is fixed.
        assert!(chi_square < 20.5, "temperature {temperature}: chi-square {chi_square}, counts {n_seen:?}");
    }
}

#[test]
fn equal_seeds_give_equal_ids() {
    let logits: Vec<f32> = (0..500).map(|i| ((i * 37) % 101) as f32 / 20.0).collect();
    let params = |seed| SamplingParams { seed: Some(seed), top_p: 0.9, ..SamplingParams::neutral() };
    assert_eq!(draw_many(&params(5), &logits, 64), draw_many(&params(5), &logits, 64));
    assert_ne!(draw_many(&params(5), &logits, 64), draw_many(&params(6), &logits, 64));
    let unseeded = SamplingParams { seed: None, ..params(0) };
    assert_ne!(draw_many(&unseeded, &logits, 64), draw_many(&unseeded, &logits, 64));
}

/// The logits that the sampler sees after `prompt` and the greedy tokens that the first `n` rows give.
fn penalised(params: &SamplingParams, prompt: &[TokenId], generated: &[TokenId], logits: &[f32]) -> Vec<f32> {
    let mask = Mask { end_of_generation: vec![3], ..mask(logits.len()) };
    let mut sampler = Sampler::new(params.clone(), prompt);
    for &id in generated {
        let mut one_choice = vec![f32::NEG_INFINITY; logits.len()];
        one_choice[id as usize] = 1e6;
        assert_eq!(sampler.sample(&mut one_choice, &mask), Ok(id));
    }
    let mut out = logits.to_vec();
    sampler.penalise(&mut out, &mask);
    out
}

#[test]
fn penalties_hit_what_was_said() {
    let logits = [4.0_f32, -2.0, 1.0, 1.0, 1.0];
    let repeat = SamplingParams { repeat_penalty: 2.0, repeat_last_n: 3, ..SamplingParams::greedy() };
    // Token 4 is too long ago, token 3 ends generations and is spared.
    assert_eq!(penalised(&repeat, &[4, 4, 0, 3, 1], &[], &logits), [2.0, -4.0, 1.0, 1.0, 1.0]);
    assert_eq!(penalised(&repeat, &[0, 1], &[2, 2], &logits), [4.0, -4.0, 0.5, 1.0, 1.0]);
    let added = SamplingParams { presence_penalty: 0.5, frequency_penalty: 0.25, ..SamplingParams::greedy() };
    // The prompt does not count here.
    assert_eq!(penalised(&added, &[0, 1], &[2, 4, 2], &logits), [4.0, -2.0, 0.0, 1.0, 0.25]);
}

#[test]
fn a_row_without_numbers_is_an_error() {
    let mut sampler = Sampler::new(SamplingParams::neutral(), &[]);
    assert_eq!(sampler.sample(&mut [f32::NAN, f32::NAN], &mask(2)), Err(NoCandidate));
    assert_eq!(sampler.sample(&mut [f32::NAN, 1.0], &mask(2)), Ok(1));
    let banned = Mask { banned: vec![0], ..mask(1) };
    assert_eq!(sampler.sample(&mut [1.0], &banned), Err(NoCandidate));
}

#[test]
fn fields_out_of_range_are_named() {
    type Set = fn(&mut SamplingParams, f32);
    let fields: [(&str, Set); 6] = [
        ("temperature", |p, x| p.temperature = x),
        ("top_p", |p, x| p.top_p = x),
        ("min_p", |p, x| p.min_p = x),
        ("repeat_penalty", |p, x| p.repeat_penalty = x),
        ("presence_penalty", |p, x| p.presence_penalty = x),
        ("frequency_penalty", |p, x| p.frequency_penalty = x),
    ];
    for (name, set) in fields {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -2.5, 1e30] {
            let mut params = SamplingParams::neutral();
            set(&mut params, bad);
            assert_eq!(params.validate().unwrap_err().field, name, "{bad}");
        }
    }
    let long = SamplingParams { repeat_last_n: usize::MAX, ..SamplingParams::neutral() };
    assert_eq!(long.validate().unwrap_err().field, "repeat_last_n");
    assert!(SamplingParams::greedy().validate().is_ok());
}
