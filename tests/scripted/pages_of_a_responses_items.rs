//! What a kept response went on from is told page by page.

use crate::responses_are_kept_for_their_keys::{PATH, id, prompt, server};
use rkllmd::settings::Settings;
use serde_json::{Value, json};

#[tokio::test]
async fn pages_of_items_follow_each_other() {
    let mut server = server(Settings::default()).await;
    let input: Vec<Value> = (0..5)
        .map(|n| json!({"role": "user", "id": format!("msg_{n}"), "content": format!("{n}")}))
        .collect();
    let (response, _) = prompt(&mut server, &json!({"model": "tiny", "input": input})).await;
    let path = format!("{PATH}/{}/input_items", id(&response));
    let page = async |query: &str| {
        let answer = server.get(&format!("{path}?{query}")).await;
        let items = answer.json()["data"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let ids: Vec<String> = items.iter().map(|item| id(item).to_owned()).collect();
        (ids.join(" "), answer.json()["has_more"] == true)
    };
    assert_eq!(page("").await.0, "msg_4 msg_3 msg_2 msg_1 msg_0");
    assert_eq!(
        page("order=asc&limit=2").await,
        ("msg_0 msg_1".to_owned(), true)
    );
    assert_eq!(
        page("order=asc&limit=3&after=msg_1&include[]=x").await,
        ("msg_2 msg_3 msg_4".to_owned(), false)
    );
    assert_eq!(page("after=msg_0").await, (String::new(), false));
    for (query, param) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=1", "limit"),
        ("order=asc&order=asc", "order"),
        ("order=up", "order"),
        ("after=msg_9", "after"),
    ] {
        let answer = server.get(&format!("{path}?{query}")).await;
        assert_eq!(
            (answer.status, answer.error().1.as_deref()),
            (400, Some(param)),
            "{query}"
        );
    }
    server.shut_down().await;
}

#[tokio::test]
async fn pages_of_items_with_one_id_have_an_end() {
    let mut server = server(Settings::default()).await;
    let input: Vec<Value> = (0..3)
        .map(|n| json!({"role": "user", "id": "msg_0", "content": format!("{n}")}))
        .collect();
    let (response, _) = prompt(&mut server, &json!({"model": "tiny", "input": input})).await;
    let path = format!("{PATH}/{}/input_items", id(&response));
    let first = server.get(&format!("{path}?limit=1")).await.json();
    assert_eq!(
        (&first["has_more"], &first["last_id"]),
        (&json!(true), &json!("msg_0"))
    );
    let next = server
        .get(&format!("{path}?limit=1&after=msg_0"))
        .await
        .json();
    assert_eq!(
        (&next["data"], &next["has_more"]),
        (&json!([]), &json!(false))
    );
    server.shut_down().await;
}
