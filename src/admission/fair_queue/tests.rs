use super::*;
use proptest::prelude::*;

fn served(queue: &mut FairQueue<&'static str, i32>) -> Vec<i32> {
    std::iter::from_fn(|| queue.pop().map(|(entry, _)| entry)).collect()
}

#[test]
fn clients_take_turns() {
    let mut queue = FairQueue::new(8);
    for n in 0..4 {
        queue.push("greedy", 1, n).unwrap();
    }
    queue.push("modest", 1, 100).unwrap();
    assert_eq!(queue.in_order(), [&0, &100, &1, &2, &3]);
    assert_eq!(served(&mut queue), [0, 100, 1, 2, 3]);
}

#[test]
fn a_client_of_weight_two_has_two_turns_where_others_have_one() {
    let mut queue = FairQueue::new(16);
    for n in 0..6 {
        queue.push("heavy", 2, n).unwrap();
        queue.push("light", 1, 100 + n).unwrap();
    }
    let expected: Vec<i32> = queue.in_order().into_iter().copied().collect();
    let order = served(&mut queue);
    assert_eq!(expected, order);
    assert_eq!(order[..6], [0, 100, 1, 101, 2, 3]);
}

#[test]
fn what_a_request_cost_counts_when_it_is_over() {
    let mut queue = FairQueue::new(16);
    for n in 0..3 {
        queue.push("long", 1, n).unwrap();
        queue.push("short", 1, 100 + n).unwrap();
    }
    let (first, charge) = queue.pop().unwrap();
    assert_eq!(first, 0);
    queue.settle(charge, Some(1000));
    // It has had a thousand, so that three of the other's come first.
    let (second, charge) = queue.pop().unwrap();
    queue.settle(charge, Some(10));
    let (third, charge) = queue.pop().unwrap();
    queue.settle(charge, Some(10));
    assert_eq!([second, third], [100, 101]);
    assert_eq!(served(&mut queue), [102, 1, 2]);
}

#[test]
fn nothing_is_saved_up_by_staying_away() {
    let mut queue = FairQueue::new(16);
    for n in 0..10 {
        queue.push("busy", 1, n).unwrap();
    }
    for _ in 0..5 {
        let (_, charge) = queue.pop().unwrap();
        queue.settle(charge, Some(100));
    }
    for n in 0..3 {
        queue.push("new", 1, 100 + n).unwrap();
    }
    let order = served(&mut queue);
    assert_eq!(order[..4], [100, 5, 101, 6]);
}

/// Clients of keys, each of which asks again when it was answered, on so many slots.
struct Crowd {
    queue: FairQueue<usize, usize>,
    /// When each run ends, its key, and what it costs.
    runs: Vec<(u64, usize, u64, Charge<usize>)>,
    weights: Vec<u32>,
    clock: u64,
    tokens: Vec<u64>,
}

impl Crowd {
    fn new(weights: &[u32], clients: usize) -> Self {
        let mut crowd = Self {
            queue: FairQueue::new(usize::MAX),
            runs: Vec::new(),
            weights: weights.to_vec(),
            clock: 0,
            tokens: vec![0; weights.len()],
        };
        for client in 0..clients {
            crowd.ask(client % weights.len());
        }
        crowd
    }

    fn ask(&mut self, key: usize) {
        self.queue.push(key, self.weights[key], key).unwrap();
    }

    /// Begins runs in all free slots, each as long as `cost` says of its key.
    fn fill(&mut self, slots: usize, mut cost: impl FnMut(usize) -> u64) {
        while self.runs.len() < slots {
            let Some((key, charge)) = self.queue.pop() else {
                return;
            };
            let cost = cost(key);
            self.runs.push((self.clock + cost, key, cost, charge));
        }
    }

    /// Ends the run that is over first; its client asks again.
    fn end_one(&mut self) {
        let next = self.runs.iter().enumerate().min_by_key(|(_, run)| run.0);
        let (at, _) = next.expect("a run");
        let (ends, key, cost, charge) = self.runs.swap_remove(at);
        self.clock = ends;
        self.tokens[key] += cost;
        self.queue.settle(charge, Some(cost));
        self.ask(key);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// 64 clients on 8 slots, however long their answers are.
    #[test]
    fn tokens_are_in_proportion_to_weights(
        lengths in prop::collection::vec(1u64..40, 3),
        spread in prop::collection::vec(1u64..20, 50),
    ) {
        let weights = [1, 2, 4];
        let mut crowd = Crowd::new(&weights, 64);
        let mut nth = spread.iter().cycle();
        let mut cost = |key: usize| 10 * lengths[key] * nth.next().unwrap();
        // Until those that cost most have had many turns.
        while crowd.tokens.iter().any(|tokens| *tokens < 200 * 4000) {
            crowd.fill(8, &mut cost);
            crowd.end_one();
        }
        let all: u64 = crowd.tokens.iter().sum();
        for (weight, tokens) in weights.iter().zip(&crowd.tokens) {
            let share = *tokens as f64 / all as f64 * 7.0 / f64::from(*weight);
            prop_assert!((0.9..1.1).contains(&share), "{:?}", crowd.tokens);
        }
    }

    #[test]
    fn a_key_that_comes_waits_for_no_more_than_one_run_a_slot(
        weights in prop::collection::vec(1u32..9, 4),
        turns in 20usize..400,
        spread in prop::collection::vec(1u64..500, 30),
    ) {
        let mut crowd = Crowd::new(&weights[..3], 64);
        crowd.weights.push(weights[3]);
        crowd.tokens.push(0);
        let mut nth = spread.iter().cycle();
        let mut cost = |_| *nth.next().unwrap();
        for _ in 0..turns {
            crowd.fill(8, &mut cost);
            crowd.end_one();
        }
        crowd.fill(8, &mut cost);
        prop_assert!(crowd.queue.ahead_of_next(&3, weights[3]) <= 3);
        crowd.ask(3);
        let mut ended = 0;
        while !crowd.runs.iter().any(|run| run.1 == 3) {
            crowd.end_one();
            ended += 1;
            prop_assert!(ended <= 8, "its turn has not come after {ended} runs");
            crowd.fill(8, &mut cost);
        }
    }

    #[test]
    fn what_is_remembered_of_clients_is_bounded(
        steps in prop::collection::vec((any::<bool>(), 1u64..100), 1..2000),
    ) {
        let mut queue = FairQueue::new(32);
        let mut running = VecDeque::new();
        for (client, (begins, cost)) in steps.into_iter().enumerate() {
            let _ = queue.push(client, 1, client);
            if begins && running.len() < 4 {
                running.extend(queue.pop());
            } else if let Some((_, charge)) = running.pop_front() {
                queue.settle(charge, Some(cost));
            }
            prop_assert!(queue.clients.len() <= 3 * (32 + 4) + KEPT + 1);
        }
    }
}

/// What a client does, and what becomes of its requests.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Push(u8),
    Pop,
    /// The one of those that run, and what it has cost.
    Settle(usize, u64),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        (0u8..3).prop_map(Deed::Push),
        Just(Deed::Pop),
        (0usize..8, 1u64..2000).prop_map(|(nth, cost)| Deed::Settle(nth, cost)),
    ]
}

/// A queue and what runs of it.
struct Half {
    queue: FairQueue<u8, usize>,
    running: Vec<Charge<u8>>,
}

impl Half {
    fn new() -> Self {
        Self {
            queue: FairQueue::new(usize::MAX),
            running: Vec::new(),
        }
    }

    fn act(&mut self, number: usize, deed: Deed) {
        match deed {
            Deed::Push(client) => {
                self.queue.push_again(client, 1, number);
            }
            Deed::Pop => self
                .running
                .extend(self.queue.pop().map(|(_, charge)| charge)),
            Deed::Settle(nth, cost) if nth < self.running.len() => {
                let charge = self.running.remove(nth);
                self.queue.settle(charge, Some(cost));
            }
            Deed::Settle(..) => {}
        }
    }

    fn rest(mut self) -> Vec<usize> {
        std::iter::from_fn(|| self.queue.pop().map(|(entry, _)| entry)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A client that has had a turn comes back a moment before or after it is known what the turn cost.
    #[test]
    fn it_makes_no_difference_when_a_cost_becomes_known(
        before in prop::collection::vec(deed(), 0..30),
        cost in 1u64..3000,
        after in prop::collection::vec(deed(), 0..10),
    ) {
        let (mut known_first, mut known_later) = (Half::new(), Half::new());
        // The others stay, so that no queue begins anew.
        for half in [&mut known_first, &mut known_later] {
            for (number, deed) in before.iter().enumerate() {
                half.act(number, *deed);
            }
            half.act(1000, Deed::Push(7));
            half.act(1001, Deed::Push(7));
        }
        let Some(client) = known_first.running.last().map(|charge| charge.client) else {
            return Ok(());
        };
        let last = known_first.running.len() - 1;
        known_first.act(1002, Deed::Settle(last, cost));
        known_first.act(1003, Deed::Push(client));
        known_later.act(1003, Deed::Push(client));
        known_later.act(1002, Deed::Settle(last, cost));
        for (number, deed) in after.iter().enumerate() {
            known_first.act(2000 + number, *deed);
            known_later.act(2000 + number, *deed);
        }
        prop_assert_eq!(known_first.rest(), known_later.rest());
    }

    /// Whatever comes and goes, no more is kept of a client than runs of it.
    #[test]
    fn what_is_kept_of_a_client_is_bounded_by_what_runs(deeds in prop::collection::vec(deed(), 0..200)) {
        let mut half = Half::new();
        for (number, deed) in deeds.into_iter().enumerate() {
            half.act(number, deed);
            for account in half.queue.clients.values() {
                prop_assert!(account.tally.places() <= account.running + 1);
            }
        }
    }
}

#[test]
fn a_client_that_comes_back_early_is_not_charged_for_its_absence_as_well() {
    let mut queue = FairQueue::new(16);
    // Costs are about ten so far.
    queue.push("embeds", 1, 0).unwrap();
    let (_, charge) = queue.pop().unwrap();
    queue.settle(charge, Some(10));
    queue.push("embeds", 1, 0).unwrap();
    queue.push("chats", 1, 100).unwrap();
    let (_, dear) = queue.pop().unwrap();
    for n in 1..60 {
        queue.push("chats", 1, 100 + n).unwrap();
        let (_, charge) = queue.pop().unwrap();
        queue.settle(charge, Some(10));
    }
    // It was served 500 meanwhile, and the others 590: it is next.
    queue.push_again("embeds", 1, 1);
    queue.settle(dear, Some(500));
    assert_eq!(queue.pop().unwrap().0, 1);
}

#[derive(Clone, Debug)]
enum Step {
    Push(u8),
    Pop,
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u8..4).prop_map(Step::Push),
        2 => Just(Step::Pop),
        1 => (0usize..8).prop_map(Step::Remove),
    ]
}

proptest! {
    #[test]
    fn as_many_are_served_before_an_entry_as_was_said(
        before in prop::collection::vec(0u8..4, 0..20),
        weights in prop::collection::vec(1u32..5, 4),
        pops in 0usize..6,
        costs in prop::collection::vec(1u64..9, 6),
        client in 0u8..4,
    ) {
        let weight = |client: u8| weights[usize::from(client)];
        let mut queue = FairQueue::new(32);
        for waiting in before {
            queue.push(waiting, weight(waiting), "other").unwrap();
        }
        for cost in &costs[..pops] {
            if let Some((_, charge)) = queue.pop() {
                queue.settle(charge, Some(*cost));
            }
        }
        let said = queue.ahead_of_next(&client, weight(client));
        queue.push(client, weight(client), "this").unwrap();
        let mut served = std::iter::from_fn(|| queue.pop().map(|(entry, _)| entry));
        prop_assert_eq!(served.position(|entry| entry == "this"), Some(said));
    }

    #[test]
    fn nothing_is_lost_reordered_within_a_client_or_over_capacity(steps in prop::collection::vec(step(), 0..60)) {
        let mut queue = FairQueue::new(5);
        // Ticket, client, number; in the order of arrival.
        let mut expected: Vec<(Ticket, u8, u32)> = Vec::new();
        let mut passed_over: HashMap<u8, usize> = HashMap::new();
        for (number, step) in (0u32..).zip(steps) {
            match step {
                Step::Push(client) => match queue.push(client, 1, number) {
                    Ok(ticket) => expected.push((ticket, client, number)),
                    Err(back) => {
                        prop_assert_eq!(back, number);
                        prop_assert_eq!(expected.len(), 5);
                    }
                },
                Step::Pop => {
                    let Some((served, charge)) = queue.pop() else {
                        prop_assert!(expected.is_empty());
                        continue;
                    };
                    queue.settle(charge, None);
                    let at = expected.iter().position(|e| e.2 == served).unwrap();
                    let (_, client, _) = expected[at];
                    prop_assert!(expected[..at].iter().all(|e| e.1 != client), "order within a client");
                    expected.remove(at);
                    passed_over.remove(&client);
                    let mut others: Vec<u8> = expected.iter().map(|e| e.1).filter(|c| *c != client).collect();
                    others.sort_unstable();
                    others.dedup();
                    for other in others {
                        let times = passed_over.entry(other).or_default();
                        *times += 1;
                        prop_assert!(*times <= 4, "no client waits for more turns than there are other clients");
                    }
                }
                Step::Remove(nth) => {
                    if let Some(&(ticket, client, number)) = expected.get(nth) {
                        prop_assert_eq!(queue.remove(&client, ticket), Some(number));
                        prop_assert_eq!(queue.remove(&client, ticket), None);
                        expected.remove(nth);
                        if !expected.iter().any(|e| e.1 == client) {
                            passed_over.remove(&client);
                        }
                    }
                }
            }
            prop_assert_eq!(queue.len(), expected.len());
        }
    }
}
