//! Limits on guessing: how often somebody may be wrong about a password, a recovery code or an invitation.
//!
//! Every attempt is charged before the password is hashed and given back when it was right, so a family that signs in
//! often is never refused while a guesser is. Nobody is locked out for good: each bucket refills with time. Nothing
//! here knows accounts exist; an unknown e-mail address is limited exactly like a known one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use sha2::{Digest as _, Sha256};

use crate::domain::Email;

/// Wrong passwords in a row for one account from one address before the pace slows: more than anybody mistypes.
pub const PAIR_BURST: u32 = 10;
/// After the burst, one more guess per this time: 70 an hour, below the 100 an hour that ASVS allows.
pub const PAIR_REFILL: Duration = Duration::from_mins(1);
/// Wrong passwords from one address over all accounts: a household behind one address fits.
pub const ADDRESS_BURST: u32 = 50;
/// After the burst, one more per this time.
pub const ADDRESS_REFILL: Duration = Duration::from_secs(6);
/// Wrong passwords for one account from all strange addresses together: 90 in the first hour at most.
pub const ACCOUNT_BURST: u32 = 30;
/// After the burst, one more per this time.
pub const ACCOUNT_REFILL: Duration = Duration::from_mins(1);
/// Accounts made from one address: a school class fits, a script that fills the disk does not.
pub const SIGNUP_BURST: u32 = 200;
/// After the burst, one more per this time.
pub const SIGNUP_REFILL: Duration = Duration::from_secs(10);
/// Buckets kept per limit. A bucket takes about 100 bytes, so all of them together stay below 10 MiB.
pub const MAX_BUCKETS: usize = 20_000;
/// Pairs of account and address that are remembered as having signed in.
pub const MAX_KNOWN: usize = 10_000;

/// Time for limits and for the setup code: monotonic, so that a jump of the wall clock neither opens nor locks anything.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    Monotonic(Instant),
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's monotonic clock.
    pub fn monotonic() -> Self {
        Self(Source::Monotonic(Instant::now()))
    }
    /// A clock that moves only by [`Clock::advance`].
    pub fn manual() -> Self {
        Self(Source::Manual(Arc::default()))
    }
    /// Moves a manual clock; a monotonic one moves by itself and ignores this.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(nanos) = &self.0 {
            nanos.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }
    /// Time since the clock was made.
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Source::Monotonic(start) => start.elapsed(),
            Source::Manual(nanos) => Duration::from_nanos(nanos.load(Ordering::SeqCst)),
        }
    }
}

impl GovernorClock for Clock {
    type Instant = Nanos;
    fn now(&self) -> Nanos {
        self.elapsed().into()
    }
}

/// What an account is called in buckets: fixed in size whatever somebody types.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct AccountKey([u8; 16]);

impl AccountKey {
    fn of(email: &Email) -> Self {
        let hash = Sha256::digest(email.as_str().as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&hash[..16]);
        Self(key)
    }
}

/// An address as limits see it: an IPv4 address, or the /64 network that one IPv6 customer holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Network(IpAddr);

impl Network {
    fn of(peer: IpAddr) -> Self {
        Self(match peer.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        })
    }
}

/// Bucket levels ("theoretical arrival time" per key), bounded: past [`MAX_BUCKETS`] the emptiest are forgotten.
struct Levels<K>(Arc<Mutex<HashMap<K, Nanos>>>);

impl<K> Levels<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Nanos>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Clone for Levels<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Copy + Eq + Hash> StateStore for Levels<K> {
    type Key = K;
    fn measure_and_replace<T, F, E>(&self, key: &K, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut levels = self.lock();
        let (outcome, level) = f(levels.get(key).copied())?;
        if levels.len() >= MAX_BUCKETS && !levels.contains_key(key) {
            forget_emptiest(&mut levels);
        }
        levels.insert(*key, level);
        Ok(outcome)
    }
}

/// Forgets the emptiest quarter at once, so that a flood of new keys pays for one sort per 5,000 of them.
fn forget_emptiest<K: Copy + Eq + Hash>(levels: &mut HashMap<K, Nanos>) {
    let mut by_level: Vec<(Nanos, K)> = levels.iter().map(|(key, level)| (*level, *key)).collect();
    by_level.sort_unstable_by_key(|(level, _)| *level);
    for (_, key) in by_level.iter().take(MAX_BUCKETS / 4) {
        levels.remove(key);
    }
}

/// One limit over many keys.
struct Buckets<K: Copy + Eq + Hash> {
    levels: Levels<K>,
    limiter: RateLimiter<K, Levels<K>, Clock, NoOpMiddleware<Nanos>>,
    refill: Duration,
}

impl<K: Copy + Eq + Hash> Buckets<K> {
    fn new(burst: u32, refill: Duration, clock: Clock) -> Self {
        let levels = Levels(Arc::default());
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        // A period of zero is the only one refused; the constants above are not zero.
        let quota = Quota::with_period(refill).unwrap_or(Quota::per_minute(burst)).allow_burst(burst);
        Self { limiter: RateLimiter::new(quota, levels.clone(), clock), levels, refill }
    }
    fn charge(&self, key: K) -> Result<(), Duration> {
        self.limiter.check_key(&key).map_err(|until| until.wait_time_from(self.limiter.clock().now()))
    }
    fn refund(&self, key: K) {
        if let Some(level) = self.levels.lock().get_mut(&key) {
            *level = level.saturating_sub(self.refill.into());
        }
    }
}

/// Places from which an account was signed in to; the oldest is forgotten past [`MAX_KNOWN`].
#[derive(Default)]
struct Known {
    set: HashSet<(AccountKey, Network)>,
    order: VecDeque<(AccountKey, Network)>,
}

impl Known {
    fn insert(&mut self, place: (AccountKey, Network)) {
        if !self.set.insert(place) {
            return;
        }
        self.order.push_back(place);
        if self.order.len() > MAX_KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
    }
}

/// All limits on guessing of one server.
pub struct Limits {
    pairs: Buckets<(AccountKey, Network)>,
    addresses: Buckets<Network>,
    accounts: Buckets<AccountKey>,
    signups: Buckets<Network>,
    known: Mutex<Known>,
}

/// One guess that was paid for. Dropping it keeps the charge; [`Guess::was_right`] gives it back.
pub struct Guess<'a> {
    limits: &'a Limits,
    account: AccountKey,
    network: Network,
    charged_account: bool,
}

impl Limits {
    /// Fresh limits that tell time by `clock`.
    pub fn new(clock: &Clock) -> Self {
        Self {
            pairs: Buckets::new(PAIR_BURST, PAIR_REFILL, clock.clone()),
            addresses: Buckets::new(ADDRESS_BURST, ADDRESS_REFILL, clock.clone()),
            accounts: Buckets::new(ACCOUNT_BURST, ACCOUNT_REFILL, clock.clone()),
            signups: Buckets::new(SIGNUP_BURST, SIGNUP_REFILL, clock.clone()),
            known: Mutex::default(),
        }
    }

    /// Charges one guess at `email`'s password from `peer`.
    ///
    /// # Errors
    /// How long to wait, when there were too many wrong guesses.
    pub fn guess(&self, email: &Email, peer: IpAddr) -> Result<Guess<'_>, Duration> {
        let (account, network) = (AccountKey::of(email), Network::of(peer));
        self.pairs.charge((account, network))?;
        if let Err(wait) = self.addresses.charge(network) {
            self.pairs.refund((account, network));
            return Err(wait);
        }
        // Strangers who guess at an account must not keep its owner out: a place from which somebody signed in
        // before answers only for its own guesses.
        let charged_account = !self.known().set.contains(&(account, network));
        if charged_account && let Err(wait) = self.accounts.charge(account) {
            self.pairs.refund((account, network));
            self.addresses.refund(network);
            return Err(wait);
        }
        Ok(Guess { limits: self, account, network, charged_account })
    }

    /// Charges the making of one account from `peer`.
    ///
    /// # Errors
    /// How long to wait, when too many were made.
    pub fn sign_up(&self, peer: IpAddr) -> Result<(), Duration> {
        self.signups.charge(Network::of(peer))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guess<'_> {
    /// The guess was right: gives the charge back and remembers the place.
    pub fn was_right(self) {
        self.give_back();
        self.limits.known().insert((self.account, self.network));
    }
    /// The guess was never judged (the server was too busy): gives the charge back.
    pub fn was_not_judged(self) {
        self.give_back();
    }
    fn give_back(&self) {
        self.limits.pairs.refund((self.account, self.network));
        self.limits.addresses.refund(self.network);
        if self.charged_account {
            self.limits.accounts.refund(self.account);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn email(raw: &str) -> Email {
        Email::parse(raw).unwrap()
    }
    fn ip(raw: &str) -> IpAddr {
        raw.parse().unwrap()
    }
    fn wrong(limits: &Limits, who: &str, from: &str) -> bool {
        limits.guess(&email(who), ip(from)).is_ok()
    }

    #[test]
    fn one_address_gets_the_burst_then_one_a_minute_and_the_owner_elsewhere_is_not_kept_out() {
        let clock = Clock::manual();
        let limits = Limits::new(&clock);
        let n_let_through = (0..1000).filter(|_| wrong(&limits, "ada@example.org", "192.0.2.1")).count();
        assert_eq!(n_let_through, PAIR_BURST as usize);
        assert!(wrong(&limits, "ada@example.org", "192.0.2.2"));
        assert!(wrong(&limits, "bob@example.org", "192.0.2.1"));

        let mut n_in_an_hour = 0;
        for _ in 0..3600 {
            clock.advance(Duration::from_secs(1));
            n_in_an_hour += usize::from(wrong(&limits, "ada@example.org", "192.0.2.1"));
        }
        assert!((59..=61).contains(&n_in_an_hour), "{n_in_an_hour}");
    }

    #[test]
    fn many_addresses_together_are_limited_per_account_but_a_known_place_is_not() {
        let limits = Limits::new(&Clock::manual());
        limits.guess(&email("ada@example.org"), ip("192.0.2.200")).unwrap().was_right();
        let n_let_through =
            (0..200).filter(|i| wrong(&limits, "ada@example.org", &format!("198.51.100.{i}"))).count();
        assert_eq!(n_let_through, ACCOUNT_BURST as usize);
        assert!(wrong(&limits, "ada@example.org", "192.0.2.200"));
    }

    #[test]
    fn right_guesses_cost_nothing_and_do_not_buy_guesses_at_others() {
        let limits = Limits::new(&Clock::manual());
        for _ in 0..1000 {
            limits.guess(&email("ada@example.org"), ip("192.0.2.1")).unwrap().was_right();
        }
        let mut n_let_through = 0;
        for i in 0..200 {
            n_let_through += usize::from(wrong(&limits, &format!("victim{i}@example.org"), "192.0.2.1"));
            if let Ok(guess) = limits.guess(&email("ada@example.org"), ip("192.0.2.1")) {
                guess.was_right();
            }
        }
        assert_eq!(n_let_through, ADDRESS_BURST as usize);
    }

    #[test]
    fn an_ipv6_customer_is_one_address_and_a_mapped_ipv4_is_itself() {
        let limits = Limits::new(&Clock::manual());
        let n_let_through =
            (0..100).filter(|i| wrong(&limits, "ada@example.org", &format!("2001:db8:1:2::{i:x}"))).count();
        assert_eq!(n_let_through, PAIR_BURST as usize);
        assert!(Network::of(ip("::ffff:192.0.2.1")) == Network::of(ip("192.0.2.1")));
        assert!(Network::of(ip("2001:db8:1:2::1")) != Network::of(ip("2001:db8:1:3::1")));
    }

    #[test]
    fn memory_is_bounded_and_a_full_bucket_outlives_a_flood_of_new_ones() {
        let limits = Limits::new(&Clock::manual());
        while wrong(&limits, "ada@example.org", "192.0.2.1") {}
        for i in 0..2 * MAX_BUCKETS as u32 {
            let peer = IpAddr::V4((0x0a00_0000 + i).into());
            let _ = limits.guess(&email("eve@example.org"), peer);
        }
        assert!(limits.pairs.levels.lock().len() <= MAX_BUCKETS);
        assert!(limits.addresses.levels.lock().len() <= MAX_BUCKETS);
        assert!(!wrong(&limits, "ada@example.org", "192.0.2.1"));
    }

    #[test]
    fn making_accounts_is_limited_per_address() {
        let limits = Limits::new(&Clock::manual());
        let n_let_through = (0..1000).filter(|_| limits.sign_up(ip("192.0.2.1")).is_ok()).count();
        assert_eq!(n_let_through, SIGNUP_BURST as usize);
        assert!(limits.sign_up(ip("192.0.2.2")).is_ok());
    }
}
