//! Calls, where the model calls as it likes.

use super::*;

#[test]
fn only_what_stands_in_a_call_is_kept_where_the_model_calls_as_it_likes() {
    let wanted = Wanted::Calls {
        json: calls(
            &ReplyFamily::Hermes.format(),
            HowMany::AsLiked { several: true },
        ),
    };
    let mut free = follower(&wanted, None, b"");
    let mut drawn = Vec::new();
    for _ in 0..2 {
        let all = allowed(&mut free, &drawn).expect("goes on");
        assert_eq!(all.len(), 300, "nothing is forbidden");
        assert!(says(
            &mut free,
            &mut drawn,
            "See <tool, and <tool_call>\n{\"name\": \""
        ));
        let names = allowed(&mut free, &drawn).expect("goes on");
        assert_eq!(names, [i32::from(b'f'), i32::from(b'g')]);
        assert!(says(
            &mut free,
            &mut drawn,
            "f\", \"arguments\": {\"n\": 7}}\n</tool_call>"
        ));
    }
    drawn.push(END);
    assert_eq!(allowed(&mut free, &drawn), None);
    let mut resumed = follower(
        &wanted,
        None,
        b"<tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call> so <tool_call>{\"name\": \"",
    );
    let names = allowed(&mut resumed, &[]).expect("goes on");
    assert_eq!(names, [i32::from(b'f'), i32::from(b'g')]);
    let mut ends = follower(&wanted, None, b"<tool_call");
    let next = allowed(&mut ends, &[]).expect("goes on");
    assert!(next.contains(&i32::from(b'>')) && next.contains(&END));
    assert!(
        next.contains(&261) && !next.contains(&263),
        "`>no` goes on as no call does"
    );
}

#[test]
fn json_that_reads_like_a_call_is_kept_from_its_arguments_on() {
    let wanted = Wanted::Calls {
        json: calls(
            &ReplyFamily::Llama3.format(),
            HowMany::AsLiked { several: true },
        ),
    };
    let mut free = follower(&wanted, None, b"");
    let mut drawn = Vec::new();
    assert!(says(
        &mut free,
        &mut drawn,
        "{\"name\": \"f\", \"parameters\":"
    ));
    assert!(says(&mut free, &mut drawn, " {\"n\": "));
    let number = allowed(&mut free, &drawn).expect("goes on");
    assert!(number.contains(&i32::from(b'1')) && !number.contains(&i32::from(b'"')));
    let mut json = follower(&wanted, None, b"{\"name\": \"f\", \"age\": ");
    assert_eq!(allowed(&mut json, &[]).expect("goes on").len(), 300);
}
