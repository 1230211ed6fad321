//! A client gets no more of a scarce place by opening more handles.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::handle_support::{MODEL, TestSupervisor, in_time, prompt, run};
use rkllmd::admission::{EmbeddingRequest, Generation};
use rkllmd::generation::{
    ClientKey, GenerationRequest, ModelId, ReplyEvent, RequestId, SamplingRequest,
};
use rkllmd::library_calls::{Input, Param, Pooling, WantedRow};
use rkllmd::supervisor::LibraryHandle;

const ANSWERS: &str = "tokens = [\"a\", \"b\"]\ntoken-delay-us = 3000\nembedding-size = 4\n";
const HANDLES: usize = 4;
const TURNS: u64 = 12;

fn one_place() -> TestSupervisor {
    TestSupervisor::with("1_3_1", &[(MODEL, ANSWERS)], |settings| {
        settings.models.max_loaded = 1;
    })
}

async fn open(test: &TestSupervisor, client: &str) -> LibraryHandle {
    let client = ClientKey::new(client);
    let model = ModelId::from(MODEL);
    let opened = test.supervisor.open_handle(client, model, Param::default());
    in_time(opened).await.expect("a handle")
}

/// Handles of one client that always have something to run, and how often they did.
struct Busy {
    stop: Arc<AtomicBool>,
    runs: Arc<AtomicU64>,
    tasks: tokio::task::JoinSet<()>,
}

async fn busy(test: &TestSupervisor) -> Busy {
    let (stop, runs) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..HANDLES {
        let handle = open(test, "greedy").await;
        let (stop, runs) = (Arc::clone(&stop), Arc::clone(&runs));
        tasks.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let given = run(&handle, prompt("hello")).await.expect("an answer");
                assert_eq!(given.text(), "ab");
                runs.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let busy = Busy { stop, runs, tasks };
    // All of them wait from now on.
    in_time(async {
        while busy.runs.load(Ordering::Relaxed) < HANDLES as u64 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    busy
}

impl Busy {
    fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = in_time(self.tasks.join_next()).await {
            ended.expect("no run failed");
        }
    }
}

fn request(client: &str, model: &str, prompt: &str) -> GenerationRequest {
    GenerationRequest {
        id: RequestId("one".into()),
        model: ModelId::from(model),
        adapter: None,
        client: ClientKey::new(client),
        prompt: prompt.into(),
        goes_by_tokens: false,
        prompt_tokens: None,
        sampling: SamplingRequest::default(),
        draws: Default::default(),
        strict_parameters: false,
        max_new_tokens: None,
        constraint: None,
        redraws: Default::default(),
        reply: None,
        thought_budget: None,
        stop: Vec::new(),
        resume: true,
        total_deadline: None,
        keep_alive: None,
    }
}

fn submit(test: &TestSupervisor, request: GenerationRequest) -> Generation {
    let submitted = test.admission.submit(request);
    submitted.expect("a place in the queue")
}

async fn chat(test: &TestSupervisor) {
    whole(submit(test, request("modest", MODEL, "hello"))).await;
}

async fn whole(mut answer: Generation) {
    loop {
        match in_time(answer.next()).await.expect("an end") {
            ReplyEvent::Finished(_) => return,
            ReplyEvent::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_four_handles_and_one_with_a_chat_alternate() {
    let test = one_place();
    let busy = busy(&test).await;
    chat(&test).await;
    let before = busy.runs();
    for _ in 0..TURNS {
        chat(&test).await;
    }
    let runs = busy.runs() - before;
    // The chat's client is out of line between two of its requests.
    assert!(
        (TURNS / 2..=TURNS + TURNS / 2).contains(&runs),
        "{runs} runs of handles beside {TURNS} chats"
    );
    busy.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_do_embeddings_and_the_handle_of_another_client() {
    let test = one_place();
    let busy = busy(&test).await;
    let modest = open(&test, "modest").await;
    let before = busy.runs();
    for _ in 0..TURNS {
        run(&modest, prompt("hello")).await.expect("an answer");
    }
    let runs = busy.runs() - before;
    assert!(
        runs <= TURNS + TURNS / 2,
        "{runs} runs beside {TURNS} of another client"
    );
    let before = busy.runs();
    for _ in 0..TURNS {
        let request = EmbeddingRequest {
            adapter: None,
            model: ModelId::from(MODEL),
            client: ClientKey::new("third"),
            inputs: vec![Input::prompt("one two")],
            wanted: WantedRow::HiddenState(Pooling::Last),
            least_columns: None,
            total_deadline: None,
            keep_alive: None,
            account: None,
        };
        let rows = in_time(test.admission.embed(request)).await.expect("rows");
        assert_eq!(rows.rows, [[4.0, 5.0, 6.0, 7.0]]);
    }
    let runs = busy.runs() - before;
    assert!(
        runs <= TURNS + TURNS / 2,
        "{runs} runs beside {TURNS} embeddings"
    );
    busy.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_is_that_clients_whose_request_it_was_used_for() {
    let waits = |prompt: &str, file: &str| {
        format!(
            "tokens = [\"a\"]\n[[fault]]\ncall = \"run\"\nwhen-prompt-contains = \"{prompt}\"\n\
             kind = \"wait\"\ntext = \"{file}\"\n"
        )
    };
    let (first, second) = (waits("begin", "first"), waits("use", "second"));
    let models = [(MODEL, &*first), ("n", &*second), ("o", ANSWERS)];
    let test = TestSupervisor::with("1_3_1", &models, |settings| {
        settings.models.max_loaded = 1;
    });
    let mut begun = submit(&test, request("x", MODEL, "begin"));
    let started = in_time(begun.next()).await;
    assert!(
        matches!(started, Some(ReplyEvent::Started(_))),
        "{started:?}"
    );
    // A turn is asked for in the name of a client that leaves before it comes.
    let leaves = submit(&test, request("a", "n", "leave"));
    let used = submit(&test, request("b", "n", "use"));
    test.until_waiting(1).await;
    drop(leaves);
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for (client, model, waiting) in [("b", "o", 2), ("a", MODEL, 3)] {
        let answer = submit(&test, request(client, model, "hello"));
        let order = Arc::clone(&order);
        tasks.spawn(async move {
            whole(answer).await;
            order.lock().expect("no panic").push(client);
        });
        // The next one comes behind it.
        test.until_waiting(waiting).await;
    }
    test.order("first");
    in_time(whole(begun)).await;
    test.order("second");
    in_time(whole(used)).await;
    while let Some(ended) = in_time(tasks.join_next()).await {
        ended.expect("an answer");
    }
    // The one turn that was had was that of `b`.
    assert_eq!(*order.lock().expect("no panic"), ["a", "b"]);
}
