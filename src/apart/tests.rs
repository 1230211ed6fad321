use super::*;

const MOST_THREADS: usize = 4;
const LIMIT: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(60);

fn pool() -> &'static Pool {
    Box::leak(Box::new(Pool::new(MOST_THREADS)))
}

/// Calls that hang until it is dropped.
struct Wedge(Arc<(Mutex<bool>, Condvar)>);

impl Wedge {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn call(&self) -> impl FnOnce() -> u32 + Send + 'static {
        let wedge = Arc::clone(&self.0);
        move || {
            let (lock, changed) = &*wedge;
            let mut free = lock.lock().unwrap();
            while !*free {
                free = changed.wait(free).unwrap();
            }
            7
        }
    }
}

impl Drop for Wedge {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

#[tokio::test]
async fn one_that_hangs_leaves_its_subject_unknown_and_no_other() {
    let pool = pool();
    let wedge = Wedge::new();
    let before = Instant::now();
    assert_eq!(pool.ask(Subject::Child(1), LIMIT, wedge.call()).await, None);
    // Another call about the same is not even begun.
    assert_eq!(pool.ask(Subject::Child(1), LIMIT, || 1).await, None);
    assert!(before.elapsed() < PATIENCE);
    for _ in 0..100 {
        assert_eq!(pool.ask(Subject::Child(2), PATIENCE, || 2).await, Some(2));
    }
    assert!(pool.lock().threads <= 2, "calls that return share a thread");
    drop(wedge);
    assert_eq!(pool.ask(Subject::Child(1), PATIENCE, || 3).await, Some(3));
}

#[tokio::test]
async fn threads_that_hang_are_bounded_and_come_back() {
    let pool = pool();
    let wedge = Wedge::new();
    for pid in 0..10 {
        assert_eq!(
            pool.ask(Subject::Child(pid), LIMIT, wedge.call()).await,
            None
        );
    }
    assert_eq!(pool.lock().threads, MOST_THREADS);
    assert_eq!(pool.ask(Subject::OwnProcess, LIMIT, || 1).await, None);
    for pid in 0..2000 {
        pool.begin(Job::new(Subject::Child(pid), || {}));
    }
    assert!(pool.lock().waiting.len() <= MOST_WAITING);
    drop(wedge);
    // There is room again once some of those have been made.
    let until = Instant::now() + PATIENCE;
    while pool
        .ask(Subject::OwnProcess, PATIENCE, || 1)
        .await
        .is_none()
    {
        assert!(Instant::now() < until, "no room again");
        tokio::task::yield_now().await;
    }
    assert_eq!(pool.lock().threads, MOST_THREADS);
}

#[tokio::test]
async fn children_that_hang_keep_nothing_else_from_being_asked() {
    let wedge = Wedge::new();
    for pid in 0..20 {
        begin(Subject::Child(pid), {
            let call = wedge.call();
            move || {
                call();
            }
        });
    }
    let unknown = ask(Subject::Child(100), LIMIT, || 1).await;
    assert_eq!(unknown, None, "all threads for children hang, or wait");
    for subject in [
        Subject::OwnProcess,
        Subject::NpuDriver,
        Subject::Keys("keys.toml".into()),
        Subject::File("state".into()),
    ] {
        assert_eq!(ask(subject, PATIENCE, || 1).await, Some(1));
    }
    drop(wedge);
    assert_eq!(ask(Subject::Child(100), PATIENCE, || 1).await, Some(1));
}

#[tokio::test]
async fn what_hangs_is_known_to() {
    let pool = pool();
    let wedge = Wedge::new();
    assert!(!pool.is_stuck(&Subject::Child(0)));
    for pid in 0..MOST_THREADS as u32 {
        let other = Subject::Child(1000);
        assert!(!pool.is_stuck(&other), "{pid} of its threads hang");
        let subject = Subject::Child(pid);
        assert_eq!(pool.ask(subject.clone(), LIMIT, wedge.call()).await, None);
        assert!(pool.is_stuck(&subject));
    }
    assert!(pool.is_stuck(&Subject::Child(1000)), "no thread is left");
    drop(wedge);
    let subject = Subject::Child(0);
    assert_eq!(pool.ask(subject.clone(), PATIENCE, || 1).await, Some(1));
    assert!(!pool.is_stuck(&Subject::Child(1000)));
}

#[test]
fn a_thread_may_wait_and_a_panic_is_no_answer() {
    let pool = pool();
    let wedge = Wedge::new();
    assert_eq!(
        pool.ask_and_wait(Subject::NpuDriver, LIMIT, wedge.call()),
        None
    );
    drop(wedge);
    let panics = || -> u32 { panic!("of a caller") };
    assert_eq!(
        pool.ask_and_wait(Subject::OwnProcess, PATIENCE, panics),
        None
    );
    assert_eq!(
        pool.ask_and_wait(Subject::OwnProcess, PATIENCE, || 1),
        Some(1)
    );
}
