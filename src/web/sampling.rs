//! The fields of sampling, which every programs' interface has under the same names: declared and applied here alone.

/// Declares a request that has the fields of sampling beside its own.
///
/// No `#[serde(flatten)]`: with it a refusal could not name the field any more.
macro_rules! with_sampling {
    ($(#[$meta:meta])* $visibility:vis struct $name:ident { $($own:tt)* }) => {
        $(#[$meta])*
        $visibility struct $name {
            $($own)*
            temperature: Option<f32>,
            top_k: Option<u32>,
            top_p: Option<f32>,
            min_p: Option<f32>,
            repeat_penalty: Option<f32>,
            presence_penalty: Option<f32>,
            frequency_penalty: Option<f32>,
            seed: Option<u64>,
        }

        impl $name {
            /// Puts what the request says in the place of what is usual; ranges are checked behind it.
            fn sampling(&self) -> impl FnOnce(&mut $crate::engine::SamplingParams) + Send + use<> {
                let &Self { temperature, top_k, top_p, min_p, repeat_penalty, .. } = self;
                let &Self { presence_penalty, frequency_penalty, seed, .. } = self;
                move |usual| {
                    usual.temperature = temperature.unwrap_or(usual.temperature);
                    usual.top_k = top_k.unwrap_or(usual.top_k);
                    usual.top_p = top_p.unwrap_or(usual.top_p);
                    usual.min_p = min_p.unwrap_or(usual.min_p);
                    usual.repeat_penalty = repeat_penalty.unwrap_or(usual.repeat_penalty);
                    usual.presence_penalty = presence_penalty.unwrap_or(usual.presence_penalty);
                    usual.frequency_penalty = frequency_penalty.unwrap_or(usual.frequency_penalty);
                    usual.seed = seed.or(usual.seed);
                }
            }
        }
    };
}

pub(super) use with_sampling;
