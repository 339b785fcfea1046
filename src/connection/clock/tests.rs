use futures::FutureExt;

use super::*;

fn pass(micros: u64) {
    assert!(tokio::time::advance(Duration::from_micros(micros)).now_or_never().is_none());
}

/// How many times the clock was looked at, of `times`, between which `micros` pass.
fn looks(times: usize, micros: u64) -> usize {
    let is_true = |_: &usize| {
        pass(micros);
        millisecond_ago() == Some(Instant::now() - Duration::from_millis(1))
    };
    (0..times).filter(is_true).count()
}

#[tokio::test(start_paused = true)]
async fn the_clock_is_looked_at_seldom_where_lines_are_quick() {
    assert_eq!(looks(100, 1), 100, "outside of a poll");
    for _ in 0..2 {
        // The first two, one of the next 8 and of 16, and then one of 32.
        within_poll(|| assert_eq!(looks(2 + 8 + 16 + 320, 1), 2 + 1 + 1 + 10));
        within_poll(|| assert_eq!(looks(100, 101), 100, "each takes long"));
    }
    within_poll(|| {
        assert_eq!(looks(2, 1), 2);
        assert_eq!(within_poll(|| looks(7, 1000)), 0, "none is seen to take long");
        assert_eq!(looks(100, 1000), 100);
        assert_eq!(looks(1 + 7, 1), 1, "the pace is found out anew");
    });
    let panicked = std::panic::catch_unwind(|| within_poll(|| panic!("within a poll")));
    assert!(panicked.is_err());
    assert_eq!(looks(100, 1), 100, "outside of a poll");
}

#[tokio::test(start_paused = true)]
async fn a_poll_is_long_by_itself() {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut read = || {
        let now = Instant::now();
        has_read(now);
        poll_turn(Some(now), &mut cx)
    };
    for _ in 0..3 {
        within_poll(|| {
            assert!(read().is_ready());
            pass(9999);
            assert!(read().is_ready());
        });
        pass(1);
        assert!(read().is_ready(), "outside of a poll");
    }
    within_poll(|| {
        for _ in 0..3 {
            assert!(read().is_ready());
            pass(10_000);
            assert!(read().is_pending());
        }
    });
}

#[tokio::test(start_paused = true)]
async fn who_has_begun_to_look_sees_the_first_line_that_takes_long() {
    let mut seen = Seen { unlooked: MOST, ..Seen::default() };
    assert!(seen.look().is_none());
    let begun = seen.begin(None);
    pass(1000);
    assert_eq!(seen.look(), Some(begun + Duration::from_millis(1)));
    pass(1);
    assert_eq!(seen.look(), Some(Instant::now()), "that one took long");
    assert!((0..FIRST).all(|_| seen.look().is_none()), "and this one did not");
}
