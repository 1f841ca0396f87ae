//! An executor for one thread, and the futures of time.
//!
//! A domain has one thread, hence one executor: [`spawn`] adds tasks to it, [`block_on`] runs them while it
//! waits for one future, and [`entry_async!`](crate::entry_async) makes an `async fn` the domain's main function.
//! Tasks wait for channels, endpoints and time through one [waitset](crate::waitset): when no task is ready, the
//! domain polls and blocks as that does.
//!
//! ```ignore
//! runtime::entry_async!(main);
//!
//! async fn main(env: Env) -> Result<(), Closed> {
//!     let (mut here, mut there) = Channel::<64>::pair(ACCEPTS, Waiting::Blockable)?;
//!     let echo = spawn(async move {
//!         while let Ok(message) = there.recv().await {
//!             there.send(&message).await?;
//!         }
//!     });
//!     here.send(&Message::new(PING, [1])).await?;
//!     here.recv().await?;
//!     Ok(())
//! }
//! ```
//!
//! Ready tasks queue up in the order in which they were woken. A task that finds one thing after the other ready
//! is interrupted at the next `await` of this crate after [`BUDGET`] of them, so it cannot keep others from
//! running. Blocking calls block every task.
//!
//! Wakers push to a queue that may allocate: they must not be called in upcalls. Nothing needs that: what happens
//! outside of the thread reaches it as events, which the waitset looks at.

use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};

use async_task::{Runnable, Task};
use crossbeam_queue::SegQueue;
use ump::Until;

use crate::events::Deadline;
use crate::local::domain_local;
use crate::waitset::{Inbox, Kind, Member, Source, Waitset, Wire};

/// Operations of this crate that a task may find ready before it lets others run.
pub const BUDGET: u32 = 128;

/// What tasks wait for.
struct Reactor {
    set: Waitset,
    /// Who waits for a member, by its index.
    wakers: Vec<Option<Waker>>,
}

domain_local! {
    static READY: SegQueue<Runnable> = SegQueue::new();
}
domain_local! {
    static REACTOR: RefCell<Reactor> =
        RefCell::new(Reactor { set: Waitset::new(), wakers: Vec::new() });
}
domain_local! {
    static LEFT: Cell<u32> = Cell::new(BUDGET);
}

/// A task that was spawned. Await it for its result. Dropping this leaves the task running.
#[must_use = "a task that nobody awaits should be detached by dropping this on purpose"]
pub struct JoinHandle<T>(Option<Task<T>>);

impl<T> JoinHandle<T> {
    /// Lets the task go on by itself.
    pub fn detach(self) {}

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(Task::is_finished)
    }

    /// Ends the task at its next `await`; its result, if it had one already.
    pub async fn cancel(mut self) -> Option<T> {
        match self.0.take() {
            Some(task) => task.cancel().await,
            None => None,
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match &mut self.0 {
            Some(task) => Pin::new(task).poll(context),
            // The task is taken by `cancel` and `drop` only, after which there is no handle.
            None => Poll::Pending,
        }
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.detach();
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("finished", &self.is_finished()).finish()
    }
}

/// Adds a task to the executor. It runs while some [`block_on`] waits.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let schedule = |runnable| READY.with(|ready| ready.push(runnable));
    // SAFETY: of the conditions, `schedule` is `Send`, `Sync` and `'static`, and so is nothing borrowed by the
    // future. The future need not be `Send`: a domain has one thread, so the runnable is used and dropped on
    // the thread that it was made on. In the host's tests the queue belongs to the thread.
    let (runnable, task) = unsafe { async_task::spawn_unchecked(future, schedule) };
    runnable.schedule();
    JoinHandle(Some(task))
}

/// Whether the future of [`block_on`] was woken.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Relaxed: it is the same thread that looks.
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `future` to its end, and all tasks meanwhile.
///
/// It may be called within a task; that task and those below it do not go on then before it returns.
///
/// # Panics
/// If nothing is left that could wake anybody: the domain would block for ever.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(woken.clone());
    let mut context = Context::from_waker(&waker);
    let mut found = Vec::new();
    loop {
        if woken.0.swap(false, Ordering::Relaxed) {
            LEFT.with(|left| left.set(BUDGET));
            if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
                return result;
            }
        }
        let mut more = run_batch() || woken.0.load(Ordering::Relaxed);
        loop {
            collect(&mut found);
            found.drain(..).for_each(Waker::wake);
            more = more || woken.0.load(Ordering::Relaxed) || READY.with(|ready| !ready.is_empty());
            if more {
                break;
            }
            REACTOR.with(|reactor| {
                let mut reactor = reactor.borrow_mut();
                assert!(reactor.set.can_wake(), "block_on: nothing is left that could wake a task");
                reactor.set.rest(Deadline::NEVER);
            });
        }
    }
}

/// Runs the tasks that are ready now, each once; whether some are ready then.
fn run_batch() -> bool {
    for _ in 0..READY.with(SegQueue::len) {
        if let Some(runnable) = READY.with(SegQueue::pop) {
            LEFT.with(|left| left.set(BUDGET));
            runnable.run();
        }
    }
    READY.with(|ready| !ready.is_empty())
}

/// Collects the wakers of all members that are ready now.
fn collect(found: &mut Vec<Waker>) {
    REACTOR.with(|reactor| {
        let Reactor { set, wakers } = &mut *reactor.borrow_mut();
        set.sweep(|member| found.extend(wakers.get_mut(member.index()).and_then(Option::take)));
    });
}

/// Whether the task has used up its budget and must return `Pending`; it is woken again at once.
pub(crate) fn must_pause(context: &mut Context<'_>) -> bool {
    LEFT.with(|left| match left.get() {
        0 => {
            context.waker().wake_by_ref();
            true
        }
        n => {
            left.set(n - 1);
            false
        }
    })
}

/// Makes a channel a member of the executor's waitset. It waits for nothing yet.
pub(crate) fn add_wire(wire: Rc<dyn Wire>) -> Member {
    REACTOR.with(|reactor| reactor.borrow_mut().set.add_wire(wire, None))
}

/// Makes an endpoint a member of the executor's waitset.
pub(crate) fn add_inbox(inbox: Rc<dyn Inbox>) -> Member {
    REACTOR.with(|reactor| reactor.borrow_mut().set.add(Source(Kind::Inbox(inbox))))
}

/// Wakes `waker` once when `member` is ready; a channel for `until`.
pub(crate) fn watch(member: Member, until: Until, waker: &Waker) {
    REACTOR.with(|reactor| {
        let reactor = &mut *reactor.borrow_mut();
        let until = match reactor.set.watched(member) {
            Some(other) if other != until => Until::Either,
            _ => until,
        };
        reactor.set.watch(member, Some(until));
        let index = member.index();
        if reactor.wakers.len() <= index {
            reactor.wakers.resize(index + 1, None);
        }
        match &mut reactor.wakers[index] {
            Some(old) if old.will_wake(waker) => {}
            slot => *slot = Some(waker.clone()),
        }
    });
}

/// Takes a member out of the executor's waitset.
pub(crate) fn remove(member: Member) {
    let waker = REACTOR.with(|reactor| {
        let reactor = &mut *reactor.borrow_mut();
        reactor.set.remove(member);
        reactor.wakers.get_mut(member.index()).and_then(Option::take)
    });
    // Dropping it may drop a task, which may remove members in turn.
    drop(waker);
}

/// The future of [`sleep_until`].
#[derive(Debug)]
#[must_use = "nothing sleeps before it is awaited"]
pub struct Sleep {
    deadline: Deadline,
    timer: Option<Member>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.deadline != Deadline::NEVER && crate::waitset::port::now() >= self.deadline.0 {
            return Poll::Ready(());
        }
        let deadline = self.deadline;
        let timer = *self
            .timer
            .get_or_insert_with(|| REACTOR.with(|reactor| reactor.borrow_mut().set.add_timer(deadline)));
        watch(timer, Until::Message, context.waker());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            remove(timer);
        }
    }
}

/// Waits until `deadline` has passed.
pub fn sleep_until(deadline: Deadline) -> Sleep {
    Sleep { deadline, timer: None }
}

/// The deadline of [`timeout`] passed first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimedOut;

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the deadline passed first")
    }
}

impl core::error::Error for TimedOut {}

/// Waits for `future`, but no longer than until `deadline`; it is dropped then.
///
/// # Errors
/// [`TimedOut`].
pub async fn timeout<F: Future>(deadline: Deadline, future: F) -> Result<F::Output, TimedOut> {
    let mut future = pin!(future);
    let mut sleep = pin!(sleep_until(deadline));
    poll_fn(|context| {
        if let Poll::Ready(result) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(result));
        }
        sleep.as_mut().poll(context).map(|()| Err(TimedOut))
    })
    .await
}

/// Lets all other ready tasks run first.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if core::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// Makes `$main`, an `async fn(Env) -> impl Outcome`, the domain's main function.
#[macro_export]
macro_rules! entry_async {
    ($main:path) => {
        /// Runs the asynchronous main function.
        fn blocking_main(env: &$crate::Env) -> u64 {
            $crate::start::Outcome::report($crate::executor::block_on($main(*env)))
        }
        $crate::entry!(blocking_main);
    };
}

#[cfg(test)]
mod tests;
